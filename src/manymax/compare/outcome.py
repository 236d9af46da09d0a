"""What an exception means for the candidate that raised it."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

# The CPU allocator raises a plain RuntimeError.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def of_error(error: BaseException) -> tuple[str, str]:
    """Return the status and the message of an exception."""
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    ):
        return "out of memory", first
    if isinstance(error, (ValueError, TypeError, NotImplementedError)):
        return "unsupported", first
    return "crashed", f"{type(error).__name__}: {first}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return where the exception was raised, as " (file.py, line 3)"."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
