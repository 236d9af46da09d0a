"""A transformers model from a folder, and a text cut into its samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manymax._extras import require


def load(folder: Path) -> tuple[Any, Any]:
    """Return a model of the architecture that its configuration names, in float32, and its tokenizer.

    Nothing is fetched, and no code of the folder runs.

    Raises:
        ValueError: if the folder holds no model or no tokenizer.
        ImportError: if transformers is missing.
    """
    library = require("transformers", "transformers")
    try:
        config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
        known = [getattr(library, name, None) for name in getattr(config, "architectures", None) or []]
        kind = next((one for one in known if one is not None), library.AutoModel)
        model = kind.from_pretrained(folder, config=config, local_files_only=True, dtype=torch.float32)
        return model.eval(), library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model: expected a folder of a transformers model and its tokenizer, got {folder}: {first}"
        ) from error


def batches(
    model: Any, tokenizer: Any, text: str, length: int, samples: int, batch_size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield a text's samples as a model's arguments; special tokens stand where the tokenizer puts them.

    Args:
        model: it says how long a sample may be.
        tokenizer: a fast one.
        text: what to read.
        length: tokens of a sample.
        samples: how many at most; the text is cut into pieces one after another.
        batch_size: samples at a time.

    Raises:
        ValueError: if the text is too short for two tokens.
    """
    longest = getattr(model.config, "max_position_embeddings", None) or length
    length = min(length, longest, tokenizer.model_max_length)
    cut = tokenizer(
        text[: 40 * length * samples],  # far more than is needed, far less than a library
        truncation=True,
        max_length=length,
        return_overflowing_tokens=True,
        return_special_tokens_mask=False,
    )
    pieces = [ids for ids in cut["input_ids"][:samples] if len(ids) > 1]
    if not pieces:
        raise ValueError(f"text: expected at least two tokens, got {text[:40]!r}")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    for start in range(0, len(pieces), batch_size):
        chosen = pieces[start : start + batch_size]
        ids = torch.full((len(chosen), max(map(len, chosen))), pad)
        keep = torch.zeros_like(ids)
        for row, piece in enumerate(chosen):
            ids[row, : len(piece)], keep[row, : len(piece)] = torch.tensor(piece), 1
        given = {"input_ids": ids, "attention_mask": keep}
        yield given | ({"labels": ids.masked_fill(keep == 0, -100)} if model.config.is_encoder_decoder else {})
