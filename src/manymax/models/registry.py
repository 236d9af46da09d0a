"""The list of models: one line each, and how to make the one that reads a task."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from manymax._names import closest
from manymax.data.task import Task
from manymax.models.gpt import GPT
from manymax.models.l2vit import L2ViT
from manymax.models.vit import ViT

MODELS: dict[str, type[nn.Module]] = {"gpt": GPT, "l2vit": L2ViT, "vit": ViT}
READERS = {"gpt": ("gpt",), "vit": ("vit", "l2vit")}  # which models read the tasks of a family, its own first


def create_model(task: Task, *, family: str | None = None, **options: Any) -> Any:
    """Create the model that reads a task, with the sizes of the task's recipe unless given.

    Args:
        task: says which model, its vocabulary or image, and its classes.
        family: another model that reads the same inputs, with its own sizes: "l2vit" where the task says "vit".
        **options: the model's own options, such as `attention`, `head` and `depth`.

    Returns:
        A module with `forward(inputs, targets) -> loss`, `.logits(inputs)` and `.features(inputs)`.

    Raises:
        TypeError: if the model has no such option.
        ValueError: if an option's value does not fit, or the family does not read the task.

    Example:
        >>> from manymax.data.registry import create_task
        >>> from manymax.models.registry import create_model
        >>> task = create_task("modular", modulus=7)
        >>> create_model(task, depth=2).logits(task.batch("train", 0, 4)[0]).shape
        torch.Size([4, 3, 7])
    """
    family = task.family if family is None else family
    readers = READERS[task.family]
    if family not in readers:
        raise ValueError(f"family: expected one of {', '.join(readers)}, which read {task.name}, got {family!r}")
    model, sizes = MODELS[family], task.recipe.model if family == task.family else {}
    known = [name for name in inspect.signature(model).parameters if name not in task.model_options]
    for key in options:
        if key not in known:
            raise TypeError(f"{family} has no option {key!r}; it has {', '.join(known)}{closest(key, known)}")
    return model(**{**sizes, **options, **task.model_options})
