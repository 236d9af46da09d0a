"""The list of tasks: one line each, and how to make one by name."""

from __future__ import annotations

from typing import Any

from manymax._names import closest
from manymax.data.digits import Digits
from manymax.data.listops import ListOps
from manymax.data.modular import Modular
from manymax.data.recall import Recall
from manymax.data.regular import Regular
from manymax.data.task import Task
from manymax.data.text import Text
from manymax.data.triples import Triples
from manymax.data.words import Library, Words

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Digits, Library, ListOps, Modular, Recall, Regular, Text, Triples, Words)
}


def list_tasks() -> list[str]:
    """Return the names of all tasks.

    Example:
        >>> from manymax.data.registry import list_tasks
        >>> "text" in list_tasks()
        True
    """
    return sorted(TASKS)


def create_task(name: str, **options: Any) -> Task:
    """Create a task by name.

    Args:
        name: one of `list_tasks()`.
        **options: the task's own options.

    Returns:
        A task with `.batch(split, index, batch_size, seed=0)` and `.evaluation(batch_size)`.

    Raises:
        FileNotFoundError: if the task reads files and they are not there.
        TypeError: if the task has no such option.
        ValueError: if the name is unknown or an option's value is out of range.

    Example:
        >>> from manymax.data.registry import create_task
        >>> inputs, targets = create_task("modular", modulus=7).batch("train", 0, 4)
        >>> inputs.shape, targets.shape
        (torch.Size([4, 3]), torch.Size([4, 3]))
    """
    if name not in TASKS:
        raise ValueError(f"name: expected one of {', '.join(TASKS)}, got {name!r}{closest(name, list(TASKS))}")
    known = TASKS[name].options()
    for key in options:
        if key not in known:
            raise TypeError(f"{name} has no option {key!r}; it has {', '.join(known)}{closest(key, known)}")
    return TASKS[name](**options)
