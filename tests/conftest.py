"""The same numbers and no more threads than cores, for every test."""

import os

import pytest
import torch


def pytest_configure():
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
