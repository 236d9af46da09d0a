"""What a matrix of attention weights is like: which queries it tells apart, how near it looks, how even it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from manymax.attention.linear.grid import sides
from manymax.attention.linear.parts import widened
from manymax.attention.mechanism import Grid


@torch.no_grad()
def attention_weights(attend: Callable[..., Tensor], query: Tensor, key: Tensor, **options: Any) -> Tensor:
    r"""Return the weights of any mechanism that is linear in its values, which need not form them itself.

    $$w_{ij} = o_i(q, k, e_j)$$

    with $o_i$ the mechanism's output of query i if the values are unit vectors $e_j$, one for each key. The mechanism
    gets as many columns of values at a time as keys have, and once more as many random columns, which shows that these
    are weights at all.

    Args:
        attend: the mechanism, a function of query, key and value.
        query: (B, Hq, Nq, D).
        key: (B, Hk, Nk, D).
        **options: go to the mechanism, such as `is_causal` and `grid`.

    Returns:
        Weights (B, Hq, Nq, Nk), without gradients.

    Raises:
        ValueError: if the outputs are not those weights times the values, as after a norm, a gate or a convolution of
            values, or with dropout.

    Example:
        >>> import torch, manymax as mm
        >>> attend = mm.create_attention("linear", head_dim=8, num_heads=1)
        >>> query, key = torch.randn(2, 1, 1, 5, 8).unbind()
        >>> mm.attention_weights(attend, query, key).sum(-1).allclose(torch.ones(5))
        True
    """
    tokens, width = key.shape[2:]

    def outputs(values: Tensor) -> Tensor:
        """Return the outputs for values (Nk, columns), as many columns at a time as keys have: learnt parts may ask."""
        blocks = F.pad(values, (0, -tokens % width)).reshape(tokens, -1, width).unbind(1)
        outs = [attend(query, key, each.expand(*key.shape[:3], -1), **options) for each in blocks]
        return torch.cat(outs, -1)[..., :tokens]

    random = torch.randn(tokens, tokens, generator=torch.Generator().manual_seed(0)).to(key)
    weights = outputs(torch.eye(tokens).to(key))
    allowed = torch.finfo(key.dtype).eps ** 0.5 * (weights.abs() @ random.abs())
    if bool(((outputs(random) - weights @ random).abs() > allowed).any()):
        raise ValueError("attend: expected outputs that are sums of the values times weights, got others")
    return weights


def injectivity_gap(weights: Tensor, other: Tensor | None = None) -> Tensor:
    r"""Return how far weights tell each query from another: 0 where two queries look at everything alike.

    $$g_i = \max_j |w_{ij} - w'_{ij}|, \qquad \text{or without others} \qquad
    g_i = \min_{l \ne i} \max_j |w_{ij} - w_{lj}|$$

    with $w_{ij}$ the weight of key j for query i, and $w'$ the weights of other queries, one in the place of each, such
    as the same queries doubled; without them the other queries are those of the same matrix. A mechanism is injective
    if its weights are different for any two queries: softmax is, up to keys that span less than the queries do, and
    linear attention, for which a multiple of a query is the same query, is not.

    Args:
        weights: (..., Nq, Nk), of any mechanism.
        other: weights of other queries, of the same shape; None is the nearest of the same matrix.

    Returns:
        The gap of each query, (..., Nq); infinite for a query that is alone.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch, manymax as mm
        >>> query, key = torch.randn(2, 1, 1, 5, 8).unbind()
        >>> linear = mm.create_attention("linear-relu", head_dim=8, num_heads=1)
        >>> one, two = (mm.attention_weights(linear, scale * query, key) for scale in (1, 2))
        >>> bool((mm.injectivity_gap(one, two) < 1e-6).all())
        True

    Source:
        Han et al., 2024, Bridging the Divide: Reconsidering Softmax and Linear Attention, arXiv:2412.06590.
    """
    _matrix(weights)
    if other is not None:
        if other.shape != weights.shape:
            raise ValueError(f"other: expected the shape of weights {tuple(weights.shape)}, got {tuple(other.shape)}")
        return (weights - other).abs().amax(-1)
    gaps = []
    for index in range(weights.shape[-2]):
        gap = (weights - weights[..., index : index + 1, :]).abs().amax(-1)
        gap[..., index] = torch.inf
        gaps.append(gap.amin(-1))
    return torch.stack(gaps, -1) if gaps else weights.sum(-1)


def local_mass(weights: Tensor, window: int, grid: Grid | None = None) -> Tensor:
    r"""Return the share of each query's weight that lies in a window around it.

    $$m_i = \frac{\sum_{j \in \mathcal{W}(i)} |w_{ij}|}{\sum_j |w_{ij}|}$$

    with $w_{ij}$ the weight of key j for query i, which may be negative, and $\mathcal{W}(i)$ the square of side
    `window` around the place of i, as far as it is on the grid. Even weights over n keys have at most window² / n.

    Args:
        weights: (..., N, N), of any mechanism; token i is the place (i // width, i % width).
        window: side of the square, odd: 3 is a token and the 8 around it, in a sequence the one before and the one
            after.
        grid: (height, width); None is a sequence.

    Returns:
        The share of each query, (..., N), NaN for one without any weight.

    Raises:
        ValueError: if the window is even or the grid does not fit the tokens.

    Example:
        >>> import torch, manymax as mm
        >>> mm.local_mass(torch.full((12, 12), 1 / 12), 3, (3, 4))[:6]
        tensor([0.3333, 0.5000, 0.5000, 0.3333, 0.5000, 0.7500])

    Source:
        Han et al., 2024, Bridging the Divide: Reconsidering Softmax and Linear Attention, arXiv:2412.06590.
    """
    _matrix(weights)
    tokens = weights.shape[-1]
    height, width = sides(grid, tokens)
    if weights.shape[-2] != tokens or height < 0 or width < 0 or height * width != tokens:
        raise ValueError(f"grid: expected (height, width) of weights {tuple(weights.shape)}, got {grid}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: expected an odd number of at least 1, got {window}")
    place = torch.arange(tokens, device=weights.device)
    near = torch.ones(tokens, tokens, dtype=torch.bool, device=weights.device)
    for along in (place // max(width, 1), place % max(width, 1)):
        near &= (along[:, None] - along).abs() <= window // 2
    mass = widened(weights).abs()
    return torch.where(near, mass, 0).sum(-1) / mass.sum(-1)


def row_entropy(weights: Tensor) -> Tensor:
    r"""Return the entropy of each query's weights: 0 if one key has all the weight, log n if n keys have as much each.

    $$h_i = -\sum_j p_{ij} \log p_{ij}, \qquad p_{ij} = \frac{|w_{ij}|}{\sum_l |w_{il}|}$$

    with $w_{ij}$ the weight of key j for query i, which may be negative and need not sum to 1.

    Args:
        weights: (..., Nq, Nk), of any mechanism.

    Returns:
        Entropies in nats, (..., Nq), NaN for a query without any weight.

    Example:
        >>> import torch, manymax as mm
        >>> mm.row_entropy(torch.tensor([[1.0, 0.0], [2.0, 2.0]]))
        tensor([0.0000, 0.6931])

    Source:
        As a measure of concentration: Zheng, 2025, The Linear Attention Resurrection in Vision Transformer,
        arXiv:2501.16182.
    """
    mass = widened(_matrix(weights)).abs()
    entropy: Tensor = torch.special.entr(mass / mass.sum(-1, keepdim=True)).sum(-1)
    return entropy


def _matrix(weights: Tensor) -> Tensor:
    """Refuse what has no rows; return the rest."""
    if weights.dim() < 2:
        raise ValueError(f"weights: expected (..., queries, keys), got {tuple(weights.shape)}")
    return weights
