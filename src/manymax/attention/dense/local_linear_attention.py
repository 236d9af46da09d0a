"""Local linear attention: a linear fit around each query where softmax attention fits a constant."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manymax.attention.cache import TokenCache, remember, visible
from manymax.attention.dense.local_linear import local_linear
from manymax.attention.linear.parts import per_head
from manymax.attention.mechanism import CausalMechanism, Choices


class LocalLinearAttention(CausalMechanism):
    r"""Attend by the value at the query of a linear fit to the values, weighted as softmax weighs.

    $$o_i = \frac{\sum_j w_{ij} (1 - z_{ij} \cdot \rho_i)\, v_j}{\sum_j w_{ij} - \mu_i \cdot \rho_i}, \qquad
    \rho_i = \Bigl(\sum_j w_{ij} z_{ij} z_{ij}^\top + \lambda_h I\Bigr)^{-1} \mu_i, \qquad
    \mu_i = \sum_j w_{ij} z_{ij}$$

    with $z_{ij} = k_j - q_i$ and $w_{ij} = \exp(c\, q_i \cdot k_j)$, where $q_i$, $k_j$ and $v_j$ are queries, keys and
    values, c is the scale, one over the bandwidth, and $\lambda_h > 0$ a head's learnt ridge, which stands beside
    weights that are not normalised. A large ridge gives softmax attention, a scale of 0 ridge regression on all keys. A
    ridge counts as at least 100 roundings of $\sum_j w_{ij} \lVert z_{ij} \rVert^2$: beside large weights, from scores
    of about 10 on in float32, nothing else holds the fit.

    The systems are solved by conjugate gradients with sums over keys alone, block by block of queries, so that no
    matrix of a query is ever formed; gradients solve the same systems once more.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        scale: c; None is 1 / sqrt(head_dim).
        ridge: $\lambda_h$ at the start, positive; its logarithm is learnt.
        solver: "cg", or "exact", which forms and solves each query's matrix.
        iterations: of conjugate gradients at most; None is four times head_dim, and they stop when they have converged.
        block_size: queries whose weights exist at once. It changes no result.

    Raises:
        ValueError: if the solver is unknown or a number is out of range.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("local-linear-attention", head_dim=16, num_heads=2, ridge=0.1)
        >>> query, key, value = torch.randn(3, 1, 2, 10, 16).unbind()
        >>> attend(query, key, value, is_causal=True).shape
        torch.Size([1, 2, 10, 16])

    Source:
        Zuo et al., 2025, Local Linear Attention: An Optimal Interpolation of Linear and Softmax Attention For Test-Time
        Regression, arXiv:2510.01450. The official repository holds no code; how many iterations it takes and how it
        parametrises the ridge could not be looked up, and both are this library's choice.
    """

    family = "dense"
    choices = Choices(
        "exp(q · k) on all pairs", "none", "keeps all tokens", "local linear fit", "N (Dk + Dv)", "solver"
    )
    rotary = True

    def __init__(
        self,
        *,
        head_dim: int,
        num_heads: int,
        scale: float | None = None,
        ridge: float = 1.0,
        solver: str = "cg",
        iterations: int | None = None,
        block_size: int = 128,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        if ridge <= 0:
            raise ValueError(f"ridge: expected a positive number, got {ridge}")
        if block_size < 1 or (iterations is not None and iterations < 1):
            raise ValueError(f"iterations, block_size: expected at least 1, got {iterations} and {block_size}")
        self.scale = head_dim**-0.5 if scale is None else scale
        self.log_ridge = nn.Parameter(torch.full((num_heads, 1, 1), float(ridge)).log())
        self.solver, self.iterations, self.block_size = solver, iterations, block_size
        empty = torch.zeros(1, 1, 0, 1)
        local_linear(empty, empty, empty, empty.bool(), scale=1.0, ridge=empty, solver=solver)  # refuses an unknown one

    def fit(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """Return the outputs; seen (B, 1, Nq or 1, Nk) says which keys take part."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        key, value = per_head(key, self.num_heads).to(dtype), per_head(value, self.num_heads).to(dtype)
        options = {"solver": self.solver, "iterations": self.iterations, "block_size": self.block_size}
        ridge = self.log_ridge.to(dtype).exp()
        out = local_linear(query.to(dtype), key, value, seen, scale=self.scale, ridge=ridge, **options)  # type: ignore[arg-type]
        return out.to(query.dtype)

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: TokenCache | None
    ) -> tuple[Tensor, TokenCache]:
        """Return the outputs and all tokens so far."""
        cache = remember(state, key, value, keep)
        return self.fit(query, cache.key, cache.value, visible(cache, query.shape[2], is_causal=True)), cache

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        cache = remember(None, key, value, keep)
        return self.fit(query, key, value, visible(cache, query.shape[2], is_causal=False))
