"""The same numbers and no more threads than cores, for every test."""

import os

import pytest
import torch


def pytest_configure():
    # `make test` runs two workers; two threads each on two cores would wait for each other.
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
