"""Where four kinds of weights put their attention in a small language model (Gu et al., 2024)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.contests import on_text, seen
from manymax.data.text import Text
from manymax.diagnose.sink import attention_sink
from manymax.models.parts import sublayers

KINDS = ("softmax", "sigmoid", "normalised", "key_bias")


class Weighed(nn.Module):
    """Causal attention by one of the kinds, with all its weights at hand."""

    def __init__(self, kind: str, *, head_dim: int, num_heads: int) -> None:
        super().__init__()
        self.kind = kind
        self.key = nn.Parameter(0.02 * torch.randn(num_heads, head_dim)) if kind == "key_bias" else None

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Return weights (B, H, N, N); a learnt key takes its part of a row and is left out."""
        scores: Tensor = query @ key.mT * query.shape[-1] ** -0.5
        hidden = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
        if self.kind in {"sigmoid", "normalised"}:
            found = scores.sigmoid().masked_fill(hidden, 0.0)
            return found / found.sum(-1, keepdim=True) if self.kind == "normalised" else found
        scores = scores.masked_fill(hidden, -torch.inf)
        if self.key is None:
            return scores.softmax(-1)
        extra = query @ self.key[:, :, None] * query.shape[-1] ** -0.5
        return torch.cat([extra, scores], -1).softmax(-1)[..., 1:]

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = True
    ) -> Tensor:
        """Return the output (B, H, N, D)."""
        del attn_mask, is_causal
        return self.weights(query, key) @ value


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train the four kinds and count the heads that park their attention on the first token."""
    task = Text(length=numbers["length"])
    found = on_text({kind: partial(Weighed, kind) for kind in KINDS}, task, seed, numbers, progress)
    tokens, _ = task.batch("validation", 0, numbers["texts"], seed=seed)
    sinks = {kind: sink(learnt.model, tokens, numbers["epsilon"]) for kind, learnt in found.items()}
    heads = sum(each.size.num_heads for each in sublayers(found["softmax"].model))
    least = 1 / (heads * len(tokens))  # one head in one text: no smaller number than this can be told from none
    return {
        "softmax_sink": sinks["softmax"],
        "softmax_over_sigmoid": sinks["softmax"] / max(sinks["sigmoid"], least),
        "sigmoid_loss_ratio": found["sigmoid"].loss / found["softmax"].loss,
        "normalised_over_sigmoid": sinks["normalised"] / max(sinks["sigmoid"], least),
        "key_bias_over_softmax": sinks["key_bias"] / max(sinks["softmax"], least),
        "sigmoid_sink": sinks["sigmoid"],
        "normalised_sink": sinks["normalised"],
        "key_bias_sink": sinks["key_bias"],
        "softmax_loss": found["softmax"].loss,
    }


@torch.no_grad()
def sink(model: nn.Module, tokens: Tensor, epsilon: float) -> float:
    """Return the sink metric of a model whose mechanisms are `Weighed`, of each weight's share of its row.

    A learnt key's part counts in the row, as the weight that it takes is what keeps the first token free.
    """
    mechanisms: list[Weighed] = [each.mechanism for each in sublayers(model)]  # type: ignore[misc]
    layers = []
    for mechanism, (query, key) in zip(mechanisms, seen(model, tokens), strict=True):
        weights = mechanism.weights(query, key)
        layers.append(weights / weights.sum(-1, keepdim=True) if mechanism.kind == "sigmoid" else weights)
    return attention_sink(torch.stack(layers), epsilon=epsilon)
