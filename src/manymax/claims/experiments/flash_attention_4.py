"""Polynomial exponentials and conditional rescaling in attention: counts, errors, times (Zadouri et al., 2026)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.recorded import Heads, recorded, trained
from manymax.claims.experiments.studies import attend, on_rows
from manymax.claims.experiments.timing import best_times
from manymax.data.text import Text

# 2^f = c[0] + c[1] f + ... on [0, 1), as the paper gives it and kernels/cpu/attention/flash4.cpp computes it.
COEFFICIENTS = {
    3: (1.0, 0.695146143436431884765625, 0.227564394474029541015625, 0.077119089663028717041015625),
    5: (
        1.0,
        0.693151414394378662109375,
        0.24016360938549041748046875,
        5.5802188813686370849609375e-2,
        9.01452265679836273193359375e-3,
        1.86810153536498546600341796875e-3,
    ),
}
DEGREES = {torch.bfloat16: 3, torch.float32: 5}  # what each dtype needs
SLACK = 8.0  # log2(256): a row is rescaled once its largest score has passed the shift by more


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure the exponential, then attention on trained and on random inputs, then times."""
    progress(0.0, "exponential")
    metrics = exponential_metrics()
    model = trained(seed, numbers, lambda share, doing: progress(0.05 + 0.6 * share, doing))
    progress(0.65, "trained inputs")
    tokens, _ = Text(length=numbers["trained_length"]).batch("validation", 0, numbers["texts"], seed=seed)
    found = {"trained": [compared(heads, causal=True) for heads in recorded(model, tokens)]}
    progress(0.75, "random inputs")
    shape = (3, 1, numbers["heads"], numbers["random_length"], numbers["head_dim"])
    query, key, value = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).unbind()
    found["random"] = [compared((query, key, value), causal=False)]
    for name, cases in found.items():
        rises, rescales = (sum(getattr(each, count) for each in cases) for count in ("rises", "rescales"))
        metrics[f"rescale_ratio_{name}"] = rescales / rises if rises else float("nan")
        metrics[f"rises_per_row_{name}"] = rises / sum(each.rows for each in cases)
    every = [each for cases in found.values() for each in cases]
    metrics["output_error_ratio"] = max(each.error_ratio for each in every)
    metrics["output_error_ratio_float32"] = max(each.error_ratio_float32 for each in every)
    progress(0.85, "times")
    return metrics | time_metrics((query, key, value), numbers)


def exponential_metrics() -> Metrics:
    """Return the relative errors of the polynomials, in float64 and as the kernel computes 2^x on [-126, 8]."""
    f = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:-1]
    x = torch.linspace(-126, 8, 1_000_003)
    metrics: Metrics = {}
    for degree, coefficients in COEFFICIENTS.items():
        polynomial = torch.zeros_like(f)
        for coefficient in reversed(coefficients):
            polynomial = polynomial * f + coefficient
        metrics[f"exp_error_degree_{degree}"] = float((polynomial / f.exp2() - 1).abs().max())
        computed = on_rows("flash4_exp2", x, torch.empty_like(x), degree)
        metrics[f"exp_error_degree_{degree}_float32"] = float((computed / x.double().exp2() - 1).abs().max())
    return metrics


class Comparison(NamedTuple):
    """Attention with the paper's two tricks beside attention without.

    Attributes:
        rows: rows of scores, over both dtypes.
        rises: how often a tile raised a row's largest score, the row's first tile left out: plain rescalings.
        rescales: how often the row was rescaled.
        error_ratio: largest error in bfloat16 over that without the tricks.
        error_ratio_float32: the same in float32.
    """

    rows: int
    rises: int
    rescales: int
    error_ratio: float
    error_ratio_float32: float


def compared(heads: Heads, *, causal: bool) -> Comparison:
    """Compute attention in bfloat16 and float32, all exponentials by polynomials of the degree that the dtype needs."""
    counts, errors = torch.zeros(2, dtype=torch.float64), []
    for dtype, degree in DEGREES.items():
        query, key, value = (x.to(dtype) for x in heads)
        stats = torch.zeros(2, *query.shape[:3])
        tricky = attend("flash4", query, key, value, degree, 1.0, SLACK, causal=causal, stats=stats)
        plain = attend("softmax", query, key, value, causal=causal)
        exact = exact_attention(query, key, value, causal=causal)
        counts += stats.flatten(1).double().sum(-1)
        errors.append(float((tricky - exact).abs().max() / (plain - exact).abs().max()))
    rises, rescales = (int(count) for count in counts)
    return Comparison(len(DEGREES) * query.shape[:3].numel(), rises, rescales, *errors)


def exact_attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """Return softmax attention in float64, one head at a time to save memory."""
    out = torch.empty(*query.shape[:3], value.shape[3], dtype=torch.float64)
    for at in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:2])).tolist():
        q, k, v = (x[tuple(at)].double() for x in (query, key, value))
        scores = q @ k.T * q.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        out[tuple(at)] = torch.softmax(scores, -1) @ v
    return out


def time_metrics(heads: Heads, numbers: Numbers) -> Metrics:
    """Time both dtypes on one thread: without tricks twice, with all, and with a quarter of the exponentials."""
    metrics: Metrics = {}
    for dtype, degree in DEGREES.items():
        query, key, value = (x.to(dtype) for x in heads)
        out, stats = torch.empty_like(query), torch.zeros(2, *query.shape[:3])
        plain = partial(attend, "softmax", query, key, value, out=out, stats=stats)
        whole, quarter = (
            partial(attend, "flash4", query, key, value, degree, share, SLACK, out=out, stats=stats)
            for share in (1.0, 0.25)
        )
        first, all_times, quarter_times, again = best_times(
            [plain, whole, quarter, plain], numbers["rounds"], numbers["seconds"]
        )
        name = str(dtype).removeprefix("torch.")
        metrics[f"time_ratio_{name}"] = all_times / min(first, again)
        metrics[f"time_ratio_quarter_{name}"] = quarter_times / min(first, again)
        metrics[f"time_noise_{name}"] = again / first
    metrics["time_ratio"] = max(float(metrics[f"time_ratio_{name}"]) for name in ("bfloat16", "float32"))  # type: ignore[arg-type]
    return metrics
