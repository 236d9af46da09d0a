"""The output layer and its loss in one, without ever holding a score for each token and class."""

from __future__ import annotations

import torch
from torch import Tensor

from manymax._autocast import multiplied
from manymax.heads.chunk import Reduction, Settings, Tensors, check_classes, reduce, wide
from manymax.heads.linear_loss import per_token, reduced


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    token_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    lse_penalty: float = 0.0,
    return_lse: bool = False,
    filter_eps: float = 0.0,
    chunk_size: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Return the cross-entropy of a linear map of the input, computed by chunks of tokens.

    $$z = W h + b, \quad z \leftarrow s \tanh(z / s), \quad
    L = \sum_c w_c \, p_c (\mathrm{lse} - z_c) + \lambda\, \mathrm{lse}^2, \quad
    \mathrm{lse} = \log \sum_c e^{z_c}, \quad p = (1 - \epsilon) y + \epsilon / C$$

    where $h$ is a token's input, $W$ and $b$ are the linear weight and bias, $z$ one score for each of C classes, $s$
    the softcap (left out if None), $y$ the target, 1 at one class or a distribution over all, $\epsilon$ the label
    smoothing, $w$ the classes' weights and $\lambda$ the penalty of large scores. Memory beside inputs and gradients is
    that of a chunk's scores, whatever the options; nothing falls back. A backward pass through "mean" or "sum" takes
    the gradients that the forward pass has found with the scores at hand; "none" and `return_lse` compute them again.

    Args:
        input: h, (..., d).
        linear_weight: W, (C, d).
        target: int64 (...), each in [0, C) or `ignore_index`; or floating (..., C), probabilities, whose gradient is
            computed too if it is asked for.
        linear_bias: b, (C,).
        weight: w, (C,); None is 1. It has no gradient.
        token_weight: a factor of each token's loss, (...); None is 1. It has no gradient.
        reduction: "mean" divides the sum by the weights of the targets that count times their tokens', or with
            probabilities by the tokens' weights; without any such target it is 0, where torch gives NaN. "sum", or
            "none" for the losses (...).
        ignore_index: a target that takes no part.
        label_smoothing: epsilon in [0, 1].
        softcap: s, the bound of the scores; None is none.
        lse_penalty: lambda, at least 0.
        return_lse: whether to return lse too, (...) in float32, differentiable.
        filter_eps: permission to leave out gradients of scores, each as a share of its token's, below this, in [0, 1).
            The native kernel then skips blocks of 96 classes in which all are: what is left of a trained model's
            vocabulary is little. 0 leaves out nothing; 2^-12 is what bfloat16 would round away in a sum.
        chunk_size: tokens whose scores exist at once; None takes as many as 16 MiB of scores allow, in native kernels
            18 MB, 36 for bfloat16, or a sixteenth of the rows' size.

    Returns:
        The loss, in float32 at least, or a tuple (loss, lse).

    Raises:
        ValueError: if a shape, a dtype or an option does not fit.

    Example:
        >>> import torch, manymax as mm
        >>> hidden, weight = torch.zeros(6, 8, requires_grad=True), torch.zeros(50, 8)
        >>> loss = mm.linear_cross_entropy(hidden, weight, torch.tensor([3, 1, -100, 2, 2, 0]))
        >>> round(loss.item(), 4)  # log 50
        3.912

    Source:
        By chunks: Hsu et al., 2024, Liger Kernel, arXiv:2410.10989, and Wijmans et al., 2024, Cut Your Losses in
        Large-Vocabulary Language Models, arXiv:2411.09009; the penalty: Chowdhery et al., 2022, PaLM, arXiv:2204.02311.
    """
    settings = Settings(ignore_index, label_smoothing, softcap, lse_penalty, filter_eps, chunk_size)
    settings.check(reduction)
    input, linear_weight = multiplied(input, linear_weight)
    _check(input, linear_weight, target, linear_bias, weight, token_weight)
    if not target.is_floating_point() and target.device.type == "cpu":  # elsewhere torch's own gather says so
        check_classes(target, len(linear_weight), ignore_index)
    tokens, flat = input.shape[:-1], input.reshape(-1, input.shape[-1])
    wanted = target.reshape(-1, target.shape[-1]) if target.is_floating_point() else target.reshape(-1)
    shares = flat.new_ones(len(flat), dtype=wide(flat.dtype)) if token_weight is None else token_weight.reshape(-1)
    # Where lse is not asked for, ignored tokens need no scores, and may hold anything.
    kept = None if return_lse or target.is_floating_point() else wanted != ignore_index
    if kept is not None and torch.compiler.is_compiling():  # a graph's shapes know no values
        flat, kept = flat.masked_fill(~kept[:, None], 0), None
    elif kept is not None and not bool(kept.all()):
        flat, wanted, shares = flat[kept], wanted[kept], shares[kept]
    tensors = Tensors(flat, linear_weight, linear_bias, wanted, weight, shares)
    if reduction != "none" and not return_lse:
        return reduced(tensors, settings, reduction)
    losses, lse = per_token(tensors, settings)
    if kept is not None:
        losses = reduce(losses, kept, "none")
    loss = losses.view(tokens) if reduction == "none" else losses.sum() / settings.divisor(reduction, tensors)
    return (loss, lse.view(tokens)) if return_lse else loss


def _check(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    token_weight: Tensor | None,
) -> None:
    if linear_weight.dim() != 2 or input.dim() < 1 or input.shape[-1] != linear_weight.shape[1]:
        raise ValueError(
            f"linear_weight: expected (classes, {input.shape[-1] if input.dim() else 'd'}), "
            f"got {tuple(linear_weight.shape)}"
        )
    if input.dtype != linear_weight.dtype or not input.is_floating_point():
        raise ValueError(f"linear_weight: expected {input.dtype}, as the input, got {linear_weight.dtype}")
    classes, tokens = len(linear_weight), input.shape[:-1]
    expected = {
        "target": (target, (*tokens, classes) if target.is_floating_point() else tuple(tokens)),
        "linear_bias": (linear_bias, (classes,)),
        "weight": (weight, (classes,)),
        "token_weight": (token_weight, tuple(tokens)),
    }
    for name, (x, shape) in expected.items():
        if x is not None and tuple(x.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
    if not target.is_floating_point() and target.dtype != torch.int64:
        raise ValueError(f"target: expected int64 classes or floating probabilities, got {target.dtype}")
