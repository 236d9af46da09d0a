"""How many heads put much of their weight on one token: the metric of attention sinks, from full matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_sink(weights: Tensor, *, epsilon: float = 0.3, key: int = 0) -> float:
    r"""Return the share of samples, layers and heads whose mean weight on one key is above a threshold.

    $$\mathrm{Sink}_k^\varepsilon = \frac{1}{L H} \sum_{l=1}^{L} \sum_{h=1}^{H}
    \mathbf{1}\left[\alpha_k^{l,h} > \varepsilon\right], \qquad
    \alpha_k^{l,h} = \frac{1}{T - k + 1} \sum_{i=k}^{T} A^{l,h}_{i,k}$$

    with $A^{l,h}$ the weights of head $h$ in layer $l$, $T$ the number of tokens, $k$ the key, counted from 1, and
    $\varepsilon$ the threshold. The sum runs over the queries that see key $k$ in a causal model.

    Args:
        weights: (..., T, T), the last dims being queries and keys; all others, such as samples, layers and heads, are
            averaged over.
        epsilon: the threshold, in [0, 1].
        key: index of the key, from 0, so that it is the formula's $k - 1$.

    Returns:
        A share in [0, 1]; the authors' code gives it times 100, and sums all rows whatever the key, which for causal
        weights is the same.

    Raises:
        ValueError: if the weights are not square, epsilon is out of range or there is no such key.

    Example:
        >>> import torch, manymax as mm
        >>> weights = torch.tensor([[1.0, 0.0], [0.9, 0.1]])
        >>> mm.diagnose.attention_sink(weights), mm.diagnose.attention_sink(weights, key=1)
        (1.0, 0.0)

    Source:
        Gu et al., 2024, When Attention Sink Emerges in Language Models: An Empirical View, arXiv:2410.10781.
    """
    if weights.dim() < 2 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(f"weights: expected (..., tokens, tokens), got {tuple(weights.shape)}")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: expected a number in [0, 1], got {epsilon}")
    if not 0 <= key < weights.shape[-1]:
        raise ValueError(f"key: expected an index from 0 to {weights.shape[-1] - 1}, got {key}")
    alpha = weights[..., key:, key].to(torch.promote_types(weights.dtype, torch.float32)).mean(-1)
    return float((alpha > epsilon).double().mean())
