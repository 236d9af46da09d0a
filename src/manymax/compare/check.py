"""Is a plan what its author meant? Names, options and sizes, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from manymax.attention.module import create_attention, list_attentions
from manymax.compare.jobs import Order
from manymax.compare.subject import Subject
from manymax.heads.registry import create_head, list_heads

EXAMPLES = 2


def mistakes(subject: Subject, label: str) -> None:
    """Raise if a candidate's name or options, or the model's sizes are wrong.

    What has no options cannot be misspelt but in its name; if it still refuses to be built, it does not support the
    sizes, which is a result and no mistake. The baseline must support them.

    Raises:
        TypeError: if an option is unknown.
        ValueError: if a name is unknown or a value is out of range.
    """
    chosen = subject.plan.candidate(label)
    options = dict(chosen.options)
    known = list_attentions() if subject.plan.site == "attention" else list_heads()
    try:
        if chosen.system in known and not options:
            pass
        elif subject.plan.site == "attention":
            create_attention(chosen.system, head_dim=32, num_heads=1, **options)
        else:
            create_head(chosen.system, in_features=32, num_classes=2, **options)
    except ValueError as error:
        raise ValueError(f"candidates: {str(error).removeprefix('name: ')}") from error
    subject.draw(subject.plan.baseline, 0)


def perform(order: Order, subject: Subject, tell: Callable[[float], None]) -> dict[str, Any]:
    """Build the candidate's model and run it forwards on EXAMPLES examples."""
    del tell
    model = subject.model(str(order.candidate), 0)
    inputs, targets = subject.batch(0, 0)
    with torch.no_grad(), subject.precision():
        model(inputs[:EXAMPLES], targets[:EXAMPLES])
    return {"metrics": {"facts": subject.facts(model)}}
