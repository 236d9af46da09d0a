"""Optional packages: imported when needed, with an error that says how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import an optional module, or raise an ImportError that names the command that installs it.

    Args:
        module: dotted name, as in an import statement.
        extra: the extra of manymax that brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise ImportError(f"{module} is not installed; run: pip install 'manymax[{extra}]'") from error
