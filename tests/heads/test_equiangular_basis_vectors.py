"""Vectors of which no two are near, and a head that has nothing but them."""

import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.spherical_code import coherence, ebv_generate, welch_bound


def test_the_bound_is_welchs():
    assert welch_bound(3, 2) == pytest.approx(math.cos(math.pi / 3))  # lines at 60 degrees
    assert welch_bound(6, 3) == pytest.approx(5**-0.5)  # an icosahedron's diagonals
    assert welch_bound(5, 5) == welch_bound(2, 5) == 0


def test_coherence_is_the_largest_cosine():
    rows = torch.randn(9, 4, dtype=torch.float64)
    pairs = [abs(float(F.cosine_similarity(rows[i], rows[j], 0))) for i in range(9) for j in range(i)]
    for size in (None, 1, 4):
        assert coherence(7 * rows, chunk_size=size) == pytest.approx(max(pairs))
    assert coherence(rows[:1]) == 0


@pytest.mark.parametrize(("count", "dim"), [(3, 2), (7, 6), (20, 8), (100, 32), (6, 3)])
def test_generated_vectors_keep_the_bound(count, dim):
    rows = ebv_generate(count, dim)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(count))
    assert welch_bound(count, dim) - 1e-6 <= coherence(rows) <= 1.2 * welch_bound(count, dim) + 1e-6
    assert coherence(ebv_generate(count, dim, alpha=0.9)) <= 0.9 + 1e-6


@pytest.mark.parametrize(("count", "dim"), [(8, 8), (3, 8), (1, 5)])
def test_few_vectors_are_orthonormal(count, dim):
    rows = ebv_generate(count, dim)
    torch.testing.assert_close(rows @ rows.T, torch.eye(count))


def test_vectors_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = ebv_generate(20, 8)
    state = torch.random.get_rng_state()
    assert torch.equal(first, ebv_generate(20, 8))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(first, ebv_generate(20, 8, seed=1))
    torch.testing.assert_close(ebv_generate(20, 8, steps=20, chunk_size=3), ebv_generate(20, 8, steps=20))


def test_the_best_rows_are_returned_where_steps_run_out():
    found = [coherence(ebv_generate(60, 8, steps=steps)) for steps in range(60)]
    assert found == sorted(found, reverse=True)  # the largest of a step's products may rise again
    assert found[0] > found[5] > found[-1] > 1.2 * welch_bound(60, 8)


def test_no_step_looks_at_no_products(monkeypatch):
    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr("manymax.heads.spherical_code._between", refuse)
    head = mm.create_head("equiangular-basis-vectors", in_features=64, num_classes=50_000)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(50_000))


def test_the_loss_is_the_papers():
    head = mm.create_head(
        "equiangular-basis-vectors", in_features=4, num_classes=6, temperature=0.2, reduction="none"
    ).double()
    x, target = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 6
    cosine = F.normalize(x, dim=1) @ head.weight.T
    torch.testing.assert_close(
        head(x, target), F.cross_entropy(cosine / 0.2, target, reduction="none"), rtol=1e-6, atol=0
    )
    assert torch.equal(head.predict(x), cosine.argmax(1))
    default = mm.create_head("equiangular-basis-vectors", in_features=4, num_classes=6)
    assert default.scale == pytest.approx(1 / 0.07)


def test_the_head_has_nothing_to_learn():
    head = mm.create_head("equiangular-basis-vectors", in_features=4, num_classes=6)
    assert list(head.parameters()) == []
    assert list(head.state_dict()) == ["weight"]
    assert coherence(head.weight) <= 1.2 * welch_bound(6, 4)
    x = torch.randn(3, 4, requires_grad=True)
    head(x, torch.arange(3)).backward()
    assert x.grad.abs().sum() > 0


def test_vectors_may_be_given():
    vectors = torch.randn(6, 4)
    head = mm.create_head("equiangular-basis-vectors", in_features=4, num_classes=6, vectors=vectors)
    torch.testing.assert_close(head.weight, F.normalize(vectors, dim=1))
    with pytest.raises(ValueError, match=r"vectors: expected \(6, 4\), got \(4, 6\)"):
        mm.create_head("equiangular-basis-vectors", in_features=4, num_classes=6, vectors=vectors.T)


def test_many_vectors_take_seconds_and_few_steps(monkeypatch):
    monkeypatch.setattr("manymax.heads.equiangular_basis_vectors.PRODUCTS", 2 * 30 * 30 * 8 * 5)
    head = mm.create_head("equiangular-basis-vectors", in_features=8, num_classes=30)
    torch.testing.assert_close(head.weight, ebv_generate(30, 8, steps=5))
    other = mm.create_head("equiangular-basis-vectors", in_features=8, num_classes=30, steps=7, alpha=0.4, seed=3)
    torch.testing.assert_close(other.weight, ebv_generate(30, 8, steps=7, alpha=0.4, seed=3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"count": 0, "dim": 2}, "count: expected at least 1, got 0"),
        ({"count": 2, "dim": 0}, "dim: expected at least 1, got 0"),
        ({"count": 3, "dim": 2, "steps": -1}, "steps: expected at least 0, got -1"),
        ({"count": 3, "dim": 2, "alpha": 0.4}, "alpha: expected at least 0.5, the Welch bound of 3 and 2, got 0.4"),
    ],
)
def test_bad_sizes(call, words):
    with pytest.raises(ValueError, match=words):
        ebv_generate(**call)


def test_bad_temperature():
    with pytest.raises(ValueError, match="temperature: expected a number above 0, got 0"):
        mm.create_head("equiangular-basis-vectors", in_features=4, num_classes=3, temperature=0)
