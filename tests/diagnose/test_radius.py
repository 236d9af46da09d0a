import cmath
import math

import pytest
import torch

import manymax as mm
from manymax.models.gpt import GPT


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()


def step(model, scale=0.1):
    torch.manual_seed(9)
    return [scale * torch.randn_like(x) for x in model.parameters()]


def test_the_radius_is_pi_over_the_largest_spread():
    model, x = network(), torch.randn(5, 3, dtype=torch.float64)
    direction = step(model)
    length = math.sqrt(sum(float((d**2).sum()) for d in direction))
    spreads = []
    for row in x:  # gradients of each score by themselves
        slopes = []
        for k in range(4):
            grads = torch.autograd.grad(model(row)[k], list(model.parameters()))
            slopes.append(sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True)) / length)
        spreads.append(max(slopes) - min(slopes))
    exact = mm.diagnose.step_radius(model, x, direction)
    assert exact.radius == pytest.approx(math.pi / max(spreads))
    assert exact.length == pytest.approx(length)
    assert exact.ratio == pytest.approx(length * max(spreads) / math.pi)
    difference = mm.diagnose.step_radius(model, x, direction, derivative="difference")
    assert difference.ratio == pytest.approx(exact.ratio, rel=1e-5)


@pytest.mark.parametrize(("gap", "spread"), [(0.0, 2.0), (1.5, 0.7), (-3.0, -0.2)])
def test_the_binary_radius_is_where_the_partition_function_is_zero(gap, spread):
    radius = mm.diagnose.binary_radius(gap, spread)
    zeros = [(1j * math.pi * odd - gap) / spread for odd in (-3, -1, 1, 3)]
    assert all(abs(1 + cmath.exp(gap + t * spread)) < 1e-12 for t in zeros)
    assert radius == pytest.approx(min(map(abs, zeros)))
    assert radius >= math.pi / abs(spread) * (1 - 1e-12)


def test_language_models_by_differences():
    model = GPT(vocabulary=16, depth=1)
    tokens = torch.randint(16, (2, 6))
    found = mm.diagnose.step_radius(
        model, tokens, step(model), read=lambda model, x: model.logits(x), derivative="difference"
    )
    assert 0 < found.ratio < math.inf


def test_batch_statistics_do_not_change():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    before = model[1].running_mean.clone()
    mm.diagnose.step_radius(model, torch.randn(6, 3), step(model))
    assert torch.equal(model[1].running_mean, before)
    assert int(model[1].num_batches_tracked) == 0


@pytest.mark.parametrize("r_max", [1.0, 0.25])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_the_controller_cuts_the_learning_rate(kind, r_max):
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(4, (20,))

    def after(rate, controlled):
        model = network()
        plain = getattr(torch.optim, kind)(model.parameters(), lr=rate)
        optimizer = mm.diagnose.RadiusController(plain, model, r_max=r_max) if controlled else plain
        torch.nn.functional.cross_entropy(model(x), y).backward()
        ratio = optimizer.step(x) if controlled else optimizer.step()
        return model, optimizer, ratio

    model, optimizer, ratio = after(50.0, controlled=True)
    assert ratio > 1
    assert optimizer.scale == pytest.approx(r_max / ratio)
    same, _, _ = after(50.0 * optimizer.scale, controlled=False)
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    taken = [p - q for p, q in zip(model.parameters(), network().parameters(), strict=True)]
    assert mm.diagnose.step_radius(network(), x, [t.detach() for t in taken]).ratio == pytest.approx(r_max)
    _, optimizer, ratio = after(1e-5, controlled=True)
    assert ratio < r_max
    assert optimizer.scale == 1


def test_a_step_that_is_not_finite_is_not_taken():
    model = network()
    optimizer = mm.diagnose.RadiusController(torch.optim.SGD(model.parameters(), lr=1.0), model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    assert optimizer.step(torch.ones(1, 3, dtype=torch.float64)) == math.inf
    assert optimizer.scale == 0
    for parameter, other in zip(model.parameters(), network().parameters(), strict=True):
        assert torch.equal(parameter, other)
    optimizer.zero_grad()
    assert model[0].weight.grad is None


def test_the_state_is_the_optimisers():
    model = network()
    inner = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer = mm.diagnose.RadiusController(inner, model)
    optimizer.param_groups[0]["lr"] = 0.5
    state = optimizer.state_dict()
    assert state["param_groups"][0]["lr"] == 0.5
    inner.param_groups[0]["lr"] = 0.1
    optimizer.load_state_dict(state)
    assert inner.param_groups[0]["lr"] == 0.5


def test_refusals():
    model, x = network(), torch.zeros(1, 3, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="r_max: expected a number above 0, got 0"):
        mm.diagnose.RadiusController(optimizer, model, r_max=0)
    with pytest.raises(ValueError, match="optimizer: expected one of the model's parameters"):
        mm.diagnose.RadiusController(optimizer, network())
    with pytest.raises(ValueError, match="direction: expected shapes"):
        mm.diagnose.step_radius(model, x, step(model)[1:])
    with pytest.raises(TypeError, match="derivative: expected 'exact' or 'difference', got 'guess'"):
        mm.diagnose.step_radius(model, x, step(model), derivative="guess")
    assert mm.diagnose.step_radius(model, x, [0 * d for d in step(model)]).radius == math.inf
