"""Local linear attention: a linear fit around each query where softmax attention fits a constant."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from manymax.attention.cache import TokenCache, remember, visible
from manymax.attention.dense.local_linear import local_linear
from manymax.attention.dense.local_linear_tiles import local_linear_tiles
from manymax.attention.dense.visibility import make_band
from manymax.attention.linear.parts import per_head
from manymax.attention.mechanism import CausalMechanism, Choices
from manymax.attention.options import check_positive, check_sizes, check_sizes_or_none
from manymax.maps.rule import check_option

WHOLE = 512  # keys whose weights may exist at once beside a block of queries: with 256, tiles take up to twice as long
COLUMNS = 256  # keys of a tile where they are more


def local_fit(
    query: Tensor,
    cache: TokenCache,
    *,
    is_causal: bool,
    scale: Tensor | float,
    ridge: Tensor,
    solver: str = "cg",
    iterations: int | None = None,
    block_size: int = 128,
    key_block_size: int | None = None,
) -> Tensor:
    """Return the fits at the queries to the cache's tokens, by tiles where there are many.

    Args:
        query: (B, H, Nq, D), floating of at least 32 bits; the last one stands at the last key.
        cache: keys and values of as many heads, in the same dtype.
        is_causal: whether a query sees no later keys.
        scale: factor of the scores, a number or (H, 1, 1).
        ridge: (H, 1, 1), positive.
        solver: "cg" or "exact".
        iterations: of "cg" at most; None is four times D.
        block_size: queries whose weights exist at once.
        key_block_size: keys whose weights exist at once; None is all up to 512, and tiles of 256 beyond. Of "cg".
    """
    queries, keys = query.shape[2], cache.key.shape[2]
    if solver != "cg" or (key_block_size is None and keys <= WHOLE):
        seen = visible(cache, queries, is_causal=is_causal)
        return local_linear(
            query,
            cache.key,
            cache.value,
            seen,
            scale=scale,
            ridge=ridge,
            solver=solver,
            iterations=iterations,
            block_size=block_size,
        )
    tiled: Tensor = local_linear_tiles(
        query,
        cache.key,
        cache.value,
        cache.keep,
        make_band(queries, keys, (None, None), is_causal=is_causal, align_last=True),
        scale=scale,
        ridge=ridge,
        iterations=iterations,
        block_size=block_size,
        key_block_size=key_block_size or COLUMNS,
    )
    return tiled


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

    The systems are solved by conjugate gradients with sums over keys alone, so that no matrix of a query is ever
    formed, and gradients solve the same systems once more. An iteration takes $2 D$ multiplications for each pair of
    query and key. For up to 512 keys a block of queries keeps its weights on all of them through the iterations,
    block_size $\times$ N numbers for each head, and gradients form them anew. Beyond, or where key_block_size is given,
    weights exist for one tile at a time, block_size $\times$ key_block_size numbers, and are computed again in each
    iteration, which is $D$ multiplications and an exponential a pair more; a causal call skips the tiles that nothing
    sees. "exact" holds $(N + D) D$ numbers for each query of a block, and is there to compare with.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of query heads.
        scale: c; None is 1 / sqrt(head_dim).
        ridge: $\lambda_h$ at the start, positive; its logarithm is learnt.
        solver: "cg", or "exact", which forms and solves each query's matrix.
        iterations: of conjugate gradients at most; None is four times head_dim, and they stop when they have converged.
        block_size: queries whose weights exist at once. It changes no result.
        key_block_size: keys whose weights exist at once; None is all up to 512, and 256 beyond. It changes no result;
            of "cg" alone.

    Raises:
        ValueError: if the solver is unknown, a number is out of range, or key_block_size is given to "exact".

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
        key_block_size: int | None = None,
    ) -> None:
        super().__init__(head_dim=head_dim, num_heads=num_heads)
        check_positive(ridge=ridge)
        check_sizes(block_size=block_size)
        check_sizes_or_none(iterations=iterations, key_block_size=key_block_size)
        if scale is not None:
            check_option("scale", scale, lambda x: abs(x) < math.inf, "a finite number")
        if key_block_size is not None and solver == "exact":
            raise ValueError("key_block_size: expected None beside solver='exact', which forms matrices for all keys")
        self.scale = head_dim**-0.5 if scale is None else scale
        self.log_ridge = nn.Parameter(torch.full((num_heads, 1, 1), float(ridge)).log())
        self.solver, self.iterations = solver, iterations
        self.block_size, self.key_block_size = block_size, key_block_size
        empty = torch.zeros(1, 1, 0, 1)
        local_linear(empty, empty, empty, empty.bool(), scale=1.0, ridge=empty, solver=solver)  # refuses an unknown one

    def fit(self, query: Tensor, cache: TokenCache, *, is_causal: bool) -> Tensor:
        """Return the outputs."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        key, value = (per_head(x, self.num_heads).to(dtype) for x in (cache.key, cache.value))
        out = local_fit(
            query.to(dtype),
            TokenCache(key, value, cache.keep),
            is_causal=is_causal,
            scale=self.scale,
            ridge=self.log_ridge.to(dtype).exp(),
            solver=self.solver,
            iterations=self.iterations,
            block_size=self.block_size,
            key_block_size=self.key_block_size,
        )
        return out.to(query.dtype)

    def scan(
        self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, state: TokenCache | None
    ) -> tuple[Tensor, TokenCache]:
        """Return the outputs and all tokens so far."""
        cache = remember(state, key, value, keep)
        return self.fit(query, cache, is_causal=True), cache

    def mix(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Return the outputs of queries that see all keys."""
        return self.fit(query, remember(None, key, value, keep), is_causal=False)
