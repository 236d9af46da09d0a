"""L2ViT: concentration, bounded denominators, alternation with windows (Zheng, 2025)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, cast

from torch import Tensor, nn

from manymax.attention.dense.api import attention
from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.contests import GradientNorms, Learnt, learn, row_entropy, rows, seen
from manymax.claims.experiments.costs import mechanism_slope
from manymax.claims.experiments.training import part
from manymax.data.digits import Digits
from manymax.models.vit import ViT

FACTOR, WINDOW = 3.0, 20  # a spike is a gradient above 3 times the median of the 20 steps before


class Windows(nn.Module):
    """Softmax attention within square windows of a grid, as in Swin without shifts.

    Args:
        head_dim: the last dim of queries and keys.
        num_heads: number of heads.
        side: of a window; it divides the grid's.
    """

    def __init__(self, *, head_dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.shape = (num_heads, head_dim)
        self.side = side

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """Return the outputs (B, H, N, D)."""
        out: Tensor = attention(self._split(query, grid), self._split(key, grid), self._split(value, grid))
        batch, heads, _, dim = query.shape
        down, across = (side // self.side for side in grid)
        windows = out.reshape(batch, down, across, heads, self.side, self.side, dim)
        return windows.permute(0, 3, 1, 4, 2, 5, 6).reshape(query.shape)

    def _split(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return (B * windows, H, side * side, D)."""
        batch, heads, _, dim = x.shape
        down, across = (side // self.side for side in grid)
        image = x.reshape(batch, heads, down, self.side, across, self.side, dim)
        return image.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, heads, self.side**2, dim)


def alternating(side: int, local: int) -> Callable[..., nn.Module]:
    """Return a factory whose mechanisms are by turns softmax in windows and L2ViT's global attention."""
    turns = count()

    def make(**sizes: int) -> nn.Module:
        if next(turns) % 2 == 0:
            return Windows(**sizes, side=side)
        made: nn.Module = create_attention("l2vit", **sizes, local=local)
        return made

    return make


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    task = Digits()
    metrics: Metrics
    try:
        options = {**task.model_options, "patch": numbers["patch"]}
    except ImportError as error:
        names = ("entropy_ratio", "points_of_module", "points_above_softmax", "spikes_of_plain_division")
        metrics = dict.fromkeys(
            (*names, "softmax_accuracy", "spikes_with_bound", "points_of_bound"), Untestable(str(error))
        )
    else:
        metrics = learning(options, task, seed, numbers, progress)
    progress(0.9, "times")
    return metrics | {"slope_distance": abs(mechanism_slope("l2vit", seed, numbers["time"]) - 1)}


def learning(options: dict[str, Any], task: Digits, seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train each kind of model; return accuracies, entropies and spikes."""
    local = numbers["local"]
    plain = partial(create_attention, "l2vit", least=0.0)
    kinds: dict[str, Callable[[], Any]] = {
        "softmax": lambda: "softmax",
        "linear": lambda: plain,
        "bound": lambda: "l2vit",
        "module": lambda: partial(plain, local=local),
        "l2vit": lambda: alternating(numbers["window"], local),
    }

    def build(make: Callable[[], Any], records: list[GradientNorms]) -> ViT:
        model = ViT(**options, depth=numbers["depth"], width=numbers["width"], attention=make())
        records.append(GradientNorms(model))
        return model

    runs: dict[str, Learnt] = {}
    spikes: dict[str, int] = {}
    for index, (name, make) in enumerate(kinds.items()):
        records: list[GradientNorms] = []
        tell = part(progress, name, index, len(kinds) + 1)
        runs[name] = learn(partial(build, make, records), task, seed, numbers, tell)
        spikes[name] = records[0].spikes(FACTOR, WINDOW)
    points = {name: 100 * learnt.quality for name, learnt in runs.items()}
    images = task.held_out()[0][: numbers["probed"]]
    return {
        "entropy_ratio": entropy(runs["linear"], plain, images) / entropy(runs["softmax"], "softmax", images),
        "points_of_module": points["module"] - points["linear"],
        "points_above_softmax": points["l2vit"] - points["softmax"],
        "spikes_of_plain_division": spikes["linear"] - spikes["bound"],
        "softmax_accuracy": points["softmax"],
        "spikes_with_bound": spikes["bound"],
        "points_of_bound": points["bound"] - points["linear"],
    }


def entropy(learnt: Learnt, kind: Any, images: Tensor) -> float:
    """Return the mean entropy of a trained model's rows of weights."""
    found = []
    for query, key in seen(learnt.model, images):
        sizes = {"head_dim": query.shape[3], "num_heads": query.shape[1]}
        mechanism = create_attention(kind, **sizes) if isinstance(kind, str) else kind(**sizes)
        found.append(row_entropy(rows(cast("Callable[..., Tensor]", mechanism), query, key)))
    return sum(found) / len(found)
