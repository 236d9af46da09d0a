"""What mechanisms of attention cost, in time and in operations, and how that grows with the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from manymax.attention.module import create_attention
from manymax.claims.claim import Numbers
from manymax.claims.experiments.timing import best_times


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of log cost over log size, by least squares."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (sizes, costs))
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


@torch.no_grad()
def time_slope(
    work: Callable[[int], Callable[[], object]], lengths: Sequence[int], rounds: int, seconds: float
) -> float:
    """Return the slope of log time over log length, of one thread, lengths in turn.

    Args:
        work: makes, for a number of tokens, what is timed.
        lengths: numbers of tokens.
        rounds: of `best_times`.
        seconds: of `best_times`.
    """
    with one_thread():
        return slope(lengths, best_times([work(n) for n in lengths], rounds, seconds))


def mechanism_slope(name: str, seed: int, numbers: Numbers) -> float:
    """Return `time_slope` of a mechanism with one head; numbers are "width", "lengths", "rounds" and "seconds"."""
    width = numbers["width"]
    work = attending(create_attention(name, head_dim=width, num_heads=1), 1, width, seed)
    return time_slope(work, numbers["lengths"], numbers["rounds"], numbers["seconds"])


def attending(
    attend: Callable[..., Tensor], heads: int, width: int, seed: int
) -> Callable[[int], Callable[[], Tensor]]:
    """Return what makes a forward pass over so many random tokens, for `time_slope` and `flops`."""

    def work(tokens: int) -> Callable[[], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        query, key, value = torch.randn(3, 1, heads, tokens, width, generator=generator).unbind()
        return lambda: attend(query, key, value)

    return work


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, since the time that a thread waits for another would be measured too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def flops(work: Callable[[], object]) -> float:
    """Return the floating point operations of a work's matrix products and convolutions, as PyTorch counts them."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops())
