"""What weights do inside a model. Names load on first use, so that the command line answers without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manymax.diagnose.activation_sums import weight_outliers
    from manymax.diagnose.diagnosis import Diagnosis
    from manymax.diagnose.logit_sums import softmax_collapse
    from manymax.diagnose.one_pass import run
    from manymax.diagnose.sink import attention_sink

_HOMES = {
    "Diagnosis": "diagnosis",
    "attention_sink": "sink",
    "run": "one_pass",
    "softmax_collapse": "logit_sums",
    "weight_outliers": "activation_sums",
}

__all__ = ["Diagnosis", "attention_sink", "run", "softmax_collapse", "weight_outliers"]


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
