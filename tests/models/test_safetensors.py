"""Files of weights, byte by byte."""

import json
import struct

import pytest
import torch

from manymax.models.safetensors import read_safetensors


def write(path, entries, data, header=None):
    text = json.dumps(entries).encode() if header is None else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_every_dtype_and_shape_is_read(tmp_path):
    entries = {
        "__metadata__": {"format": "pt"},
        "f64": {"dtype": "F64", "shape": [1, 2], "data_offsets": [0, 16]},
        "f32": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
        "f16": {"dtype": "F16", "shape": [2, 1], "data_offsets": [24, 28]},
        "bf16": {"dtype": "BF16", "shape": [], "data_offsets": [28, 30]},
        "i16": {"dtype": "I16", "shape": [1], "data_offsets": [30, 32]},
        "i64": {"dtype": "I64", "shape": [1], "data_offsets": [32, 40]},
        "bool": {"dtype": "BOOL", "shape": [3], "data_offsets": [40, 43]},
        "none": {"dtype": "F32", "shape": [0, 4], "data_offsets": [43, 43]},
        "u8": {"dtype": "U8", "shape": [1], "data_offsets": [43, 44]},
        "i8": {"dtype": "I8", "shape": [1], "data_offsets": [44, 45]},
        "i32": {"dtype": "I32", "shape": [1], "data_offsets": [45, 49]},
    }
    data = struct.pack("<2d2f2e", 1.5, -2.0, 0.25, 3.0, -0.5, 8.0) + bytes([0x80, 0x3F]) + struct.pack("<hq", -7, 2**40)
    data += bytes([1, 0, 1, 200, 200]) + struct.pack("<i", -(2**30))
    found = read_safetensors(write(tmp_path / "x", entries, data))
    expected = {
        "f64": torch.tensor([[1.5, -2.0]], dtype=torch.float64),
        "f32": torch.tensor([0.25, 3.0]),
        "f16": torch.tensor([[-0.5], [8.0]], dtype=torch.float16),
        "bf16": torch.tensor(1.0, dtype=torch.bfloat16),
        "i16": torch.tensor([-7], dtype=torch.int16),
        "i64": torch.tensor([2**40]),
        "bool": torch.tensor([True, False, True]),
        "none": torch.zeros(0, 4),
        "u8": torch.tensor([200], dtype=torch.uint8),
        "i8": torch.tensor([-56], dtype=torch.int8),
        "i32": torch.tensor([-(2**30)], dtype=torch.int32),
    }
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("entry", "data", "words"),
    [
        ({"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}, b"\0", "expected dtypes among F64.*got F8_E4M3"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, b"\0" * 7, "expected 2 numbers for x"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, b"\0" * 8, "expected 3 numbers for x"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, entry, data, words):
    with pytest.raises(ValueError, match=words):
        read_safetensors(write(tmp_path / "x", {"x": entry}, data))


@pytest.mark.parametrize(
    "content", [b"", b"\1", b"\xff" * 20, struct.pack("<Q", 2) + b"[]"[:1], b"\4" + b"\0" * 7 + b"null"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="expected a safetensors file, got"):
        read_safetensors(tmp_path / "x")
