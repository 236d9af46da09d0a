"""Optional packages: imported when needed, with an error that says how to get them."""

from __future__ import annotations

import functools
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

READS_TORCHVISION = frozenset({"timm", "transformers"})


def require(module: str, extra: str) -> Any:
    """Import an optional module, or raise an ImportError that names the command that installs it.

    Args:
        module: dotted name, as in an import statement.
        extra: the extra of manymax that brings it.
    """
    package = module.split(".", maxsplit=1)[0]
    if package in READS_TORCHVISION:
        declare_torchvision()
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise ImportError(f"{module} is not installed; run: pip install 'manymax[{extra}]'") from error


@functools.cache
def declare_torchvision() -> None:
    """Let torchvision be imported beside a torch without CUDA: on PyPI its compiled part is for CUDA alone.

    timm and transformers read its Python parts, and fail with it. Without its library the import stops at two
    operators that nobody has defined; declared, they are there, and refuse to run.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    import torch  # noqa: PLC0415  # the command line asks for extras without it

    if torch.version.cuda is not None:
        return
    load: Any = torch.ops.load_library  # untyped in torch
    try:
        load(next(Path(spec.origin).parent.glob("_C*.so")))
    except (OSError, StopIteration):
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
