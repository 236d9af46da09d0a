"""Output layers beside PyTorch's: scores of tokens over a vocabulary, their cross-entropy, and its gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

from benchmarks.limits import Limits
from benchmarks.measure import Measurement, of_case
from benchmarks.scale import Scale
from manymax.bench.contender import Contender, as_call, run_case
from manymax.compare.memory import peak_memory
from manymax.heads.linear_cross_entropy import linear_cross_entropy
from manymax.maps.softmax import logsumexp

CAP = 30.0
DIM = 768


@dataclass(frozen=True)
class OutputLayer:
    """Tokens, the classes' rows, and targets.

    Attributes:
        tokens: N.
        classes: C.
        dtype: of tokens and rows.
        soft: whether targets are probabilities.
        smoothing: of the labels.
        softcap: of the scores; 0 is none.
    """

    tokens: int
    classes: int
    dtype: torch.dtype
    soft: bool = False
    smoothing: float = 0.0
    softcap: float = 0.0
    device: str = "cpu"
    backward: bool = True

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return tokens and rows."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(self.tokens, DIM, generator=generator)
        rows = torch.randn(self.classes, DIM, generator=generator) * DIM**-0.5
        return tokens.to(self.dtype), rows.to(self.dtype)

    @cached_property
    def target(self) -> Tensor:
        """Return classes, or probabilities (tokens, classes)."""
        generator = torch.Generator().manual_seed(1)
        if self.soft:
            return torch.rand(self.tokens, self.classes, generator=generator).mul_(2 / self.classes)
        return torch.randint(self.classes, (self.tokens,), generator=generator)

    @property
    def work(self) -> float:
        """Return the operations of the three products: scores, and gradients of tokens and rows."""
        return 6.0 * self.tokens * self.classes * DIM

    @cached_property
    def exact(self) -> float:
        """Return the loss in float64."""
        tokens, rows = (x.double() for x in self.inputs)
        total = 0.0
        for part in torch.arange(self.tokens).split(128):
            scores = self.cap(tokens[part] @ rows.T)
            given = self.target[part].double() if self.soft else self.target[part]
            total += float(F.cross_entropy(scores, given, label_smoothing=self.smoothing, reduction="sum"))
        return total / self.tokens

    def cap(self, scores: Tensor) -> Tensor:
        """Return scores under the cap."""
        return self.softcap * torch.tanh(scores / self.softcap) if self.softcap else scores

    def error(self, label: str, out: Tensor) -> float:
        """Return the loss's relative error."""
        del label
        return abs(float(out) - self.exact) / self.exact

    def ours(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Return the fused loss."""
        loss = linear_cross_entropy(
            tokens, rows, self.target, label_smoothing=self.smoothing, softcap=self.softcap or None
        )
        assert isinstance(loss, Tensor)
        return loss

    def whole(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of all scores at once."""
        return F.cross_entropy(self.cap(F.linear(tokens, rows)), self.target, label_smoothing=self.smoothing)

    def torchs(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Return PyTorch's own, by chunks where it can; where it cannot it warns, and takes all scores at once."""
        call: Any = F.linear_cross_entropy
        options = LinearCrossEntropyOptions()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss: Tensor = call(tokens, rows, self.target, label_smoothing=self.smoothing, options=options)
        return loss


def _beside(
    goal: str, name: str, problem: OutputLayer, peer: Callable[..., Tensor], limit: float, seconds: float
) -> Measurement:
    contenders = [Contender("torch", "loss", peer), Contender("manymax", "loss", problem.ours, "cpu")]
    case = run_case(problem, contenders, limit, seconds)
    return of_case(goal, name, case, case.rows[1], operations=problem.work, limit=limit, backend="cpu")


def _memory(problem: OutputLayer) -> Measurement:
    """Return the memory of a forward and backward pass beside the gradients, as a share of all scores' own."""
    call = as_call(Contender("manymax", "loss", problem.ours), problem)
    call()
    with peak_memory() as peak:
        call()
    scores = problem.tokens * problem.classes * 4
    name = f"{problem.tokens} tokens, {problem.classes} classes, float32, forward and backward"
    if peak.bytes is None:
        return Measurement("heads/memory", name, None, message="this system has no mark of memory that can be set back")
    return Measurement("heads/memory", name, (peak.bytes - sum(x.nbytes for x in problem.inputs)) / scores)


@dataclass(frozen=True)
class Scores:
    """Given scores and targets."""

    tokens: int
    classes: int
    device: str = "cpu"
    backward: bool = False

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Return the scores."""
        return (torch.randn(self.tokens, self.classes, generator=torch.Generator().manual_seed(0)),)

    @cached_property
    def target(self) -> Tensor:
        """Return classes."""
        return torch.randint(self.classes, (self.tokens,), generator=torch.Generator().manual_seed(1))

    @property
    def work(self) -> float:
        """Return the bytes to read."""
        return float(self.inputs[0].nbytes)

    def error(self, label: str, out: Tensor) -> float:
        """Return the loss's relative error."""
        del label
        exact = float(
            torch.stack(
                [F.cross_entropy(x[None].double(), y[None]) for x, y in zip(self.inputs[0], self.target, strict=True)]
            ).mean()
        )
        return abs(float(out) - exact) / exact

    def ours(self, scores: Tensor) -> Tensor:
        """Return the mean of lse less the target's score."""
        return (logsumexp(scores, dim=-1) - scores.gather(1, self.target[:, None])[:, 0]).mean()


def heads(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Measure the goals of output layers."""
    tokens, classes = scale.output
    size = f"{tokens} tokens, {classes} classes"
    layer = partial(OutputLayer, tokens, classes)
    for dtype, limit in ((torch.float32, limits.float32), (torch.bfloat16, limits.bfloat16)):
        problem = layer(dtype)
        name = str(dtype).removeprefix("torch.")
        # A round takes 1 to 4 s, and a shared machine's speed moves by a tenth from one to the next.
        yield _beside(f"heads/{name}", f"{size}, {name}", problem, problem.whole, limit, 8 * scale.seconds)
    yield _memory(layer(torch.float32))
    smooth, capped, soft = (
        layer(torch.float32, smoothing=0.1),
        layer(torch.float32, softcap=CAP),
        layer(torch.float32, soft=True),
    )
    for name, problem, peer in (
        ("label smoothing", smooth, smooth.torchs),
        ("softcap, beside all scores at once", capped, capped.whole),
        ("soft targets", soft, soft.torchs),
    ):
        yield _beside("heads/options", f"{size}, {name}", problem, peer, limits.float32, scale.seconds)
    given = Scores(tokens, classes)
    peer = Contender("torch", "loss", lambda scores: F.cross_entropy(scores, given.target))
    case = run_case(given, [peer, Contender("manymax", "loss", given.ours, "cpu")], limits.read, scale.seconds)
    known = {"bytes": given.work, "limited_by": "bytes", "limit": limits.read, "backend": "cpu"}
    yield of_case("heads/logits", f"{size}, given scores, forward", case, case.rows[1], **known)
