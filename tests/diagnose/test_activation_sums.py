import pytest
import scipy.stats
import torch

import manymax as mm
from manymax.diagnose.activation_sums import ActivationSums
from manymax.diagnose.logit_sums import LogitSums


def test_sums_over_batches_are_those_of_all_activations():
    torch.manual_seed(0)
    parts = [torch.randn(2, 5, 7) ** 3, torch.randn(3, 4, 7) + 1.5]
    sums = ActivationSums()
    for part in parts:
        sums.add(part)
    everything = torch.cat([part.flatten() for part in parts]).double()
    assert sums.kurtosis() == pytest.approx(scipy.stats.kurtosis(everything.numpy(), fisher=False), rel=1e-9)
    assert sums.numbers()["infinity_norm"] == pytest.approx(float(everything.abs().max()))
    ratios = [part.abs().max() / part.abs().mean() for part in parts]
    assert sums.ratio == pytest.approx(float(max(ratios)), rel=1e-5)


def test_padding_is_left_out_and_the_place_is_that_of_the_token():
    x = torch.ones(2, 4, 3)
    x[0, 0] = 1e6  # padding
    x[1, 2, 1] = -50.0
    keep = torch.ones(2, 4, dtype=torch.bool)
    keep[0, :2] = False
    sums = ActivationSums()
    sums.add(x, keep)
    assert sums.largest == 50
    assert sums.where == (2, 1)
    assert sums.count == 18


def test_an_outlier_is_a_thousand_times_the_mean():
    x = torch.zeros(1, 1, 3000)
    x[..., 0], x[..., 1] = 1.0, 0.4  # mean 1.4 / 3000: 2142 and 857 times
    sums = ActivationSums()
    sums.add(x)
    assert sums.numbers()["outliers"] == 1


def test_weight_outliers_are_sorted_and_found():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 5), torch.nn.Linear(5, 1))
    with torch.no_grad():
        model[1].weight[3, 2] = -40.0
    found = mm.diagnose.weight_outliers(model)
    assert [one.module for one in found] == ["1", "0"]
    column = model[1].weight[:, 2].detach().abs()
    assert (found[0].row, found[0].column) == (3, 2)
    assert found[0].ratio == pytest.approx(float(40 / column.mean()))


def test_logits_by_hand():
    logits = torch.tensor([[0.0, 40.0, 1.0], [3.0, 0.0, 0.0], [-50.0, 0.0, 2.0], [9.0, 9.0, 9.0]], dtype=torch.float64)
    targets = torch.tensor([1, 0, 0, -100])
    sums = LogitSums()
    sums.add(logits[None], targets[None])
    numbers = sums.numbers()
    exact = logits[:3].log_softmax(-1)[range(3), targets[:3]]
    assert numbers["loss"] == pytest.approx(float(-exact.mean()), rel=1e-6)
    assert numbers["target_probability"] == pytest.approx(float(exact.exp().mean()), rel=1e-6)
    assert numbers["no_gradient"] == pytest.approx(1 / 3)
    assert numbers["collapse"] == pytest.approx(1 / 3)
    assert numbers["accuracy"] == pytest.approx(2 / 3)
    assert numbers["largest_logit"] == 50
    assert numbers["radius"] == pytest.approx(torch.pi / 52)


def test_no_gradient_is_what_autograd_says_at_the_target():
    torch.manual_seed(2)
    logits = torch.randn(400, 5) * 30
    targets = logits.argmax(-1)
    targets[::3] = 0
    leaf = logits.clone().requires_grad_()
    torch.nn.functional.cross_entropy(leaf, targets, reduction="sum").backward()
    silent = leaf.grad.gather(-1, targets[:, None])[:, 0] == 0
    sums = LogitSums()
    sums.add(logits, targets)
    assert 0 < int(silent.sum()) < 400
    assert sums.silent == int(silent.sum())
