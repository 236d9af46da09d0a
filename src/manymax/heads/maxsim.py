"""Late interaction: the sum over a query's tokens of the largest product with a document's."""

from __future__ import annotations

import torch
from torch import Tensor


def maxsim(query: Tensor, documents: Tensor, *, mask: Tensor | None = None, query_mask: Tensor | None = None) -> Tensor:
    r"""Sum over a query's tokens the largest product with a document's tokens.

    $$s(q, d) = \sum_i \max_j \langle q_i, d_j \rangle$$

    Args:
        query: $q$, (n, tokens, d).
        documents: $d$, (m, tokens, d).
        mask: bool, (m, tokens), True = keep; a document without a token has a score of -inf.
        query_mask: bool, (n, tokens), True = keep.

    Returns:
        Scores (n, m).

    Example:
        >>> import torch
        >>> from manymax.heads.maxsim import maxsim
        >>> maxsim(torch.eye(2)[None], torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[0.0, 1.0], [0.0, 0.0]]]))
        tensor([[1.5000, 1.0000]])

    Source:
        Khattab & Zaharia, 2020, ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction
        over BERT, arXiv:2004.12832.
    """
    return largest(torch.einsum("nqd,mtd->nqmt", query, documents), mask, query_mask)


def largest(products: Tensor, mask: Tensor | None, query_mask: Tensor | None) -> Tensor:
    """Return scores (n, m) for products (n, query tokens, m, tokens)."""
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf)
    best = products.amax(-1)
    return (best if query_mask is None else best.masked_fill(~query_mask[..., None], 0)).sum(1)


@torch.no_grad()
def gradient_share(query: Tensor, documents: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the share of each document's tokens that the maximum lets a gradient through to, (n, m).

    Args:
        query: (n, tokens, d).
        documents: (m, tokens, d).
        mask: bool, (m, tokens), True = keep.
    """
    products = torch.einsum("nqd,mtd->nqmt", query, documents)
    if mask is not None:
        products = products.masked_fill(~mask, -torch.inf)
    chosen = torch.zeros_like(products, dtype=torch.bool).scatter_(-1, products.argmax(-1, keepdim=True), 1)
    reached = chosen.any(1).sum(-1)
    tokens = documents.shape[1] if mask is None else mask.sum(-1)
    return reached / tokens
