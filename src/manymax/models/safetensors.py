"""Reading the files in which trained weights are published."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
LENGTH = 8  # bytes that say how long the header is


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    The file is the length of a header, 8 bytes with the lowest first; the header, JSON with each tensor's dtype, shape
    and place; and the tensors one behind the other.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no such file, is cut short, or holds a dtype that torch is not read into here.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from manymax.models.safetensors import read_safetensors
        >>> header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "model.safetensors"
        ...     data = torch.tensor([1.0, 2.0]).numpy().tobytes()
        ...     written = path.write_bytes(len(header).to_bytes(8, "little") + header + data)
        ...     read_safetensors(path)
        {'x': tensor([1., 2.])}

    Source:
        The format's description at https://github.com/huggingface/safetensors.
    """
    path = Path(path)
    content = bytearray(path.read_bytes())
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    try:
        header = dict(json.loads(content[LENGTH:start] if start <= len(content) else b""))
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: expected a safetensors file, got {path}") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"path: expected dtypes among {', '.join(DTYPES)}, got {entry['dtype']} in {path}")
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        first, last = (start + offset for offset in entry["data_offsets"])
        if last > len(content) or last - first != prod(shape) * dtype.itemsize:
            raise ValueError(f"path: expected {prod(shape)} numbers for {name}, got {path} that ends or differs there")
        empty = first == last
        flat = torch.empty(0, dtype=dtype) if empty else torch.frombuffer(content[first:last], dtype=dtype)
        found[name] = flat.view(shape)
    return found
