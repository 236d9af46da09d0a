"""SoftHGNN: beside attention on images and on sets, operations, balance of selected sets, rank (Lei et al., 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import Learnt, learn, seen
from manymax.claims.experiments.costs import attending, flops
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.data.task import Task
from manymax.data.triples import Triples
from manymax.models.parts import sublayers
from manymax.models.vit import ViT

PARTS = 4  # of equal length, about: digits, two kinds of selection, triples


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
        options = {**task.model_options, "patch": numbers["patch"]}
    except ImportError as error:
        names = ("points_of_sets", "usage_entropy_ratio", "participation_rank", "parameters_ratio")
        others = ("attention_accuracy", "points_of_sets_alone", "balanced_usage_entropy")
        metrics = dict.fromkeys((*names, *others), Untestable(str(error)))
    else:
        options |= {"depth": numbers["depth"], "width": numbers["width"]}
        runs = beside_attention(options, task, seed, numbers, part(progress, "digits", 0, PARTS))
        metrics = {
            **points(runs),
            "participation_rank": rank(runs["both"].model, task.held_out()[0][: numbers["probed"]]),
            "parameters_ratio": parameters(runs["both"].model) / parameters(runs["attention"].model),
            **balance(options, task, seed, numbers, progress),
        }
    on_sets = {**numbers, **numbers["triples"]}
    triples = Triples(tokens=on_sets["tokens"], values=on_sets["values"])
    options = {**triples.model_options, "depth": on_sets["depth"], "width": on_sets["width"]}
    runs = beside_attention(options, triples, seed, on_sets, part(progress, "triples", 3, PARTS))
    metrics |= {f"triples_{name}": value for name, value in points(runs).items()}
    return metrics | {"flop_ratio": flop_ratio(seed, **numbers["flops"])}


def beside_attention(
    options: dict[str, Any], task: Task, seed: int, numbers: Numbers, progress: Progress
) -> dict[str, Learnt]:
    """Train transformers with soft sets in the last block, with attention alone and as many parameters, and with sets.

    Args:
        options: of the transformers.
        task: what they learn.
        seed: of the start and the batches.
        numbers: "edges", and those of `train`.
        progress: told about the loss.
    """
    depth, sets = options["depth"], {"num_edges": numbers["edges"]}

    def both() -> ViT:
        return ViT(**options, attention=sets_last(depth, **sets))

    plain = ViT(**options)
    missing = parameters(both()) - parameters(plain)
    hidden = plain.size.hidden + round(missing / (3 * plain.size.width * depth))
    makers: dict[str, Callable[[], ViT]] = {
        "both": both,
        "attention": partial(ViT, **options, hidden=hidden),
        "sets": partial(ViT, **options, attention=partial(create_attention, "softhgnn", **sets)),
    }
    return {
        name: learn(make, task, seed, numbers, part(progress, name, index, len(makers)))
        for index, (name, make) in enumerate(makers.items())
    }


def points(runs: Mapping[str, Learnt]) -> Metrics:
    """Return accuracies in points: of attention, and by how much those with soft sets are above it."""
    accuracy = {name: 100 * learnt.quality for name, learnt in runs.items()}
    return {
        "points_of_sets": accuracy["both"] - accuracy["attention"],
        "attention_accuracy": accuracy["attention"],
        "points_of_sets_alone": accuracy["sets"] - accuracy["attention"],
    }


def rank(model: ViT, images: Tensor) -> float:
    """Return the largest rank of the last block's participation times its transpose."""
    mechanism: Any = sublayers(model)[-1].mechanism
    share = mechanism.participation(*seen(model, images)[-1]).detach().double()
    return float(torch.linalg.matrix_rank(share @ share.transpose(1, 2)).max())


def balance(options: dict[str, Any], task: Digits, seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train with selected sets, with the term that evens them and without; return the entropies of their usage."""
    entropies = []
    for index, weight in enumerate((1.0, 0.0)):

        def make(weight: float = weight) -> Balanced:
            factory = sets_last(numbers["depth"], **numbers["selected"])
            return Balanced(ViT(**options, attention=factory), weight)

        tell = part(progress, f"selected sets, term times {weight:g}", 1 + index, PARTS)
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
