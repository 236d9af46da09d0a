"""torch's attention, routed to manymax inside a `with` block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from manymax.attention.dense.api import attention
from manymax.attention.dense.call import make_rule
from manymax.integrations.multihead import multi_head_attention_forward
from manymax.integrations.scores import without_finite
from manymax.maps.module import Map

_HERE = threading.local()  # whether this thread is in manymax by now, which may itself call torch's attention


class patch_sdpa(TorchFunctionMode):  # noqa: N801
    r"""Route `F.scaled_dot_product_attention` to `attention` inside a `with` block, for any model at all.

    $$o_i = \sum_j w_{ij} v_j, \qquad w_i = \operatorname{map}(s_i)$$

    with $s_{ij}$ the scores that torch's function would hand to softmax and $v_j$ the values. It takes every call that
    the block's own thread makes, under whatever name a model imported the function, and torch's
    `F.multi_head_attention_forward` with the shortcuts around it, which `nn.MultiheadAttention` and
    `nn.TransformerEncoder` call. Blocks nest, the innermost decides; other threads are not touched, so a model that
    starts threads of its own needs a block in each. Activation checkpointing calls again in the backward pass, which
    then belongs into the block. A model's own attention of matrix products and softmax is nothing that this sees:
    `calls` tells.

    Args:
        map: a name from `list_maps`, or a module from `create_map`.
        backend: as in `attention`.

    Raises:
        ValueError: if the map is unknown; inside, where `attention` would raise.

    Example:
        >>> import torch, manymax as mm
        >>> query, key, value = torch.randn(3, 1, 4, 16, 8).unbind()
        >>> with mm.patch_sdpa("sparsemax") as patched:
        ...     out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        >>> patched.calls
        1
        >>> torch.equal(out, mm.attention(query, key, value, is_causal=True, map="sparsemax"))
        True

    Source:
        Vaswani et al., 2017, Attention Is All You Need, arXiv:1706.03762.
    """

    def __init__(self, map: str | Map = "softmax", *, backend: str = "auto") -> None:
        make_rule(map)
        super().__init__()
        self.map = map
        self.backend = backend
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Take the calls of attention; let the others through."""
        del types
        ours = _OURS.get(func)
        if ours is None or getattr(_HERE, "inside", False):
            return func(*args, **(kwargs or {}))
        self.calls += 1
        _HERE.inside = True
        try:
            return ours(*args, **(kwargs or {}), map=self.map, backend=self.backend)
        finally:
            _HERE.inside = False


def _scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    map: str | Map,
    backend: str,
) -> Tensor:
    """Return what torch's function of these arguments does, with a map."""
    mask = attn_mask if map == "softmax" else without_finite(attn_mask)
    options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa, "map": map, "backend": backend}
    out: Tensor = attention(query, key, value, mask, dropout_p, is_causal, **options)
    return out


_OURS: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: _scaled_dot_product_attention,
    F.multi_head_attention_forward: multi_head_attention_forward,
}
