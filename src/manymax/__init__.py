"""manymax: everything that turns scores into weights, for PyTorch.

`import manymax as mm` loads nothing; the first use of a name loads all of them, and torch with them. So the command
line answers `--help` in 50 ms instead of the second that torch takes to import.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manymax._public import *  # noqa: F403

__version__ = "0.1.0"
_ROOMS = ("integrations", "nn")  # whose public names are reached through them


class _Package(ModuleType):
    """The package, with the names of `_public` looked up on first use."""

    def __getattr__(self, name: str) -> Any:
        """Load a public name."""
        if name in _ROOMS:
            return import_module(f"manymax.{name}")
        if name == "__all__" or not name.startswith("_"):
            public = import_module("manymax._public")
            if name in {"__all__", *public.__all__}:
                value = getattr(public, name)
                super().__setattr__(name, value)
                return value
        raise AttributeError(f"module 'manymax' has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep `mm.attention` the function: importing the room of that name would put the package in its place."""
        if name == "attention" and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_ROOMS, *import_module("manymax._public").__all__})


sys.modules[__name__].__class__ = _Package
