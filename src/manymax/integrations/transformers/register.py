"""The names under which transformers finds manymax, and the models that would not look."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from manymax._extras import require
from manymax.integrations.transformers.attend import attend
from manymax.integrations.transformers.masks import make_mask
from manymax.maps.registry import MAPS

PREFIX = "manymax"


def implementations() -> list[str]:
    """Return the names to give as `attn_implementation`: "manymax", which is softmax, and "manymax:" with each map.

    Example:
        >>> import manymax as mm
        >>> mm.integrations.transformers.implementations()[:2]
        ['manymax', 'manymax:clipped_softmax']
    """
    return [PREFIX, *(f"{PREFIX}:{name}" for name in sorted(MAPS))]


def register() -> None:
    """Register every name of `implementations` with transformers; importing the module has done so.

    From then on `from_pretrained(..., attn_implementation="manymax")` and
    `model.set_attn_implementation("manymax:sigmoid")` work, and raise for a model whose layers do not ask transformers
    which attention to call: they would go on with their own.

    Example:
        >>> import manymax as mm
        >>> mm.integrations.transformers.register()
        >>> from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        >>> "manymax:entmax15" in ALL_ATTENTION_FUNCTIONS
        True
    """
    modeling = require("transformers.modeling_utils", "transformers")
    masking = require("transformers.masking_utils", "transformers")
    for name in implementations():
        _, _, chosen = name.partition(":")
        modeling.AttentionInterface.register(name, functools.partial(attend, map=chosen or "softmax"))
        masking.AttentionMaskInterface.register(name, functools.partial(make_mask, masking))
    model = modeling.PreTrainedModel
    _guard(model, "get_correct_attn_implementation", lambda self: [self])
    _guard(model, "set_attn_implementation", lambda self: [m for m in self.modules() if isinstance(m, model)])


def _guard(model: Any, name: str, asked: Callable[[Any], list[Any]]) -> None:
    """Let a method of transformers' models refuse our names where it would accept them to no effect."""
    method = getattr(model, name)
    if hasattr(method, "manymax"):
        return

    @functools.wraps(method)
    def guarded(self: Any, implementation: Any, *args: Any, **kwargs: Any) -> Any:
        wanted = implementation.values() if isinstance(implementation, dict) else [implementation]
        ours = [x for x in wanted if isinstance(x, str) and x.partition(":")[0] == PREFIX]
        if ours and not isinstance(implementation, dict):
            for module in asked(self):
                _check(type(module), ours[0])
        return method(self, implementation, *args, **kwargs)

    guarded.manymax = True  # type: ignore[attr-defined]
    setattr(model, name, guarded)


def _check(kind: Any, name: str) -> None:
    """Refuse a class whose layers never ask for an attention function."""
    if not kind._can_set_attn_implementation():  # noqa: SLF001
        raise ValueError(
            f"attn_implementation: {name!r} would have no effect on {kind.__name__}, whose layers do not ask "
            f"transformers which attention to call; patch_sdpa works where they call torch's, or take 'eager'"
        )
