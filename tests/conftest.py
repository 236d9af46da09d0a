"""The same numbers and no more threads than cores, for every test."""

import os

import pytest
import torch

from manymax.kernels.native import native


def pytest_configure():
    # `make test` runs two workers; two threads each on two cores would wait for each other.
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def served():
    """Return what "auto" takes: the native kernels, or where they are not built what the test names."""
    return lambda otherwise: otherwise if native() is None else "cpu"
