"""The same numbers and no more threads than cores, for every test."""

import os

import pytest
import torch

from manymax._extras import declare_torchvision
from manymax.kernels.native import native


def pytest_configure():
    declare_torchvision()
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
