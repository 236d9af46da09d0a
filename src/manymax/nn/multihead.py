"""torch's multi-head attention as a module, with any map."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from manymax.attention.dense.call import make_rule
from manymax.integrations.multihead import multi_head_attention_forward
from manymax.maps.module import Map


class MultiheadAttention(nn.MultiheadAttention):
    r"""Attend with several heads and any map: `torch.nn.MultiheadAttention` with one more option.

    $$\mathrm{out} = W^O [\mathrm{head}_1; \dots; \mathrm{head}_h], \qquad
    \mathrm{head}_i = \operatorname{map}\!\left(\frac{Q W_i^Q (K W_i^K)^\top}{\sqrt{d}}\right) V W_i^V$$

    with $Q, K, V$ the queries, keys and values, $W$ the projections, $h$ the number of heads and $d$ the features of
    one. Constructor, state dict, `forward` and what it returns are torch's, which this is a subclass of. Three things
    differ. The shortcuts of `torch.nn.TransformerEncoder` for evaluation, which know softmax alone, are not taken. A
    query that sees no key has zero output where torch gives NaN. The weights are those before dropout.

    Args:
        embed_dim: features of a token; a multiple of `num_heads`.
        num_heads: h.
        dropout: probability of dropping a weight, in training mode.
        bias: whether projections have a bias.
        add_bias_kv: whether a learnt key and value is added to each sequence.
        add_zero_attn: whether a key and value of zeros is added.
        kdim: features of keys; None is `embed_dim`.
        vdim: features of values; None is `embed_dim`.
        batch_first: whether tensors are (batch, tokens, features) rather than (tokens, batch, features).
        device: where the parameters lie.
        dtype: their dtype.
        map: a name from `list_maps`, or a module from `create_map`, whose parameters are learnt.

    Raises:
        ValueError: if the map is unknown, or a size is out of range.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.nn.MultiheadAttention(32, 4, batch_first=True, map="sparsemax")
        >>> x = torch.randn(2, 10, 32)
        >>> out, weights = attend(x, x, x)
        >>> out.shape, weights.shape
        (torch.Size([2, 10, 32]), torch.Size([2, 10, 10]))

    Source:
        Vaswani et al., 2017, Attention Is All You Need, arXiv:1706.03762.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        map: str | Map = "softmax",
    ) -> None:
        make_rule(map)
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        self.map = map

    def _reset_parameters(self) -> None:
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = False  # where it is True, TransformerEncoderLayer goes around `forward`

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output, and the weights if asked for.

        Args:
            query: (Nq, B, E), with `batch_first` (B, Nq, E); or (Nq, E).
            key: (Nk, B, kdim), likewise.
            value: (Nk, B, vdim), likewise.
            key_padding_mask: (B, Nk) or (Nk,); bool, True = nobody may look, or added to the scores.
            need_weights: whether to return the weights. Without them no matrix of all pairs is held.
            attn_mask: (Nq, Nk) or (B * heads, Nq, Nk); bool, True = may not look, or added to the scores.
            average_attn_weights: whether the weights are (B, Nq, Nk) rather than (B, heads, Nq, Nk).
            is_causal: that `attn_mask` is the causal mask; it is then not read.
        """
        swap = self.batch_first and query.dim() == 3
        if swap:
            alike = query is key and key is value
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
            key, value = (query, query) if alike else (key, value)
        out, weights = multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=self.in_proj_weight is None,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            map=self.map,
        )
        return out.transpose(0, 1) if swap else out, weights

    def extra_repr(self) -> str:
        """Show the map."""
        return f"map={self.map!r}" if isinstance(self.map, str) else ""
