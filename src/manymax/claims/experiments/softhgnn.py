"""SoftHGNN: beside attention, operations, balance of selected sets, rank (Lei et al., 2025)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import learn, seen
from manymax.claims.experiments.costs import attending, flops
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.models.parts import sublayers
from manymax.models.vit import ViT

PARTS = 4


def sets_last(depth: int, **options: int) -> Callable[..., nn.Module]:
    """Return a factory whose mechanisms are softmax, and at the last depth soft sets."""
    layers = count(1)

    def make(**sizes: int) -> nn.Module:
        last = next(layers) == depth
        module: nn.Module = (
            create_attention("softhgnn", **sizes, **options) if last else create_attention("softmax", **sizes)
        )
        return module

    return make


class Balanced(nn.Module):
    """A vision transformer whose loss has a term that evens which sets are selected.

    Args:
        model: the transformer; its last mechanism selects sets.
        weight: of the term.
    """

    def __init__(self, model: ViT, weight: float) -> None:
        super().__init__()
        self.model, self.weight = model, weight
        self.mechanism: Any = sublayers(model)[-1].mechanism
        self.tokens: list[Tensor] = []
        self.mechanism.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        del module
        self.tokens = list(arguments[:2])

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        loss: Tensor = self.model(images, targets)
        return loss + self.weight * self.mechanism.load_balance(*self.tokens) if self.weight else loss

    def logits(self, images: Tensor) -> Tensor:
        """Return one score a class."""
        return self.model.logits(images)


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    task = Digits()
    metrics: Metrics
    try:
        options = {
            **task.model_options,
            "patch": numbers["patch"],
            "depth": numbers["depth"],
            "width": numbers["width"],
        }
    except ImportError as error:
        names = ("points_of_sets", "usage_entropy_ratio", "participation_rank", "parameters_ratio")
        metrics = dict.fromkeys((*names, "attention_accuracy", "balanced_usage_entropy"), Untestable(str(error)))
    else:
        metrics = beside_attention(options, task, seed, numbers, progress)
        metrics |= balance(options, task, seed, numbers, progress)
    return metrics | {"flop_ratio": flop_ratio(seed, **numbers["flops"])}


def beside_attention(options: dict[str, Any], task: Digits, seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train a transformer whose last block has soft sets, and one of as many parameters with attention alone."""
    depth, edges = numbers["depth"], numbers["edges"]

    def with_sets() -> ViT:
        return ViT(**options, attention=sets_last(depth, num_edges=edges))

    plain = ViT(**options)
    missing = parameters(with_sets()) - parameters(plain)
    hidden = plain.size.hidden + round(missing / (3 * plain.size.width * depth))

    def alone() -> ViT:
        return ViT(**options, hidden=hidden)

    sets = learn(with_sets, task, seed, numbers, part(progress, "soft sets", 0, PARTS))
    attention = learn(alone, task, seed, numbers, part(progress, "attention", 1, PARTS))
    images = task.held_out()[0][: numbers["probed"]]
    share = sublayers(sets.model)[-1].mechanism.participation(*seen(sets.model, images)[-1]).detach().double()  # type: ignore[operator]
    return {
        "points_of_sets": 100 * (sets.quality - attention.quality),
        "attention_accuracy": 100 * attention.quality,
        "participation_rank": float(torch.linalg.matrix_rank(share @ share.transpose(1, 2)).max()),
        "parameters_ratio": parameters(sets.model) / parameters(attention.model),
    }


def balance(options: dict[str, Any], task: Digits, seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train with selected sets, with the term that evens them and without; return the entropies of their usage."""
    entropies = []
    for index, weight in enumerate((1.0, 0.0)):

        def make(weight: float = weight) -> Balanced:
            factory = sets_last(numbers["depth"], **numbers["selected"])
            return Balanced(ViT(**options, attention=factory), weight)

        tell = part(progress, f"selected sets, term times {weight:g}", 2 + index, PARTS)
        learnt = learn(make, task, seed, numbers, tell)
        entropies.append(usage_entropy(learnt.model, task.held_out()[0]))
    return {"usage_entropy_ratio": entropies[0] / entropies[1], "balanced_usage_entropy": entropies[0]}


@torch.no_grad()
def usage_entropy(model: Balanced, images: Tensor) -> float:
    """Return the entropy in nats of how often each dynamic set is selected."""
    model.logits(images)
    mechanism = model.mechanism
    chosen = mechanism.participation(*model.tokens)[:, :, mechanism.num_edges :].amax(1) > 0
    used = chosen.double().mean(0)
    return float(torch.special.entr(used / used.sum()).sum())


def parameters(model: nn.Module) -> int:
    """Return how many numbers a model learns."""
    return sum(x.numel() for x in model.parameters())


def flop_ratio(seed: int, *, tokens: int, heads: int, width: int, edges: int) -> float:
    """Return the operations of soft sets over those of softmax attention, matrix products alone."""
    sets = create_attention("softhgnn", head_dim=width, num_heads=heads, num_edges=edges)

    def softmax(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.softmax(query @ key.transpose(2, 3) * width**-0.5, -1) @ value

    ours, theirs = (flops(attending(each, heads, width, seed)(tokens)) for each in (sets, softmax))
    return ours / theirs
