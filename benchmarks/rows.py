"""Row kernels beside PyTorch and beside the machine: python benchmarks/rows.py [rounds].

Every line interleaves its candidates round by round in one process and reports medians; outputs are preallocated on
both sides, or allocated on both. The first line is the control: the same function against itself. "of copy" and "of
read" are fractions of the bandwidth of a copy and of a sum of the same tensor, in the same rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

# ruff: noqa: SLF001 - torch's softmax has an out= form, backwards too, only under private names
import entmax
import torch

from manymax.kernels import ops, rows, status

SHAPES = ((1 << 20, 16), (1 << 17, 128), (16384, 1024), (4096, 4096), (1024, 32768), (64, 1 << 20), (1, 1 << 26))


def interleave(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each candidate's median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for turn in range(rounds):
        names = list(candidates)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def softmax_line(x: torch.Tensor, y: torch.Tensor, rounds: int) -> str:
    times = interleave(
        {
            "copy": lambda: y.copy_(x),
            "torch": lambda: torch.ops.aten._softmax.out(x, -1, False, out=y),
            "ours": lambda: rows.weights("softmax", {}, x, out=y),
            "log": lambda: rows.weights("log_softmax", {}, x, out=y),
        },
        rounds,
    )
    ratio, of_copy = times["torch"] / times["ours"], times["copy"] / times["ours"]
    return (
        f"softmax {ratio:5.2f} x torch, {of_copy:4.0%} of copy; log_softmax {times['copy'] / times['log']:4.0%} of copy"
    )


def logsumexp_line(x: torch.Tensor, rounds: int) -> str:
    out = torch.empty(x.shape[0])
    times = interleave(
        {
            "read": lambda: torch.sum(x),
            "torch": lambda: torch.logsumexp(x, -1),
            "ours": lambda: rows.weights("logsumexp", {}, x, out=out),
        },
        rounds,
    )
    return f"logsumexp {times['torch'] / times['ours']:5.1f} x torch, {times['read'] / times['ours']:4.0%} of read"


def backward_line(x: torch.Tensor, y: torch.Tensor, rounds: int) -> str:
    w, g = torch.softmax(x, -1), torch.randn_like(x)
    out = ops.backward(g, w, "softmax", [1.0], -1, None)
    times = interleave(
        {
            "torch": lambda: torch.ops.aten._softmax_backward_data.out(g, w, -1, torch.float32, grad_input=y),
            "ours": lambda: ops.backward(g, w, "softmax", [1.0], -1, None, y),
        },
        rounds,
    )
    assert torch.allclose(out, y, atol=1e-5)
    return f"softmax backward {times['torch'] / times['ours']:5.2f} x torch"


def threshold_line(n: int, rounds: int) -> str:
    x = torch.randn(1 << 20 >> n.bit_length() - 1, n)
    parts = []
    for name in ("sparsemax", "entmax15"):
        peer = getattr(entmax, name)
        times = interleave(
            {"entmax": lambda peer=peer: peer(x), "ours": lambda name=name: rows.weights(name, {}, x)}, rounds
        )
        parts.append(f"{name} {times['entmax'] / times['ours']:5.1f} x entmax")
    return ", ".join(parts)


def main(rounds: int) -> None:
    torch.manual_seed(0)
    print(f"{status()}; torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    x = torch.randn(4096, 4096)
    y = torch.empty_like(x)
    control = {name: (lambda: y.copy_(x)) for name in ("a", "b")}
    times = interleave(control, rounds)
    print(
        f"control, a copy against itself: {times['a'] / times['b']:.3f}; copy {x.numel() * 8e-9 / times['a']:.0f} GB/s"
    )
    for shape in SHAPES:
        x = torch.randn(shape)
        y = torch.empty_like(x)
        print(
            f"{shape[0]:>8} rows of {shape[1]:>9}: {softmax_line(x, y, rounds)}; {logsumexp_line(x, rounds)}",
            flush=True,
        )
        print(f"{'':31}{backward_line(x, y, rounds)}", flush=True)
    for n in (1024, 8192, 131072):
        print(f"rows of {n}: {threshold_line(n, max(3, rounds // 3))}", flush=True)
    for name in rows.OPTIONS:
        x = torch.randn(16384, 1024)
        y = torch.empty_like(x)
        if name != "logsumexp":
            times = interleave(
                {
                    "copy": lambda x=x, y=y: y.copy_(x),
                    "ours": lambda name=name, x=x, y=y: rows.weights(name, {}, x, out=y),
                },
                rounds,
            )
            print(f"{name:>18}, rows of 1024: {times['copy'] / times['ours']:4.0%} of copy", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
