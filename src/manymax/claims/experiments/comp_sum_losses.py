"""Comp-sum losses: labels that are wrong, inputs that are moved, the bound on errors (Mao et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.tables import Classifier, Table, digits, mlp, uniform_noise
from manymax.claims.experiments.training import part, train
from manymax.data.task import stream
from manymax.heads.adversarial import pgd, smooth_adversarial_comp_sum
from manymax.heads.comp_sum import CompSumHead, comp_sum_loss
from manymax.heads.consistency import h_consistency
from manymax.heads.softmax import SoftmaxHead

TAUS = (0.0, 0.5, 1.0, 1.5, 2.0)
BETWEEN = 1.5  # the exponent in (1, 2) that is compared with cross-entropy
PIXELS = (0.0, 1.0)
Loss = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    found: Metrics = {
        "cross_entropy_difference": cross_entropy_difference(seed),
        "bound_violations": violations(seed, numbers["distributions"]),
    }
    try:
        table = digits()
    except ImportError as error:
        names = ["noisy_lead", "robust_lead", *(f"accuracy_tau_{tau:g}" for tau in TAUS)]
        names += [f"{kind}_{name}" for kind in ("robust", "clean") for name in ("smooth", "trades", "madry")]
        return found | dict.fromkeys(names, Untestable(str(error)))
    noisy = {
        tau: noisy_accuracy(tau, table, seed, numbers, part(progress, f"tau {tau:g}", index, 2 * len(TAUS)))
        for index, tau in enumerate(TAUS)
    }
    moved = robust(table, seed, numbers["adversarial"], part(progress, "adversarial", 1, 2))
    return {
        **found,
        "noisy_lead": noisy[BETWEEN] - noisy[1.0],
        "robust_lead": moved["robust_smooth"] - moved["robust_trades"],
        **{f"accuracy_tau_{tau:g}": value for tau, value in noisy.items()},
        **moved,
    }


def cross_entropy_difference(seed: int) -> float:
    """Return the largest difference of PyTorch's cross-entropy from log(1 + u) as it is defined and as it is computed.

    The loss at tau = 1 calls PyTorch's, so that the definition is what can differ.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = 5 * torch.randn(1000, 10, generator=generator, dtype=torch.float64)
    target = torch.randint(10, (1000,), generator=generator)
    others = torch.ones_like(scores).scatter_(1, target[:, None], 0)
    defined = torch.log1p((others * (scores - scores.gather(1, target[:, None])).exp()).sum(1))
    expected = F.cross_entropy(scores, target, reduction="none")
    return max(float((x - expected).abs().max()) for x in (defined, comp_sum_loss(scores, target, 1.0)))


def violations(seed: int, count: int) -> int:
    """Return how often a random classifier on a random distribution of 5 inputs and 4 classes breaks the bound."""
    generator = torch.Generator().manual_seed(seed)
    broken = 0
    for _ in range(count):
        joint = torch.rand(5, 4, generator=generator, dtype=torch.float64) ** 3
        scores = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        for tau in TAUS:
            found = h_consistency(scores, joint / joint.sum(), tau)
            broken += found.zero_one > found.bound
    return broken


def noisy_accuracy(tau: float, table: Table, seed: int, numbers: Numbers, progress: Progress) -> float:
    """Return the test accuracy in points after training with labels of which a share is wrong."""
    labels = uniform_noise(table.train[1], numbers["noise"], table.classes, stream("noise", seed))
    torch.manual_seed(seed)
    head = CompSumHead(numbers["hidden"], table.classes, tau=tau, bias=True)
    model = Classifier(mlp(64, numbers["hidden"]), head)
    train(model, table.relabelled(labels), seed, numbers, progress)
    return 100 * model.accuracy(*table.held_out())


class Defended(nn.Module):
    """A classifier that trains with a loss of the whole model."""

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        return self.loss(self.model.scores, inputs, targets).mean()


def losses(*, radius: float, inner: int, beta: float, nu: float) -> dict[str, Loss]:
    """Return the three defences: smooth comp-sum losses, TRADES, and the loss at the worst point found."""

    def climb(objective: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        return pgd(objective, inputs, radius=radius, steps=inner, bounds=PIXELS)

    def smooth(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return smooth_adversarial_comp_sum(model, inputs, targets, radius=radius, nu=nu, steps=inner, bounds=PIXELS)

    def trades(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        clean = model(inputs)
        held = clean.detach().log_softmax(-1)
        worst = climb(lambda x: divergence(held, model(x).log_softmax(-1)), inputs)
        away = divergence(clean.log_softmax(-1), model(worst).log_softmax(-1))
        return F.cross_entropy(clean, targets, reduction="none") + beta * away

    def madry(model: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        worst = climb(lambda x: F.cross_entropy(model(x), targets, reduction="none"), inputs)
        return F.cross_entropy(model(worst), targets, reduction="none")

    return {"smooth": smooth, "trades": trades, "madry": madry}


def divergence(logs: Tensor, others: Tensor) -> Tensor:
    """Return KL(p || q) of rows of logarithms (n, C)."""
    return (logs.exp() * (logs - others)).sum(-1)


def robust(table: Table, seed: int, numbers: Numbers, progress: Progress) -> dict[str, float]:
    """Return the accuracies in points of the three defences, as the inputs are and at the worst points found."""
    found = {}
    radius = numbers["radius"]
    kinds = losses(radius=radius, inner=numbers["inner"], beta=numbers["beta"], nu=numbers["nu"])
    inputs, targets = table.held_out()
    for index, (name, loss) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        model = Classifier(mlp(64, numbers["hidden"], 2), SoftmaxHead(numbers["hidden"], table.classes, bias=True))
        train(Defended(model, loss), table, seed, numbers, part(progress, name, index, len(kinds)))
        torch.manual_seed(seed)
        worst = pgd(
            lambda x, model=model: F.cross_entropy(model.scores(x), targets, reduction="none"),  # type: ignore[misc]
            inputs,
            radius=radius,
            steps=numbers["attack"],
            bounds=PIXELS,
        )
        found[f"robust_{name}"] = 100 * model.accuracy(worst, targets)
        found[f"clean_{name}"] = 100 * model.accuracy(inputs, targets)
    return found
