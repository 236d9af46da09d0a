"""manymax in the models of `timm`: their own attention layers, parameters included, with any map."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from manymax._extras import require
from manymax.integrations.sdpa import patch_sdpa
from manymax.maps.module import create_map

Options = tuple[tuple[str, Any], ...]


def attention(map: str = "softmax", *, rope: bool = False, **options: Any) -> type[nn.Module]:
    r"""Return an attention layer's class for `timm.create_model(..., attn_layer=...)`.

    $$\mathrm{out} = W^O [\mathrm{head}_1; \dots; \mathrm{head}_h], \qquad
    \mathrm{head}_i = \operatorname{map}\!\left(\frac{Q_i K_i^\top}{\sqrt{d}}\right) V_i$$

    with $Q_i, K_i, V_i$ the projected tokens, $W^O$ the output projection, $h$ the number of heads and $d$ the features
    of one. The class is a subclass of timm's own layer, with the same parameters under the same names, so that
    pretrained weights load unchanged. Options that are `nn.Parameter` are learnt, by each layer for itself, and stand
    beside them as `map.*`. A model that takes no `attn_layer`, such as Swin, is for `replace_attention`.

    Args:
        map: a name from `list_maps`.
        rope: whether to subclass timm's `AttentionRope`, for models with rotary positions.
        **options: the map's own options.

    Returns:
        The class.

    Raises:
        TypeError: if the map has no such option.
        ValueError: if the map is unknown.

    Example:
        >>> import timm, torch, manymax as mm
        >>> layer = mm.integrations.timm.attention("sigmoid")
        >>> model = timm.create_model("test_vit", attn_layer=layer, num_classes=5)
        >>> model(torch.randn(1, 3, 160, 160)).shape
        torch.Size([1, 5])
    """
    create_map(map, **options)
    layers = require("timm.layers", "timm")
    kind: Any = _kind(layers.AttentionRope if rope else layers.Attention)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        kind.__init__(self, *args, **kwargs)
        _choose(self, map, options)

    return type(kind.__name__, (kind,), {"__init__": __init__, "__module__": __name__})


def replace_attention(model: nn.Module, map: str = "softmax", **options: Any) -> list[str]:
    r"""Put a map into every attention layer of a model that exists, windows with position bias included.

    $$w_i = \operatorname{map}\!\left(\frac{q_i \cdot k_j}{\sqrt{d}} + b_{ij}\right)_j$$

    with $q_i, k_j$ a layer's query and key, $d$ their features and $b$ what the layer adds: Swin's bias by relative
    position, and a mask of shifted windows, whose -100 counts as a low score and not as a hidden key. The layers stay
    where and what they are, parameters and names too; their class becomes a subclass that goes by the same name.

    Args:
        model: any model of timm. Its layers with timm's switch `fused_attn` are the ones.
        map: a name from `list_maps`.
        **options: the map's own options.

    Returns:
        The names of the layers.

    Raises:
        TypeError: if the map has no such option.
        ValueError: if the map is unknown, or the model has no such layer; when the model runs, if a layer never calls
            torch's attention.

    Example:
        >>> import timm, manymax as mm
        >>> model = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=24, num_heads=(2, 4))
        >>> mm.integrations.timm.replace_attention(model, "relu")
        ['layers.0.blocks.0.attn', 'layers.1.blocks.0.attn']
    """
    create_map(map, **options)
    found = {name: module for name, module in model.named_modules() if hasattr(module, "fused_attn")}
    if not found:
        raise ValueError(f"model: expected attention layers of timm's, with `fused_attn`, got {type(model).__name__}")
    for module in found.values():
        if not isinstance(module, _Routed):
            kind: Any = type(module)
            module.__class__ = _kind(kind)
        _choose(module, map, options)
    return list(found)


class _Routed:
    """A layer whose call of torch's attention is routed to manymax."""

    routed: str | nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with patch_sdpa(self.routed) as patched:  # type: ignore[arg-type]
            out = super().forward(*args, **kwargs)  # type: ignore[misc]
        if not patched.calls:
            raise ValueError(f"model: {type(self).__name__} does not call torch's attention, whose place a map takes")
        return out


@functools.cache
def _kind(base: type) -> type:
    """Return a layer's class, routed."""
    return type(base.__name__, (_Routed, base), {"__module__": base.__module__, "__qualname__": base.__qualname__})


def _choose(layer: Any, map: str, options: dict[str, Any]) -> None:
    """Give a layer its map, a copy of every learnt option, and the branch of timm's that calls torch's attention."""
    own = {key: nn.Parameter(x.detach().clone()) if isinstance(x, nn.Parameter) else x for key, x in options.items()}
    if own:
        layer.map = create_map(map, **own)
    layer.routed = layer.map if own else map
    layer.fused_attn = True
