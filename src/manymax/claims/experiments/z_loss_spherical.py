"""The Z-loss beside softmax at predicting the next word, and its exact update over the number of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.costs import one_thread
from manymax.claims.experiments.timing import best_times
from manymax.data.text import topics
from manymax.heads.registry import create_head
from manymax.heads.spherical import SphericalLoss
from manymax.heads.spherical_output import SphericalOutput

TOPS = (1, 5, 10, 20)
UNKNOWN = 0
Pairs = tuple[Tensor, Tensor]  # context words (n, context) and next words (n,)


@dataclass(frozen=True)
class Words:
    """Next-word prediction on Python's documentation; the held-out topics are halved for tuning and for testing."""

    train: Pairs
    validation: Pairs
    test: Pairs
    classes: int


def words(numbers: Numbers) -> Words:
    """Return contexts and next words; a word that training has less than twice is unknown, and never asked for."""
    known, held_out = (re.findall(r"[a-z_]+|[^\sa-z_]", text.decode().lower()) for text in topics())
    known = known[: numbers["words"]]
    vocabulary = {word: number for number, word in enumerate(sorted(w for w, n in Counter(known).items() if n > 1), 1)}

    def pairs(text: Sequence[str]) -> Pairs:
        numbered = torch.tensor([vocabulary.get(word, UNKNOWN) for word in text])
        runs = numbered.unfold(0, numbers["context"] + 1, 1)
        runs = runs[runs[:, -1] != UNKNOWN]
        return runs[:, :-1], runs[:, -1]

    held_out = held_out[: 2 * numbers["asked"]]
    half = len(held_out) // 2
    return Words(pairs(known), pairs(held_out[:half]), pairs(held_out[half:]), len(vocabulary) + 1)


class Trunk(nn.Module):
    """Context words to features: embeddings side by side, and one layer."""

    def __init__(self, classes: int, numbers: Numbers) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, numbers["embedded"])
        self.layer = nn.Linear(numbers["context"] * numbers["embedded"], numbers["width"])

    def forward(self, context: Tensor) -> Tensor:
        """Return features (n, width)."""
        return self.layer(self.embedding(context).flatten(1)).tanh()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Arm:
    """One way to train: the log-softmax, or the Z-loss with its a and b; the output layer's learning rate."""

    rate: float
    z: tuple[float, float] | None = None


def accuracies(arm: Arm, data: Words, seed: int, numbers: Numbers) -> dict[str, list[float]]:
    """Train and return the top-k accuracies on the validation and the test words, k as in TOPS."""
    torch.manual_seed(seed)
    trunk = Trunk(data.classes, numbers)
    step, logits = softmax_layer(data, numbers) if arm.z is None else spherical_layer(data, arm, numbers)
    optimizer = torch.optim.Adam(trunk.parameters(), lr=numbers["learning_rate"])
    contexts, targets = data.train
    generator = torch.Generator().manual_seed(seed)
    for number in range(numbers["steps"]):
        falling = 1 - number / numbers["steps"]
        optimizer.param_groups[0]["lr"] = numbers["learning_rate"] * falling
        optimizer.zero_grad()
        chosen = torch.randint(len(targets), (numbers["batch_size"],), generator=generator)
        step(trunk(contexts[chosen]), targets[chosen], arm.rate * falling)
        optimizer.step()
    return {"validation": top(trunk, logits, data.validation), "test": top(trunk, logits, data.test)}


Step = Callable[[Tensor, Tensor, float], None]
Logits = Callable[[Tensor], Tensor]


def softmax_layer(data: Words, numbers: Numbers) -> tuple[Step, Logits]:
    """Return a step of backpropagation and SGD with log-softmax, and the scores."""
    head = create_head("softmax", in_features=numbers["width"], num_classes=data.classes)

    def step(features: Tensor, target: Tensor, rate: float) -> None:
        head(features, target).backward()
        descend(head, rate)

    return step, head.logits


def spherical_layer(data: Words, arm: Arm, numbers: Numbers) -> tuple[Step, Logits]:
    """Return the same with the Z-loss and its exact update."""
    assert arm.z is not None
    layer = SphericalOutput(numbers["width"], data.classes, a=arm.z[0], b=arm.z[1])

    def step(features: Tensor, target: Tensor, rate: float) -> None:
        layer(features, target).backward()
        layer.step(rate)

    return step, layer.logits


@torch.no_grad()
def descend(module: nn.Module, rate: float) -> None:
    """Take a step of SGD and drop the gradients."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=-rate)
            parameter.grad = None


@torch.no_grad()
def top(trunk: Trunk, logits: Logits, pairs: Pairs) -> list[float]:
    """Return the share of words that are among the k with the highest scores, for each k."""
    ranks = []
    for context, target in zip(torch.split(pairs[0], 256), torch.split(pairs[1], 256), strict=True):
        scores = logits(trunk(context))
        ranks.append((scores > scores.gather(1, target[:, None])).sum(1))
    return [float((torch.cat(ranks) < k).double().mean()) for k in TOPS]


def best(results: Sequence[dict[str, list[float]]]) -> list[float]:
    """Return the test accuracy for each k of the setting whose validation accuracy is the highest."""
    return [max(results, key=lambda one: one["validation"][i])["test"][i] for i in range(len(TOPS))]


def ranking(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train all settings and compare the best of each loss."""
    data = words(numbers)
    arms = [Arm(rate) for rate in numbers["softmax_rates"]]
    arms += [Arm(rate, (a, b)) for a, b in numbers["settings"] for rate in numbers["z_rates"]]
    results = []
    for index, arm in enumerate(arms):
        progress(0.8 * index / len(arms), f"setting {index + 1} of {len(arms)}")
        results.append(accuracies(arm, data, seed, numbers))
    split = len(numbers["softmax_rates"])
    softmax, z = best(results[:split]), best(results[split:])
    metrics: Metrics = {}
    for k, one, other in zip(TOPS, softmax, z, strict=True):
        metrics |= {f"softmax_top{k}": one, f"z_top{k}": other, f"top{k}_difference": other - one}
    return metrics


def invariance_error(seed: int) -> float:
    """Return how far, relative, the loss of float32 scores is from that of the same scores moved and scaled."""
    torch.manual_seed(seed)
    loss, scores, target = SphericalLoss(), torch.randn(64, 1000), torch.randint(1000, (64,))
    before = loss(scores, target)
    moves = [(0.01, 0.0), (0.3, -2.0), (5.0, 1.0), (100.0, 30.0)]
    return max(float((loss(s * scores + t, target) / before - 1).abs().max()) for s, t in moves)


def update_error(seed: int, numbers: Numbers) -> float:
    """Return how far, relative, the layer's weight is from that of as many naive steps of SGD in float32."""
    torch.manual_seed(seed)
    width, classes = numbers["width"], numbers["updated_classes"]
    layer = SphericalOutput(width, classes)
    head = layer.head()
    for _ in range(numbers["updates"]):
        features, target = torch.randn(numbers["batch_size"], width), torch.randint(classes, (numbers["batch_size"],))
        layer(features, target).backward()
        layer.step(1.0)
        head(features, target).backward()
        descend(head, 1.0)
    weight = head.weight.detach()
    return float((layer.weight - weight).abs().max() / weight.abs().max())


def times(numbers: Numbers) -> Metrics:
    """Time a step of each layer with few classes and with many, on one thread."""
    width = numbers["width"]
    works: list[Callable[[], object]] = []
    for classes in (numbers["few"], numbers["many"]):
        features = torch.randn(numbers["timed_tokens"], width, requires_grad=True)
        target = torch.randint(classes, (numbers["timed_tokens"],))
        layer = SphericalOutput(width, classes)
        head = create_head("z-loss-spherical", in_features=width, num_classes=classes)
        weight = torch.randn(classes, width).mul_(width**-0.5).requires_grad_()

        def factored(layer: SphericalOutput = layer, x: Tensor = features, y: Tensor = target) -> None:
            layer(x, y).backward()
            layer.step(0.01)

        def naive(head: nn.Module = head, x: Tensor = features, y: Tensor = target) -> None:
            head(x, y).backward()
            descend(head, 0.01)

        def softmax(weight: Tensor = weight, x: Tensor = features, y: Tensor = target) -> None:
            found = torch.autograd.grad(F.cross_entropy(x @ weight.T, y), (x, weight))
            weight.data.add_(found[1], alpha=-0.01)

        works += [factored, naive, softmax]
    with one_thread():
        few, many = torch.tensor(best_times(works, numbers["rounds"], numbers["turn"])).view(2, 3).tolist()
    return {
        "layer_time_ratio": many[0] / few[0],
        "softmax_time_ratio": many[2] / few[2],
        "speedup_over_softmax": many[2] / many[0],
        "speedup_over_naive": many[1] / many[0],
    }


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Rank words, check the invariance and the update, and time."""
    metrics = ranking(seed, numbers, progress)
    progress(0.8, "updates and times")
    return {
        **metrics,
        "invariance_error": invariance_error(seed),
        "update_error": update_error(seed, numbers),
        **times(numbers),
    }
