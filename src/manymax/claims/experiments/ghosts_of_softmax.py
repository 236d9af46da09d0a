"""Steps along and beyond the radius of cross-entropy's series, on digits (Sao, 2026)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pstdev

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.data.digits import Digits
from manymax.diagnose.radius import RadiusController, step_radius

Pair = tuple[Tensor, Tensor]
KINDS = ("controller", "plain", "clipped")
NAMES = (
    "controller_accuracy_ratio",
    "plain_accuracy_ratio",
    "clipped_accuracy_ratio",
    "plain_accuracy_ratio_smallest",
    "failures_within",
    "onset_spread_ratio",
    "failures_beyond",
    "first_failure",
)
FAILED = 2.0  # times the loss before
SAFE = 0.9  # radii below which no step may fail


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train through spikes, then take steps of all lengths."""
    try:
        images, labels = Digits().examples("train")
        held_out = Digits().examples("validation")
    except ImportError as error:
        return dict.fromkeys(NAMES, Untestable(str(error)))
    x, test = images.flatten(1), (held_out[0].flatten(1), held_out[1])
    ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for place, rate in enumerate(numbers["learning_rates"]):
        for kind in KINDS:
            progress(place / (len(numbers["learning_rates"]) + 1), f"{kind}, learning rate {rate:g}")
            ratios[kind].append(through_spike(kind, rate, (x, labels), test, seed, numbers))
    progress(0.9, "steps of all lengths")
    return {
        "controller_accuracy_ratio": min(ratios["controller"]),
        "plain_accuracy_ratio": ratios["plain"][-1],
        "clipped_accuracy_ratio": ratios["clipped"][-1],
        "plain_accuracy_ratio_smallest": ratios["plain"][0],
        **lengths(x, labels, seed, numbers),
    }


def network(hidden: int, seed: int) -> nn.Sequential:
    """Return the MLP."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Return the share of right answers."""
    with torch.no_grad():
        return float((model(x).argmax(-1) == labels).double().mean())


def through_spike(kind: str, rate: float, data: Pair, test: Pair, seed: int, numbers: Numbers) -> float:
    """Return the test accuracy at the end of a training whose learning rate jumps over that before the jump."""
    model = network(numbers["hidden"], seed)
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    controller = RadiusController(adam, model) if kind == "controller" else None
    generator = torch.Generator().manual_seed(seed)
    before = 0.0
    for step in range(numbers["steps"]):
        if step == numbers["spike"]:
            before = accuracy(model, *test)
            adam.param_groups[0]["lr"] = rate * numbers["factor"]
        rows = torch.randperm(len(data[0]), generator=generator)[: numbers["batch_size"]]
        adam.zero_grad()
        F.cross_entropy(model(data[0][rows]), data[1][rows]).backward()  # type: ignore[no-untyped-call]
        if kind == "clipped":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if controller is None:
            adam.step()
        else:
            controller.step(data[0])
    return accuracy(model, *test) / max(before, 1e-9)


def checkpoints(x: Tensor, labels: Tensor, seed: int, numbers: Numbers) -> list[tuple[nn.Module, list[Tensor]]]:
    """Return networks along a training, each with the step that Adam would take."""
    found: list[tuple[nn.Module, list[Tensor]]] = []
    model = network(numbers["hidden"], seed)
    adam = torch.optim.Adam(model.parameters(), lr=numbers["learning_rates"][len(numbers["learning_rates"]) // 2])
    for step in range(max(numbers["checkpoints"]) + 1):
        adam.zero_grad()
        F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        before = [p.detach().clone() for p in model.parameters()]
        adam.step()
        if step in numbers["checkpoints"]:
            copy = network(numbers["hidden"], seed)
            for p, old in zip(copy.parameters(), before, strict=True):
                p.data.copy_(old)
            steps = [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]
            found.append((copy, steps))
    return found


def lengths(x: Tensor, labels: Tensor, seed: int, numbers: Numbers) -> Metrics:
    """Return which steps fail, and where failure sets in."""
    grid = torch.logspace(-1, 2, numbers["lengths"], dtype=torch.float64).tolist()
    failed: list[tuple[float, bool]] = []
    found = checkpoints(x, labels, seed, numbers)
    for model, adams in found:
        random = [torch.randn_like(p) for p in model.parameters()]
        for direction in (descent(model, x, labels, 1.0), adams, random):
            radius = step_radius(model, x, direction)
            failed += [(r, fails(model, x, labels, direction, r / radius.ratio, 1.0)) for r in grid]
    model = found[len(found) // 2][0]
    onsets = [onset(model, x, labels, temperature, grid) for temperature in numbers["temperatures"]]
    known = [(r, tau) for r, tau in onsets if math.isfinite(r)]
    spreads = [pstdev([math.log(pair[i]) for pair in known]) if len(known) > 1 else math.nan for i in (0, 1)]
    beyond = [bad for r, bad in failed if r > 1]
    return {
        "failures_within": float(sum(bad for r, bad in failed if r < SAFE)),
        "onset_spread_ratio": spreads[0] / max(spreads[1], 1e-9),
        "failures_beyond": sum(beyond) / len(beyond),
        "first_failure": min((r for r, bad in failed if bad), default=2 * grid[-1]),
    }


def descent(model: nn.Module, x: Tensor, labels: Tensor, temperature: float) -> list[Tensor]:
    """Return the negative gradient."""
    loss = F.cross_entropy(model(x) / temperature, labels)
    return [-g for g in torch.autograd.grad(loss, list(model.parameters()))]


@torch.no_grad()
def fails(
    model: nn.Module, x: Tensor, labels: Tensor, direction: Sequence[Tensor], scale: float, temperature: float
) -> bool:
    """Return whether a step more than doubles the loss."""
    moved = {name: p + scale * d for (name, p), d in zip(model.named_parameters(), direction, strict=True)}
    before = F.cross_entropy(model(x) / temperature, labels)
    after = F.cross_entropy(torch.func.functional_call(model, moved, (x,)) / temperature, labels)
    return not float(after) <= FAILED * float(before)


def onset(
    model: nn.Module, x: Tensor, labels: Tensor, temperature: float, grid: Sequence[float]
) -> tuple[float, float]:
    """Return the shortest failing step along the negative gradient, in radii and in length; infinite if none fails."""
    direction = descent(model, x, labels, temperature)
    radius = step_radius(model, x, direction, read=lambda model, x: model(x) / temperature)
    for r in grid:
        if fails(model, x, labels, direction, r / radius.ratio, temperature):
            return r, r * radius.radius
    return math.inf, math.inf
