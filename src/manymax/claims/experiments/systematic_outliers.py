"""Softmax attention with and without an explicit scale for each token and head (An et al., 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from manymax.attention.dense.module import DenseAttention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.training import part, trained, validation_loss
from manymax.data.text import Text
from manymax.diagnose.diagnosis import Diagnosis
from manymax.diagnose.one_pass import run as diagnose
from manymax.models.gpt import GPT
from manymax.models.parts import sublayers

LEVELS = 127  # of 8 bits with a sign


class Scaled(DenseAttention):
    """Softmax attention whose output is multiplied by 2 sigmoid(W x + b), x being what the layer reads."""

    context: Tensor

    def __init__(self, *, head_dim: int, num_heads: int) -> None:
        super().__init__("softmax", head_dim=head_dim, num_heads=num_heads)
        self.gate = nn.Linear(head_dim * num_heads, num_heads)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Return the output (B, H, N, D)."""
        out = super().forward(query, key, value, attn_mask=attn_mask, is_causal=is_causal)
        scaled: Tensor = out * (2 * self.gate(self.context).sigmoid()).mT[..., None]
        return scaled


def make(attention: Any, numbers: Numbers) -> GPT:
    """Return a model whose scaled mechanisms are told what their layer reads."""
    model = GPT(256, depth=numbers["depth"], width=numbers["width"], attention=attention)

    def tell(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        layer.mechanism.context = arguments[0]  # type: ignore[union-attr]

    for layer in sublayers(model):
        if isinstance(layer.mechanism, Scaled):
            layer.register_forward_pre_hook(tell)
    return model


@contextmanager
def eight_bits(model: GPT) -> Iterator[None]:
    """Round weights and inputs of the blocks' linear layers to 8 bits with one scale a tensor."""
    layers = [layer for layer in model.blocks.modules() if isinstance(layer, nn.Linear)]
    before = [layer.weight.detach().clone() for layer in layers]
    handles = [layer.register_forward_pre_hook(lambda _, arguments: (rounded(arguments[0]),)) for layer in layers]
    for layer in layers:
        layer.weight.data.copy_(rounded(layer.weight.data))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer, weight in zip(layers, before, strict=True):
            layer.weight.data.copy_(weight)


def rounded(x: Tensor) -> Tensor:
    """Return x on 255 levels from -max |x| to max |x|."""
    step = x.abs().amax().clamp(min=torch.finfo(x.dtype).tiny) / LEVELS
    return (x / step).round() * step


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train both, look into them, and round them."""
    task = Text(length=numbers["length"])
    tokens, targets = task.batch("validation", 0, numbers["texts"], seed=seed)
    seen: dict[str, Diagnosis] = {}
    losses: dict[str, float] = {}
    rises: dict[str, float] = {}
    for index, (name, attention) in enumerate({"softmax": "softmax", "scaled": Scaled}.items()):
        tell = part(progress, name, index, 2)
        model = trained(lambda attention=attention: make(attention, numbers), task, seed, numbers, tell)  # type: ignore[misc]
        seen[name] = diagnose(model, [(tokens, targets)])
        losses[name] = validation_loss(model, task)
        with eight_bits(model):
            rises[name] = validation_loss(model, task) - losses[name]
    ours, theirs = (seen[name].summary() for name in ("scaled", "softmax"))
    return {
        "outlier_ratio": ours["largest_over_mean"] / theirs["largest_over_mean"],
        "sink_difference": ours["sink"] - theirs["sink"],
        "loss_ratio": losses["scaled"] / losses["softmax"],
        "quantisation_ratio": rises["scaled"] / max(rises["softmax"], 1e-9),
        "softmax_largest_over_mean": theirs["largest_over_mean"],
        "softmax_kurtosis": theirs["kurtosis"],
        "scaled_kurtosis": ours["kurtosis"],
        "softmax_sink": theirs["sink"],
        "softmax_quantisation": rises["softmax"],
    }
