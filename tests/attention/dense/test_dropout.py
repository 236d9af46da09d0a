"""Dropout of the backends that draw it themselves: reproducible, and fair."""

from dataclasses import replace

import pytest
import torch
from dense_cases import Case, arguments, use_small_tiles
from native_cases import needs_kernels
from torch.utils.checkpoint import checkpoint

import manymax as mm
from manymax.attention.dense.api import choice

pytestmark = pytest.mark.parametrize("backend", ["tiled", pytest.param("cpu", marks=needs_kernels)])


def dropped(backend, p, seed, **changes):
    torch.manual_seed(seed)
    given, leaves = arguments(replace(Case(queries=50, keys=40), **changes), torch.float32)
    assert choice(**given, dropout_p=p, backend=backend).name == backend
    return mm.attention(**given, dropout_p=p, backend=backend), leaves


def test_it_is_reproducible_and_moves_the_generator_by_one_draw(backend):
    first, _ = dropped(backend, 0.4, 7)
    after = torch.rand(3)
    again, _ = dropped(backend, 0.4, 7)
    assert torch.equal(first, again)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(7)
    torch.randint(2**62, ())
    assert torch.equal(after, torch.rand(3))
    assert not torch.equal(first, dropped(backend, 0.4, 8)[0])


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "softplus", "sparsemax"])
def test_it_keeps_the_mean_and_the_probability(name, backend, monkeypatch):
    use_small_tiles(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 4, 64, 8, generator=generator)
    value = torch.eye(64).expand(1, 4, 64, 64)  # the output is the weights
    whole = mm.attention(query, key, value, map=name)
    parts = torch.stack([mm.attention(query, key, value, dropout_p=0.3, map=name, backend=backend) for _ in range(150)])
    shown = whole > 1e-3
    assert abs((parts[:, shown] == 0).float().mean() - 0.3) < 0.007
    kept = parts[parts > 0] / whole.expand_as(parts)[parts > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7), rtol=1e-3, atol=0)
    assert ((parts[:, shown] == 0).float().mean(0) - 0.3).abs().max() < 6 * (0.21 / 150) ** 0.5
    assert (parts[0] == 0).ne(parts[1] == 0).any()


def test_dropping_all_gives_zeros(backend):
    out, leaves = dropped(backend, 1.0, 0)
    assert (out == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), list(leaves.values())))


def test_checkpoint_repeats_it(backend):
    given, leaves = arguments(Case(), torch.float32)

    def function(query):
        return mm.attention(**{**given, "query": query}, dropout_p=0.5, backend=backend)

    torch.manual_seed(1)
    (want,) = torch.autograd.grad(function(leaves["query"]).square().sum(), leaves["query"])
    torch.manual_seed(1)
    out = checkpoint(function, leaves["query"], use_reentrant=False)
    (got,) = torch.autograd.grad(out.square().sum(), leaves["query"])
    assert torch.equal(got, want)
