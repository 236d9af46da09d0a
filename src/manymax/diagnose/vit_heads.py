"""Which heads of a vision transformer matter, and where on the grid of patches they look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.diagnose import hugging
from manymax.diagnose.seams import evaluating, listening
from manymax.diagnose.tile import Tile


@dataclass(frozen=True)
class HeadImportance:
    """What changes when a head's output is zero; each (layers, heads), float64.

    Attributes:
        layers: names of the layers.
        probability: how much lower the true class's probability is, mean over images.
        loss: how much higher the mean cross-entropy is.
        accuracy: how much lower the share of right answers is.
        cosine: 1 minus the cosine between what the classifier reads with and without the head, mean over images.
        distance: Euclidean distance between the two, mean over images.
        divergence: Jensen-Shannon divergence of the predictions in nats, mean over images.
    """

    layers: list[str]
    probability: Tensor
    loss: Tensor
    accuracy: Tensor
    cosine: Tensor
    distance: Tensor
    divergence: Tensor


@dataclass(frozen=True)
class SpatialProfile:
    """Where heads look on the grid.

    Attributes:
        layers: names of the layers.
        rings: (layers, heads, hops), mean share of a patch's weight on the patches that are k hops away, k = 0, 1, ...,
            of all that goes to patches.
        distance: (layers, heads), the mean Euclidean distance in patches.
    """

    layers: list[str]
    rings: Tensor
    distance: Tensor


@torch.no_grad()
def head_importance(model: nn.Module, images: Tensor, targets: Tensor) -> HeadImportance:
    r"""Prune each head of a vision transformer in turn and measure what changes.

    $$I_{l,h} = \frac{1}{n} \sum_{i=1}^{n} \left( p(y_i \mid x_i) - p_{-l,h}(y_i \mid x_i) \right)$$

    is one of the numbers, with $x_i$ an image, $y_i$ its class, $p$ the model's probability and $p_{-l,h}$ that of the
    model whose head $h$ in layer $l$ gives zeros. The paper's is a visual analysis with several such metrics; these are
    the ones that it describes in words.

    Args:
        model: `manymax.models.vit.ViT`, or an image classifier of transformers.
        images: (n, channels, height, width).
        targets: classes (n,).

    Returns:
        A `HeadImportance`.

    Raises:
        ValueError: if there is not one target for each image, or the model's attention cannot be reached.

    Example:
        >>> import torch, manymax as mm
        >>> from manymax.models.vit import ViT
        >>> found = mm.diagnose.head_importance(ViT((1, 8, 8), 10), torch.rand(4, 1, 8, 8), torch.arange(4))
        >>> found.loss.shape
        torch.Size([2, 2])

    Source:
        Li et al., 2023, How Does Attention Work in Vision Transformers? A Visual Analytics Attempt, arXiv:2303.13731.
    """
    if targets.shape != images.shape[:1]:
        raise ValueError(f"targets: expected one for each of {len(images)} images, got {tuple(targets.shape)}")
    heads: dict[str, int] = {}

    def count(name: str, output: Tensor) -> Tensor:
        heads[name] = output.shape[1]
        return output

    with evaluating(model):
        with listening(model, change=count):
            whole = _outputs(model, images)
        numbers = [
            [_compare(whole, _without(model, images, name, head), targets) for head in range(heads[name])]
            for name in heads
        ]
    columns = torch.tensor(numbers, dtype=torch.float64).movedim(-1, 0)
    return HeadImportance(list(heads), *columns)


def _without(model: nn.Module, images: Tensor, layer: str, head: int) -> tuple[Tensor, Tensor]:
    """Return scores and representations of a model one of whose heads gives zeros."""

    def silence(name: str, output: Tensor) -> Tensor:
        if name != layer:
            return output
        output = output.clone()
        output[:, head] = 0
        return output

    with listening(model, change=silence):
        return _outputs(model, images)


def _outputs(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (n, classes) and what the classifier reads (n, D)."""
    if hugging.is_transformers(model):
        found = model(images, output_hidden_states=True)
        return found.logits.double(), found.hidden_states[-1][:, 0].double()
    features = model.features(images)
    return model.head.logits(features).double(), features.double()


def _compare(whole: tuple[Tensor, Tensor], pruned: tuple[Tensor, Tensor], targets: Tensor) -> list[float]:
    """Return the numbers of `HeadImportance` in their order."""
    (logits, features), (other, moved) = whole, pruned
    logs, other_logs = logits.log_softmax(-1), other.log_softmax(-1)
    true, other_true = (x.gather(-1, targets[:, None])[:, 0] for x in (logs, other_logs))
    middle = torch.logaddexp(logs, other_logs) - torch.tensor(2.0, dtype=logs.dtype).log()
    divergence = sum((x.exp() * (x - middle)).sum(-1) for x in (logs, other_logs)) / 2
    right, other_right = (x.argmax(-1) == targets for x in (logits, other))
    numbers = (
        true.exp() - other_true.exp(),
        true - other_true,
        right.double() - other_right.double(),
        1 - F.cosine_similarity(features, moved, dim=-1),
        (features - moved).norm(dim=-1),
        torch.as_tensor(divergence),
    )
    return [float(x.mean()) for x in numbers]


@torch.no_grad()
def spatial_profile(model: nn.Module, images: Tensor, *, grid: tuple[int, int] | None = None) -> SpatialProfile:
    r"""Measure how far from itself on the grid each patch looks, head by head.

    $$m_k^{l,h} = \frac{1}{n P} \sum_{i=1}^{n} \sum_{p=1}^{P} \frac{\sum_{q: d(p, q) = k} A^{l,h}_{i,p,q}}
    {\sum_{q} A^{l,h}_{i,p,q}}$$

    with $A^{l,h}_i$ the weights of layer $l$ and head $h$ for image $i$, $p$ and $q$ patches, $P$ their number and
    $d$ the larger of the differences of their rows and columns. The masses of a head sum to 1; a class token counts
    neither as query nor as key.

    Args:
        model: `manymax.models.vit.ViT`, or a vision transformer of transformers.
        images: (n, channels, height, width).
        grid: rows and columns of patches; None asks the model.

    Returns:
        A `SpatialProfile`.

    Raises:
        ValueError: if the grid is unknown or does not fit, or the model's attention cannot be seen.

    Example:
        >>> import torch, manymax as mm
        >>> from manymax.models.vit import ViT
        >>> found = mm.diagnose.spatial_profile(ViT((1, 8, 8), 10), torch.rand(4, 1, 8, 8))
        >>> found.rings.shape, found.distance.shape
        (torch.Size([2, 2, 4]), torch.Size([2, 2]))

    Source:
        Li et al., 2023, How Does Attention Work in Vision Transformers? A Visual Analytics Attempt, arXiv:2303.13731.
    """
    rows, columns = _grid(model) if grid is None else grid
    place = (
        torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).view(-1, 2).double()
    )
    hops = torch.cdist(place, place, p=torch.inf).round().long()
    away = torch.cdist(place, place)
    rings = F.one_hot(hops).double()  # (P, P, K)
    found: dict[str, Tensor] = {}

    def hear(name: str, query: Tensor, key: Tensor, value: Tensor, tiles: Iterator[Tile]) -> None:
        del value
        extra = key.shape[2] - len(place)
        if extra < 0:
            raise ValueError(f"grid: expected at most {key.shape[2]} patches, got {rows} x {columns}")
        total = torch.zeros(query.shape[1], rings.shape[-1] + 1, dtype=torch.float64)
        for tile in tiles:
            total += _masses(tile, extra, rings, away)
        found[name] = total / (len(images) * len(place))

    with evaluating(model), listening(model, hear):
        if hugging.is_transformers(model):
            model(images)
        else:
            model.features(images)  # type: ignore[operator]
    if not found:
        raise ValueError("model: expected a mechanism that has weights")
    both = torch.stack(list(found.values()))
    return SpatialProfile(list(found), both[..., :-1], both[..., -1])


def _masses(tile: Tile, extra: int, rings: Tensor, away: Tensor) -> Tensor:
    """Return a tile's sums over its patches of the mass in each ring and of the distance, (H, K + 1)."""
    skip = max(0, extra - tile.start)
    weights = tile.weights[:, :, skip:, extra:].double().abs()
    first = tile.start + skip - extra
    mine = slice(first, first + weights.shape[2])
    shares = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    masses = torch.einsum("bhpq,pqk->hk", shares, rings[mine])
    return torch.cat([masses, torch.einsum("bhpq,pq->h", shares, away[mine])[:, None]], -1)


def _grid(model: Any) -> tuple[int, int]:
    """Return rows and columns of a model's patches."""
    if hasattr(model, "grid"):
        return model.grid  # type: ignore[no-any-return]
    config = getattr(model, "config", None)
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if image is None or patch is None:
        raise ValueError("grid: expected rows and columns, since the model does not say them")
    (height, width), (tall, wide) = (x if isinstance(x, (tuple, list)) else (x, x) for x in (image, patch))
    return height // tall, width // wide
