"""Calls of the linear recurrence, and errors beside the same in float64."""

import dataclasses

import oracle
import pytest
import torch

from manymax.kernels import linear
from manymax.kernels.native import native, status

needs_kernels = pytest.mark.skipif(native() is None, reason=status())
DECAYS = (None, "head", "token", "channel")
NAMES = ("query", "key", "value", "log_decay", "beta", "initial_state")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes and options of a call; `strength` is the mean of the decay's logarithms."""

    decay: str | None = None
    delta: bool = False
    state: bool = False
    batch: int = 1
    heads: int = 2
    key_heads: int = 2
    tokens: int = 70
    dim: int = 16
    value_dim: int = 16
    strength: float = 0.5

    def __str__(self):
        names = [self.decay or "none", *(["delta"] if self.delta else []), *(["state"] if self.state else [])]
        return f"{'-'.join(names)}-{self.batch}x{self.heads}/{self.key_heads}x{self.tokens}x{self.dim}x{self.value_dim}"


KINDS = [
    Case(decay, delta, state=delta or decay == "channel")
    for decay in DECAYS
    for delta in (False, True)
    if not (delta and decay == "channel")
]


def inputs(case, dtype=torch.float32):
    """Return the tensors of a call by name, the same always; None where the case has none."""
    generator = torch.Generator().manual_seed(5)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    rows = (case.batch, case.heads, case.tokens)
    keys = (case.batch, case.key_heads, case.tokens)
    query, key, value = randn(*rows, case.dim), randn(*keys, case.dim), randn(*keys, case.value_dim)
    if case.delta:
        key = torch.nn.functional.normalize(key, dim=-1)
    shapes = {"head": (case.heads,), "token": rows, "channel": (*rows, case.dim)}
    log_decay = None if case.decay is None else -2 * case.strength * rand(*shapes[case.decay])
    beta = rand(*rows) if case.delta else None
    state = randn(case.batch, case.heads, case.dim, case.value_dim) if case.state else None
    tokens = [x.to(dtype) for x in (query, key, value)]
    return dict(zip(NAMES, (*tokens, log_decay, beta, state), strict=True))


def run(function, given, dtype=None, *, d_state=True):
    """Return out, the final state and the gradients of everything given, as float64."""
    leaves = {name: x if x is None else x.detach().to(dtype or x.dtype).requires_grad_() for name, x in given.items()}
    out, state = function(**leaves)
    generator = torch.Generator().manual_seed(6)
    ahead = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in (out, state)]
    ahead[0] = ahead[0].to(given["query"].dtype).to(out.dtype)
    count = 2 if d_state else 1
    present = {name: x for name, x in leaves.items() if x is not None}
    grads = torch.autograd.grad((out, state)[:count], list(present.values()), ahead[:count])
    found = {"out": out, "final_state": state, **dict(zip((f"d_{name}" for name in present), grads, strict=True))}
    return {name: x.detach().double() for name, x in found.items()}


def plain(given):
    """Return what plain PyTorch gives in float32, rounded to the dtype of the inputs."""
    found = run(oracle.recurrence, given, torch.float32)
    like = {"out": given["query"], **{f"d_{name}": x for name, x in given.items() if x is not None}}
    return {name: x.to(like[name].dtype).double() if name in like else x for name, x in found.items()}


def assert_accurate(given):
    """Our error is at most twice that of plain PyTorch in the same dtype, both beside float64, as root mean squares.

    Six times where a chunk sums what tokens one by one never see: corrections of the delta rule, which cancel where 48
    keys share 5 dims. And ten for the gradient of log_decay, the only one that sums over pairs of tokens.
    """
    exact = run(oracle.recurrence, given, torch.float64)
    ours, theirs = run(linear.attend, given), plain(given)
    for name, want in exact.items():
        assert ours[name].shape == want.shape
        if not want.numel():
            continue
        half = given["query"].dtype != torch.float32 and name in {"out", "d_query", "d_key", "d_value"}
        rounding = torch.finfo(given["query"].dtype if half else torch.float32).eps
        times = 10 if name == "d_log_decay" else 6 if given["beta"] is not None else 2
        error, limit = ours[name] - want, times * (theirs[name] - want).norm()
        size = max(1.0, want.abs().max())  # inputs are of that size, however they cancel
        found = f"{name}: {error.norm():.1e} beside {limit:.1e}, the largest {error.abs().max() / size:.1e}"
        assert error.norm() <= max(limit, 4 * rounding * max(want.norm(), want.numel() ** 0.5)), found
        assert error.abs().max() <= (1 if half else 30) * rounding * size, found
