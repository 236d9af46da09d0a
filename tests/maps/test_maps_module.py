"""create_map: options by name, learnt or not, the facts that backends read, and the functions beside a map."""

from __future__ import annotations

import dataclasses
import inspect
import pickle

import pytest
import torch
from map_cases import CASES, WEIGHTS, named, random_mask, scores

import manymax as mm
from manymax.maps.registry import COMPANIONS, MAPS

KINDS = {
    "pointwise": {"relu", "sigmoid", "squared_relu"},
    "ratio": {
        *("softmax", "softmax1", "softplus", "stablemax"),
        *("power_softmax", "spherical_softmax", "taylor_softmax"),
    },
    "threshold": {"clipped_softmax", "entmax", "entmax15", "sparsemax", "topk_softmax"},
    "coupled": {"normalized", "sinkhorn"},
}


def test_every_map_has_its_kind():
    assert mm.list_maps() == sorted(set.union(*KINDS.values()))
    for kind, names in KINDS.items():
        assert {mm.create_map(name).kind for name in names} == {kind}


@pytest.mark.parametrize("case", named(CASES))
def test_module_equals_function(case):
    module = mm.create_map(case.name, **case.options)
    x, mask = scores(3, 4, 5), random_mask(4, 5)
    assert torch.equal(module(x, 1, mask=mask), case(x, 1, mask=mask))
    assert torch.equal(pickle.loads(pickle.dumps(module))(x, 1, mask=mask), case(x, 1, mask=mask))
    assert module.sums_to_one == case.sums
    assert not list(module.parameters())


@pytest.mark.parametrize("name", sorted(MAPS))
def test_function_and_rule_have_the_same_options(name):
    entry = MAPS[name]
    parameters = inspect.signature(entry.function).parameters
    options = {key: value.default for key, value in parameters.items() if key not in {"x", "dim", "mask", "out"}}
    rule = entry.rule()
    assert options == dataclasses.asdict(rule)


def test_sums_depend_on_options():
    assert not mm.create_map("power_softmax", eps=torch.tensor(0.0)).sums_to_one
    assert not mm.create_map("clipped_softmax", gamma=torch.tensor(0.0)).sums_to_one
    assert not mm.create_map("clipped_softmax", zeta=1.1, gamma=0.0).sums_to_one


def test_parameters_are_learnt_and_tensors_follow_the_module():
    alpha = torch.nn.Parameter(torch.tensor([1.2, 1.8]).view(2, 1, 1))
    module = mm.create_map("entmax", alpha=alpha, temperature=torch.tensor(2.0))
    assert dict(module.named_parameters()).keys() == {"alpha"}
    assert module.state_dict().keys() == {"alpha", "temperature"}
    x = scores(3, 2, 4, 5, dtype=torch.float32)
    module(x)[..., 0].sum().backward()
    assert (alpha.grad != 0).all()
    assert module.double()(x.double()).dtype == torch.float64
    other = mm.create_map("entmax", alpha=torch.nn.Parameter(torch.ones(2, 1, 1)), temperature=torch.tensor(1.0))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), pickle.loads(pickle.dumps(module))(x))
    torch.testing.assert_close(other(x), module(x))


def test_a_learnt_alpha_that_leaves_its_range_says_so():
    module = mm.create_map("entmax", alpha=torch.nn.Parameter(torch.tensor(1.1)))
    with torch.no_grad():
        module.alpha -= 0.2
    with pytest.raises(ValueError, match=r"^alpha: expected a number of at least 1"):
        module(torch.zeros(3))


def test_learning_alpha_reaches_a_target():
    x, raw = scores(20, 6, seed=3), torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    target = mm.entmax(x, 1.7)
    optimizer = torch.optim.LBFGS([raw], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (mm.entmax(x, 1 + raw.exp()) - target).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert abs(1 + raw.exp().item() - 1.7) < 1e-5


def test_representation():
    assert repr(mm.create_map("topk_softmax", k=3, temperature=torch.tensor(2.0))) == "Map(topk_softmax, k=3)"
    assert repr(mm.create_map("logsumexp", keepdim=True)) == "Companion(logsumexp, keepdim=True)"


@pytest.mark.parametrize("name", sorted(COMPANIONS))
def test_companions(name):
    module = mm.create_map(name, temperature=torch.nn.Parameter(torch.tensor(0.5)))
    x, mask = scores(3, 4, dtype=torch.float32), random_mask(3, 4)
    assert module.kind == "ratio"
    assert not module.sums_to_one
    with pytest.raises(ValueError, match=f"^map: expected one that returns weights, got '{name}'"):
        module.rule()  # which is how attention takes a map
    torch.testing.assert_close(module(x, 0, mask=mask), getattr(mm, name)(x, 0, mask=mask, temperature=0.5))
    assert [key for key, _ in module.named_parameters()] == ["temperature"]
    assert name not in mm.list_maps()
    assert getattr(mm, name) in MAPS[name.removeprefix("log_").replace("logsumexp", "softmax")].companions


def test_companion_options():
    x = scores(2, 3)
    assert torch.equal(mm.create_map("logsumexp", keepdim=True)(x, (0, 1)), torch.logsumexp(x, (0, 1), keepdim=True))
    with pytest.raises(TypeError, match="log_softmax has no option 'temprature'; it has temperature; did you mean"):
        mm.create_map("log_softmax", temprature=2.0)


def test_misspelt_names():
    with pytest.raises(ValueError, match=r"^name: expected one of .*, got 'sofmax'; did you mean 'softmax'\?$"):
        mm.create_map("sofmax")
    with pytest.raises(ValueError, match=r"did you mean 'log_softmax'\?$"):
        mm.create_map("logsoftmax")
    with pytest.raises(TypeError, match=r"topk_softmax has no option 'kk'; it has temperature, k"):
        mm.create_map("topk_softmax", kk=3)
    with pytest.raises(TypeError, match="no option 'out'"):
        mm.create_map("log_softmax", out=torch.zeros(3))


def test_weights_are_public_under_their_names():
    for case in WEIGHTS:
        assert getattr(mm, case.name) is MAPS[case.name].function
