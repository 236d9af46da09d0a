"""Chunks against all pairs and against cumulative sums (Qin et al., 2024)."""

from __future__ import annotations

from manymax.attention.linear.lightning import alibi_slopes
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.costs import one_thread
from manymax.claims.experiments.forms import (
    by_cumulative_sums,
    form,
    heads,
    largest_relative_error,
    results,
    saved_bytes,
    seconds_of,
)
from manymax.claims.experiments.timing import best_times


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure errors, bytes and times."""
    count, width = numbers["heads"], numbers["width"]
    log_decay = -alibi_slopes(count)
    chunks, pairs, sums = form(log_decay), form(log_decay, backend="quadratic"), by_cumulative_sums(log_decay)
    progress(0.0, "errors")
    inputs = heads(seed, numbers["error_length"], count=count, width=width)
    expected = results(pairs, inputs)
    metrics: Metrics = {
        "error": largest_relative_error(results(chunks, inputs), expected),
        "cumulative_error": largest_relative_error([x.nan_to_num() for x in results(sums, inputs)], expected),
    }
    progress(0.1, "bytes")
    one = -alibi_slopes(count)[-1:]
    single = {name: heads(seed, numbers[name], count=1, width=width) for name in ("short", "long", "quadratic")}
    longer = heads(seed, numbers["memory_length"], count=1, width=width)
    kept = [saved_bytes(lambda work=work: work(*longer)) for work in (form(one), by_cumulative_sums(one))]  # type: ignore[misc]
    metrics["memory_ratio"] = kept[0] / kept[1]
    progress(0.4, "times")
    works = [seconds_of(form(one), single[name]) for name in ("short", "long", "quadratic")]
    works += [seconds_of(form(one, backend="quadratic"), single["quadratic"])]
    works += [seconds_of(form(one), longer), seconds_of(by_cumulative_sums(one), longer)]
    with one_thread():
        times = best_times(works, numbers["rounds"], numbers["seconds"])
    short, long, chunked, quadratic, chunked_here, cumulative = times
    metrics["time_per_token_ratio"] = long / numbers["long"] / (short / numbers["short"])
    metrics["quadratic_time_ratio"] = quadratic / chunked
    metrics["cumulative_time_ratio"] = cumulative / chunked_here
    return metrics
