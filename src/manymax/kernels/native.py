"""The compiled module, or the reason why there is none."""

from __future__ import annotations

import functools
import os
from importlib import import_module
from typing import TYPE_CHECKING

import torch  # noqa: F401  # before _cpu, which takes OpenMP from the runtime that torch loads

if TYPE_CHECKING:
    from types import ModuleType


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    """Return the module and its instruction set, or None and why it is missing."""
    wanted = os.environ.get("MANYMAX_ISA", "")
    if wanted == "none":
        return None, "native CPU kernels are switched off by MANYMAX_ISA=none"
    try:
        module = import_module("manymax.kernels._cpu")
    except ModuleNotFoundError:
        return None, _why_not_built()
    except ImportError as error:
        return None, f"the native CPU kernels do not load: {error}"
    if not module.isas():
        return None, "the native CPU kernels need a processor with AVX2 or NEON"
    return module, f"native CPU kernels for {module.choose(wanted)}"


def _why_not_built() -> str:
    try:
        reason: str = import_module("manymax.kernels._missing").REASON
    except ModuleNotFoundError:
        return "the native CPU kernels are not built; run: pip install ."
    return reason


def native() -> ModuleType | None:
    """Return the compiled module, or None."""
    return _load()[0]


def status() -> str:
    """Say which instruction set the native CPU kernels use, or why there are none.

    Raises:
        ValueError: if the environment variable MANYMAX_ISA names an instruction set that this machine cannot run.

    Example:
        >>> from manymax import kernels
        >>> "native CPU kernels" in kernels.status()
        True
    """
    return _load()[1]
