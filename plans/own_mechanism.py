"""Compare an attention of your own: `manymax compare plans/own_mechanism.py`.

Every job runs this file first, so that what it registers exists there.
"""  # noqa: INP001  (a plan is a file, not a module of a package)

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import manymax as mm
from manymax.attention.registry import ATTENTIONS


class CosineAttention(nn.Module):
    """Softmax over cosines instead of dot products: scores never leave [-sharpness, sharpness]."""

    def __init__(self, *, head_dim: int, num_heads: int, sharpness: float = 10.0) -> None:
        super().__init__()
        del head_dim, num_heads  # a mechanism with parameters of its own would need them
        self.sharpness = sharpness

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Return (batch, heads, tokens, head_dim), as all mechanisms do."""
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        out: Tensor = mm.attention(query, key, value, attn_mask, is_causal=is_causal, scale=self.sharpness)
        return out


ATTENTIONS["cosine"] = CosineAttention

plan = {
    "candidates": ["softmax", "cosine", {"name": "cosine", "sharpness": 20.0}],
    "task": "text",
    "seeds": 3,
    "budget": "2min",
}
