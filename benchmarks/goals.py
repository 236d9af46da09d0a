"""What the kernels should reach, and the verdict on what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Measurement

SDPA = "PyTorch's sdpa"
OURS = "our softmax attention"
MODEL = 'the model with "sdpa"'
CHUNKED = "best chunks in plain PyTorch"


@dataclass(frozen=True)
class Goal:
    """A row of the table.

    Attributes:
        work: what is measured.
        against: what it is compared with.
        target: the number to reach, in the worst case.
        unit: "x" for a ratio, "%" for a share, "tokens" for a length.
        at_most: whether smaller is better.
        limit: what stands in the way where it is not reached; {case}, {rate}, ... are those of the worst case;
            {full} is what would be reached at the whole limit.
    """

    work: str
    against: str
    target: float
    unit: str = "x"
    at_most: bool = False
    limit: str = "at {case} it runs at {rate}, {share} of the limit"

    def show(self, value: float) -> str:
        """Return a value in the goal's unit."""
        if self.unit == "tokens":
            return f"N {value:.0f}"
        return f"{value:.0%}" if self.unit == "%" else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"

    @property
    def bound(self) -> str:
        """Return the target as text."""
        return f"{'<=' if self.at_most else '>='} {self.show(self.target)}"


@dataclass(frozen=True)
class Verdict:
    """What became of a goal.

    Attributes:
        met: "yes", "no", "within noise" where the worst case's interval covers the target, or "not measured".
        reached: the values from the worst case to the best.
        limit: what stands in the way; empty if the goal is met.
    """

    met: str
    reached: str
    limit: str


PRODUCTS = (
    "at {case} it runs at {rate}, {share} of the product rate, and the whole rate would be {full}; products take nine "
    "tenths of its cycles and wait for the second-level cache, weights take the rest"
)
OVERHEAD = (
    "at {case} a call takes {time}, {peer_time} in PyTorch: checks of arguments in Python come before any work, and "
    "threads need 5 us to wake"
)
SHARE = "at {case} it runs at {rate}: packing, exponentials and the sums' reading and writing take the rest"
READ = (
    "at {case} it takes {time}, {peer_time} in PyTorch: it reads as fast as memory delivers (the row above), so that "
    "the ratio says how far PyTorch is from that"
)
SHORT_SUM = (
    "at {case} it runs at {rate}, {share} of the product rate; the work is too short to hide packing and the wait of "
    "threads for each other"
)
MAP = "at {case}: its function costs more instructions a score than 2^x, beside {share} of the product rate in all"
ROWS = "at {case} it takes {time}, what it is compared with {peer_time}"
LONG_ROWS = (
    f"{ROWS}: a row that outgrows the second-level cache is read twice and written once, three visits where a copy "
    "makes two, which is 67% if all cost the same; a shorter one is written while the next is read, and what is left "
    "beside the copy is arithmetic"
)
SHORT_ROWS = (
    f"{ROWS}: a vector of 16 scores takes 14 instructions for its exponential, 9 of them multiply-adds that two units "
    "share, and in rows of 16 as many again for the sum across it, the logarithm or division, and the store"
)
FORMULA = (
    "at {case} it takes {time}, the formula {peer_time}: it runs at {share} of the product rate, and the whole rate "
    "would be {full}"
)
STREAM = (
    "at {case} it reads {rate}, {share} of what a sum reads: the cache lies in pages of 4 KB, scattered by what ran "
    "before, and every page of keys and values is looked up while products wait; with pages of 2 MB "
    "(GLIBC_TUNABLES=glibc.malloc.hugetlb=1), or in a process of its own (--only decode), it is faster"
)

CHUNKS = (
    "at {case} it runs at {rate}, {share} of the product rate; packing, transposes, decays and the parts of triangles "
    "that are computed for nothing take the rest"
)
STEP = "at {case} it takes {time}, and {peer_time} in PyTorch: a call from Python takes 1 us a token before any work"

FUSED = (
    "at {case} it runs at {rate}, {share} of the product rate: rows are read twice, their gradients read and written, "
    "for each chunk of tokens, beside packing and exponentials"
)

WHOLE = "at {case} it takes {time}, the other {peer_time}: what lies around attention is the same code in both"

GOALS = {
    "forward/float32": Goal("attention forward, float32", SDPA, 2.2, limit=PRODUCTS),
    "forward/float32/share": Goal("the same, N 4096, full", "product rate in cache", 0.8, "%", limit=SHARE),
    "forward/bfloat16/short": Goal("attention forward, bfloat16, N 1024", SDPA, 3.5, limit=SHORT_SUM),
    "forward/bfloat16": Goal("attention forward, bfloat16, from N 4096 on", SDPA, 4.0, limit=PRODUCTS),
    "training/float32": Goal("attention training, float32", SDPA, 2.4, limit=PRODUCTS),
    "training/bfloat16": Goal("attention training, bfloat16", SDPA, 2.5, limit=PRODUCTS),
    "maps/forward": Goal("pointwise and ratio maps, forward", OURS, 1.15, at_most=True, limit=MAP),
    "maps/training": Goal("pointwise and ratio maps, training", OURS, 1.15, at_most=True, limit=MAP),
    "maps/forward/light": Goal("sigmoid and relu, forward", OURS, 1.0, at_most=True, limit=MAP),
    "maps/training/light": Goal("sigmoid and relu, training", OURS, 1.0, at_most=True, limit=MAP),
    "eager/forward": Goal("sigmoid, softplus, stablemax, N 4096, forward", "eager PyTorch", 8, limit=FORMULA),
    "eager/training": Goal("sigmoid, softplus, stablemax, N 4096, training", "eager PyTorch", 8, limit=FORMULA),
    "eager/memory": Goal(
        "their peak memory, N 8192 over N 4096", "2x is O(N), 4x O(N^2)", 2.2, at_most=True, limit="{case}"
    ),
    "threshold/forward": Goal("entmax15 and sparsemax, N 2048, forward", "eager with entmax", 8, limit=FORMULA),
    "threshold/training": Goal("entmax15 and sparsemax, N 2048, training", "eager with entmax", 8, limit=FORMULA),
    "decode": Goal("decode, 1 query, 32k keys", "read bandwidth", 0.7, "%", limit=STREAM),
    "rows/softmax": Goal("softmax, log_softmax, rows from 1k on", "copy bandwidth", 0.85, "%", limit=LONG_ROWS),
    "rows/softmax/short": Goal("softmax, log_softmax, shorter rows", "copy bandwidth", 0.6, "%", limit=SHORT_ROWS),
    "rows/softmax/torch": Goal("softmax, log_softmax, all rows", "PyTorch", 1.0, limit=ROWS),
    "rows/logsumexp": Goal("logsumexp", "read bandwidth", 0.8, "%", limit=SHORT_ROWS),
    "rows/logsumexp/torch": Goal("logsumexp, rows from 4k on", "PyTorch", 15, limit=READ),
    "rows/threshold": Goal("sparsemax, entmax15, rows of 1k to 128k", "entmax", 10, limit=ROWS),
    "linear/forward": Goal("causal linear attention forward, N 8k", CHUNKED, 3.0, limit=CHUNKS),
    "linear/training": Goal("linear attention, decays, delta rule: training, N 8k", CHUNKED, 2.5, limit=CHUNKS),
    "linear/length": Goal("time per token, N 32k over N 2k", "1x", 1.1, at_most=True, limit=ROWS),
    "linear/delta": Goal("gated delta rule: training, N 8k", "transformers in PyTorch", 3.0, limit=CHUNKS),
    "linear/step": Goal("kernel of a linear decode step, batch 1 to 16", "read bandwidth", 0.6, "%", limit=STEP),
    "linear/step/new": Goal("the same, into new memory", "plain PyTorch", 1.0, limit=ROWS),
    "linear/step/memory": Goal("the same, states from memory", "copying the states", 0.8, limit=ROWS),
    "linear/crossover": Goal(
        "linear attention training is faster from", OURS, 1024, "tokens", at_most=True, limit="{case}"
    ),
    "short": Goal("short work, N 64 to 256, batch 1", SDPA, 0.9, limit=OVERHEAD),
    "heads/float32": Goal(
        "output layer, 2048 tokens, 50,257 classes, float32, training", "F.cross_entropy", 2.3, limit=FUSED
    ),
    "heads/bfloat16": Goal("the same, bfloat16", "F.cross_entropy", 1.5, limit=FUSED),
    "heads/memory": Goal(
        "the same, float32: peak memory", "memory of all scores", 0.05, "%", at_most=True, limit="at {case}"
    ),
    "heads/options": Goal(
        "the same with label smoothing, softcap or soft targets", "F.linear_cross_entropy", 1.0, limit=FUSED
    ),
    "heads/logits": Goal("cross-entropy of given scores", "F.cross_entropy", 5.0, limit=READ),
    "models/prefill": Goal("Llama-like, 12 layers, d 512, GQA 4:1: prefill", MODEL, 1.5, limit=WHOLE),
    "models/generation": Goal("the same: a token after 8k", MODEL, 3.0, limit=WHOLE),
    "models/sinks": Goal("GPT-OSS-like, with sinks: prefill", 'the model with "eager"', 3.0, limit=WHOLE),
    "models/sinks/memory": Goal(
        "the same: peak memory of twice the tokens", "2x is O(N), 4x O(N^2)", 2.2, at_most=True, limit="at {case}"
    ),
    "models/training": Goal("Llama-like: a training step with patch_loss", MODEL, 1.4, limit=WHOLE),
    "models/training/memory": Goal("the same: peak memory", MODEL, 0.6, "%", at_most=True, limit="at {case}"),
    "models/embedding": Goal("MiniLM: embeddings of 256 sentences", MODEL, 1.0, limit=WHOLE),
}


def _short_by(goal: Goal, value: float) -> float:
    """Return how far a value misses the target; negative if it is better."""
    return value / goal.target - 1 if goal.at_most else 1 - value / goal.target


def judge(goal: Goal, cases: Sequence[Measurement]) -> Verdict:
    """Return the verdict on the cases of a goal: the worst one decides."""
    failed = [one for one in cases if one.reached is None]
    found = [(one.reached, one) for one in cases if one.reached is not None]
    if failed:
        return Verdict("no", f"{failed[0].case}: failed", failed[0].message)
    if not found:
        return Verdict("not measured", "", "")
    worst_value, worst = max(found, key=lambda pair: _short_by(goal, pair[0]))
    best_value, _ = min(found, key=lambda pair: _short_by(goal, pair[0]))
    reached = goal.show(worst_value)
    if goal.show(best_value) != reached:
        reached = f"{reached} to {goal.show(best_value)}"
    if _short_by(goal, worst_value) <= 0:
        return Verdict("yes", reached, "")
    nearest = worst.low if goal.at_most else worst.high
    covered = nearest is not None and _short_by(goal, nearest) <= 0
    return Verdict("within noise" if covered else "no", reached, worst.explain(goal.limit))
