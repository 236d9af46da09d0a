"""The examples in docstrings of models run."""

import doctest
import importlib
import pkgutil

import pytest

from manymax import models

MODULES = [f"manymax.models.{module.name}" for module in pkgutil.iter_modules(models.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failed
    if name.rpartition(".")[2] in {"galerkin_transformer", "gpt", "operators", "transnormer_llm", "vit"}:
        assert tried
