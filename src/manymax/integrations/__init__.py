"""manymax inside other libraries' models: one module for each library, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

_MODULES = ("timm", "transformers")


def __getattr__(name: str) -> ModuleType:
    """Load a module on first use, so that `mm.integrations.transformers` needs no import of its own."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
