"""The same numbers and no more threads than cores, for every test."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from manymax.kernels.native import native


def pytest_configure():
    _declare_torchvision()
    # `make test` runs two workers; two threads each on two cores would wait for each other.
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_collection_modifyitems(items):
    # kernels/test_isas.py runs "1/3", the second third of the tests, in a process of its own.
    part, _, parts = os.environ.get("MANYMAX_TEST_PART", "").partition("/")
    if parts:
        items[:] = items[int(part) :: int(parts)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def served():
    """Return what "auto" takes: the native kernels, or where they are not built what the test names."""
    return lambda otherwise: otherwise if native() is None else "cpu"


def _declare_torchvision():
    """Let torchvision be imported beside a torch without CUDA: on PyPI its compiled part is for CUDA alone.

    timm and transformers read its Python parts. Without its library the import stops at these two operators.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or torch.version.cuda is not None:
        return
    try:
        torch.ops.load_library(next(Path(spec.origin).parent.glob("_C*.so")))
    except (OSError, StopIteration):
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
