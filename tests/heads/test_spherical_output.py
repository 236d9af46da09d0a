"""The exact step of the spherical layer is that of a dense one, and stays so."""

import copy

import pytest
import torch
from spherical_cases import OPTIONS, RATES, Twin, dense_losses, drift, train_in_float32

from manymax.heads import factored


@pytest.mark.parametrize("name", OPTIONS)
def test_a_thousand_steps_are_those_of_dense_sgd(name, monkeypatch):
    monkeypatch.setattr(factored, "REBUILT", 400)  # 15 classes: after 6,000 of the 7,500 examples
    twin, worst = Twin(name), []
    state = twin.layer.factored
    before = state.rebuilds
    for step in range(1000):
        worst.append(twin.backward(*twin.batch(1 + step % 14)))  # fewer and more than the features
        twin.step(RATES[name])
    assert twin.difference() < 1e-12
    assert torch.stack(worst).max() < 1e-11
    assert state.rebuilds == before + 1
    weight = twin.weight.detach()
    torch.testing.assert_close(state.gram, weight.T @ weight, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(state.total, weight.sum(0), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(state.inverse @ state.factor, torch.eye(6).double(), rtol=0, atol=1e-10)


def test_singular_values_that_stray_are_set_back():
    twin = Twin("mse", classes=40)
    for _ in range(200):
        assert twin.backward(*twin.batch(3)) < 1e-11
        twin.step(0.05)
    state = twin.layer.factored
    assert state.corrections > 5
    assert state.factor.norm() < 100
    assert twin.difference() < 1e-12


def test_a_step_that_leaves_nothing_of_a_direction():
    twin = Twin("mse")
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert twin.backward(x, torch.tensor([4])) < 1e-12
    twin.step(1 / 18)  # 1 / (2 |x|^2): the factor is singular
    assert twin.difference() < 1e-12
    assert twin.layer.factored.corrections == 1
    for _ in range(20):
        assert twin.backward(*twin.batch(2)) < 1e-12
        twin.step(0.02)
    assert twin.difference() < 1e-12


@pytest.mark.parametrize("name", OPTIONS)
def test_float32_stays_stable(name, monkeypatch):
    monkeypatch.setattr(factored, "REBUILT", 10**9)
    layer, first, last = train_in_float32(name, 1000, classes=100)
    assert last < first
    assert drift(layer) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_float32_stays_stable_for_100_000_steps(name):
    layer, first, last = train_in_float32(name, 100_000, classes=5000)
    assert layer.factored.rebuilds == 10
    assert last < first
    assert drift(layer) < 1e-4


def test_rebuilding_ends_drift_and_keeps_the_weight():
    layer, *_ = train_in_float32("z", 100, classes=20)
    state, before = layer.factored, layer.weight
    state.gram += 0.1
    state.rebuild()
    assert drift(layer) < 1e-6
    assert torch.equal(state.factor, torch.eye(8))
    torch.testing.assert_close(layer.weight, before)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", OPTIONS)
def test_backward_passes_add_up_until_the_step(name, reduction):
    twin = Twin(name, reduction=reduction, ignore_index=3)
    for count in (3, 8):
        x, target = twin.batch(count)
        x, target = x.detach().view(1, count, 6).requires_grad_(), target.view(1, count)
        target[0, 1] = 3
        loss = twin.layer(x, target)
        kept = target != 3
        expected = torch.zeros(target.shape, dtype=x.dtype)
        expected[kept] = dense_losses(name, x[kept] @ twin.weight.T, target[kept])
        if reduction == "mean":
            expected = expected[kept].mean()
        elif reduction == "sum":
            expected = expected.sum()
        torch.testing.assert_close(loss, expected)
        direction = torch.rand(loss.shape, dtype=x.dtype)
        (found,) = torch.autograd.grad(loss, x, direction)
        torch.testing.assert_close(found, torch.autograd.grad(expected, x, direction, retain_graph=True)[0])
        expected.backward(direction)
    twin.step(0.05)
    assert twin.difference() < 1e-12
    before = twin.layer.weight
    twin.layer.step(0.05)  # nothing is left to step with
    assert torch.equal(twin.layer.weight, before)


def test_dropped_gradients_take_no_part():
    twin = Twin("z")
    before = twin.layer.weight
    twin.layer(*twin.batch(3)).backward()
    twin.layer.zero_grad()
    twin.layer.step(0.5)
    assert torch.equal(twin.layer.weight, before)


def test_no_target_is_no_loss():
    twin = Twin("z")
    x, _ = twin.batch(3)
    loss = twin.layer(x, torch.full((3,), -100))
    loss.backward()
    twin.layer.step(0.5)
    assert loss == 0
    assert (x.grad == 0).all()
    assert twin.difference() == 0


def test_it_learns_without_a_gradient_of_the_features_and_not_without_a_backward_pass():
    twin = Twin("taylor")
    x, target = twin.batch(5)
    with torch.no_grad():
        assert not twin.layer(x, target).requires_grad
    twin.backward(x, target)
    twin.step(0.1)
    expected = twin.layer.weight
    other = Twin("taylor")
    other.layer(x.detach(), target).backward()
    other.layer.step(0.1)
    torch.testing.assert_close(other.layer.weight, expected)


def test_a_model_trains_as_with_a_dense_layer():
    torch.manual_seed(1)
    twin, trunk = Twin("z"), torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh()).double()
    dense = copy.deepcopy(trunk)
    optimizers = [torch.optim.Adam(one.parameters()) for one in (trunk, dense)]
    for _ in range(30):
        x, target = torch.randn(7, 4, dtype=torch.float64), torch.randint(15, (7,))
        for optimizer in optimizers:
            optimizer.zero_grad()
        twin.layer(trunk(x), target).backward()
        dense_losses("z", dense(x) @ twin.weight.T, target).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        twin.step(0.3)
    assert twin.difference() < 1e-12
    torch.testing.assert_close(list(trunk.parameters()), list(dense.parameters()))
