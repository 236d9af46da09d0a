"""Sigmoid against softmax on pairs, blocks against the whole, and the start (Zhai et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.functions import TextEncoder, functions, pieces
from manymax.claims.experiments.given import Given, perceptron
from manymax.claims.experiments.training import part, trained
from manymax.claims.experiments.views import Towers, halves
from manymax.compare.memory import peak_memory
from manymax.heads.cosine import unit
from manymax.heads.head import Head
from manymax.heads.registry import create_head
from manymax.heads.siglip import SigLIPHead

SHARE = 1e-12  # added to norms that divide


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train both losses at each size of batch, then measure blocks, memory and the start."""
    width, (small, middle, large) = numbers["width"], numbers["batches"]
    plain: dict[str, float] = {}
    contests = [(name, plain, batch) for batch in (small, middle, large) for name in ("siglip", "clip")]
    contests.append(("siglip", {"logit_bias": 0.0}, middle))
    recalls = []
    for index, (name, options, batch) in enumerate(contests):
        tell = part(progress, f"{name}, {batch}", index, len(contests) + 1)
        head = create_head(name, in_features=width, num_classes=1, **options)
        recalls.append(recall(head, batch, seed, numbers, tell))
    progress(len(contests) / (len(contests) + 1), "blocks")
    return {
        "recall_gain_16": recalls[0] - recalls[1],
        "recall_gain_64": recalls[2] - recalls[3],
        "block_difference": block_difference(seed, **numbers["blocks"]),
        "memory_ratio": memory_ratio(seed, **numbers["memory"]),
        "start_ratio": start_ratio(seed, **numbers["start"]),
        "softmax_recall_16": recalls[1],
        "softmax_recall_64": recalls[3],
        "recall_gain_256": recalls[4] - recalls[5],
        "recall_gain_no_bias_64": recalls[6] - recalls[3],
    }


def recall(head: Head, batch: int, seed: int, numbers: Numbers, progress: Progress) -> float:
    """Return the mean over both data sets of the recall at 1 of held-out pairs, each learnt from the head's start."""
    width, buckets = numbers["width"], numbers["buckets"]
    start = {key: value.clone() for key, value in head.state_dict().items()}
    found = []
    towers: list[tuple[Given, Callable[[], nn.Module]]] = [
        (halves(), partial(perceptron, 32, [2 * width], width)),
        (names(buckets, numbers["limit"]), partial(TextEncoder, buckets, width)),
    ]
    for index, (task, tower) in enumerate(towers):
        head.load_state_dict(start)
        tell = part(progress, ("digits", "functions")[index], index, 2)
        settings = {**numbers, "batch_size": batch}
        model: Towers = trained(partial(two, tower, head), task, seed, settings, tell)
        found.append(model.recall(task.validation))
    return sum(found) / len(found)


def two(tower: Callable[[], nn.Module], head: Head) -> Towers:
    """Return two new towers with a head."""
    return Towers(tower(), tower(), head)


def names(buckets: int, limit: int) -> Given:
    """Return docstrings and names of functions as pieces."""
    splits = [[each for each in functions() if each.held_out == held_out] for held_out in (False, True)]
    train, validation = (
        (pieces([each.doc for each in split], buckets, limit), pieces([each.name for each in split], buckets, limit))
        for split in splits
    )
    return Given(train, validation)


def _pairs(seed: int, count: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return random embeddings of two views."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, count, width, generator=generator, dtype=dtype).unbind()
    return x.requires_grad_(), y.requires_grad_()


def whole(head: SigLIPHead, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss with all pairs at once, as the formula has it."""
    scores = head.logit_scale.exp() * unit(x) @ unit(y).T + head.logit_bias
    signs = 2 * torch.eye(len(x), dtype=x.dtype) - 1
    return -F.logsigmoid(signs * scores).sum() / len(x)


def block_difference(seed: int, *, pairs: int, width: int, block: int) -> float:
    """Return the largest relative difference between blocks and the whole, of the loss and of each gradient."""
    x, y = _pairs(seed, pairs, width, torch.float64)
    head = SigLIPHead(width, 1, chunk_size=block).double()
    leaves = (x, y, head.logit_scale, head.logit_bias)
    expected, found = whole(head, x, y), head(x, torch.arange(pairs), candidates=y)
    ours, theirs = ((loss.detach(), *torch.autograd.grad(loss, leaves)) for loss in (found, expected))
    differences = [float((a - b).norm() / (b.norm() + SHARE)) for a, b in zip(ours, theirs, strict=True)]
    return max(differences)


def memory_ratio(seed: int, *, pairs: int, width: int, block: int) -> float | Untestable:
    """Return the peak memory of loss and gradients by blocks over that of the whole."""
    head = SigLIPHead(width, 1, chunk_size=block)
    target = torch.arange(pairs)
    peaks = []
    for blocks in (True, False):
        x, y = _pairs(seed, pairs, width)
        with peak_memory() as peak:
            torch.autograd.grad(head(x, target, candidates=y) if blocks else whole(head, x, y), (x, y))
        if peak.bytes is None:
            return Untestable("this system does not tell a process's peak memory")
        peaks.append(peak.bytes)
    return peaks[0] / max(peaks[1], 1)


@torch.no_grad()
def start_ratio(seed: int, *, pairs: int, width: int) -> float:
    """Return the first loss with a bias of -10 over that with 0."""
    x, y = _pairs(seed, pairs, width)
    low, plain = (
        float(SigLIPHead(width, 1, logit_bias=bias)(x, torch.arange(pairs), candidates=y)) for bias in (-10.0, 0.0)
    )
    return low / plain
