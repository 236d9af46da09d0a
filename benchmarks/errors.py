"""How exact attention is, beside the same formula in plain PyTorch and the same dtype; both against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from manymax.attention.dense.api import attention
from manymax.bench.attention import AttentionProblem
from manymax.kernels.native import native
from manymax.maps.module import create_map

MAPS = (
    "softmax",
    "softmax1",
    "softplus",
    "stablemax",
    "power_softmax",
    "spherical_softmax",
    "taylor_softmax",
    "sigmoid",
    "relu",
    "squared_relu",
    "sparsemax",
    "entmax15",
)
LENGTH = 1024


def _run(function: Callable[..., Tensor], problem: AttentionProblem, dtype: torch.dtype) -> list[Tensor]:
    """Return the output and the gradients for the same inputs, whatever the dtype they are handed over in."""
    leaves = [x.to(dtype).requires_grad_() for x in problem.inputs]
    out = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    ahead = torch.randn(out.shape, generator=generator).to(problem.dtype)
    return [x.detach().double() for x in (out, *torch.autograd.grad(out, leaves, ahead.to(dtype)))]


def _errors(found: list[Tensor], exact: list[Tensor]) -> tuple[float, float]:
    """Return the largest error of the output and of the gradients, each relative to its tensor's largest value."""
    out, *grads = [float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, exact, strict=True)]
    return out, max(grads)


def errors() -> Iterator[dict[str, str | float]]:
    """Yield the errors of each map in each dtype."""
    for name in MAPS:
        weigh = create_map(name)

        def plain(query: Tensor, key: Tensor, value: Tensor, weigh: Callable[..., Tensor] = weigh) -> Tensor:
            return weigh(query @ key.mT * query.shape[-1] ** -0.5) @ value

        def ours(query: Tensor, key: Tensor, value: Tensor, weigh: Callable[..., Tensor] = weigh) -> Tensor:
            return attention(query, key, value, map=weigh, backend="cpu" if native() else "auto")

        for dtype in (torch.float32, torch.bfloat16):
            problem = AttentionProblem(1, 2, LENGTH, 64, dtype, "cpu")
            exact = _run(plain, problem, torch.float64)
            out, grad = _errors(_run(ours, problem, dtype), exact)
            plain_out, plain_grad = _errors(_run(plain, problem, dtype), exact)
            known = {"out": out, "plain_out": plain_out, "grad": grad, "plain_grad": plain_grad}
            yield {"map": name, "dtype": str(dtype).removeprefix("torch."), **known}
