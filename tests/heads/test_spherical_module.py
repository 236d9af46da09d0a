"""The spherical layer as a module: predictions, saving, types, costs and refusals."""

import copy

import pytest
import torch
from spherical_cases import OPTIONS, drift, train_in_float32
from torch.utils.flop_counter import FlopCounterMode

from manymax.heads.spherical_output import SphericalOutput


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_and_predictions_are_those_of_the_head_with_its_weight(name):
    layer, *_ = train_in_float32(name, 30, classes=12)
    x, target = torch.randn(2, 5, 8), torch.randint(12, (2, 5))
    head = layer.head()
    torch.testing.assert_close(layer.logits(x), head.logits(x))
    torch.testing.assert_close(layer(x, target), head(x, target))
    assert torch.equal(layer.predict(x), head.predict(x))
    assert layer.predict(x[:0]).shape == (0, 5)
    assert head.weight.requires_grad
    assert (head.reduction, head.ignore_index, head.loss) == (layer.reduction, layer.ignore_index, layer.loss)


def test_a_weight_can_be_set_and_is_copied():
    layer = SphericalOutput(3, 4, loss="mse")
    weight = torch.arange(12.0).view(4, 3)
    layer.weight = weight
    layer(torch.ones(1, 3), torch.tensor([1])).backward()
    layer.step(0.1)
    assert torch.equal(weight, torch.arange(12.0).view(4, 3))
    layer.weight = weight
    assert torch.equal(layer.weight, weight)
    assert drift(layer) < 1e-6
    with pytest.raises(ValueError, match=r"weight: expected \(4, 3\), got \(3, 4\)"):
        layer.weight = weight.T


def test_it_is_saved_loaded_and_copied_in_the_middle_of_training():
    layer, *_ = train_in_float32("taylor", 20, classes=500)
    assert not torch.equal(layer.factored.factor, torch.eye(8))
    other = SphericalOutput(8, 500, loss="taylor")
    other.load_state_dict(layer.state_dict())
    x, target = torch.randn(6, 8), torch.randint(500, (6,))
    for one in (layer, other, copy.deepcopy(layer)):
        one(x, target).backward()
        one.step(0.1)
        torch.testing.assert_close(one.weight, layer.weight)
    assert drift(layer) < 1e-5


def test_a_change_of_type_leaves_no_rounding_behind():
    layer, *_ = train_in_float32("z", 20, classes=50)
    assert drift(layer.double()) < 1e-14


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_of_other_types_are_converted(dtype):
    layer, *_ = train_in_float32("z", 20, classes=50)
    x, target = torch.randn(6, 8).to(dtype).requires_grad_(), torch.randint(50, (6,))
    loss = layer(x, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad.dtype == dtype
    assert layer.logits(x).dtype == dtype
    torch.testing.assert_close(loss, layer(x.float(), target), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"weight: expected torch.float32 or torch.float64, got torch.bfloat16"):
        layer.bfloat16()(x, target)


def test_autocast_leaves_it_alone():
    layer, *_ = train_in_float32("z", 20, classes=50)
    x, target = torch.randn(6, 8), torch.randint(50, (6,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x, target)
    assert torch.equal(found, layer(x, target))


def test_a_step_costs_the_same_for_any_number_of_classes():
    counts = []
    for classes in (20, 20_000):
        layer = SphericalOutput(8, classes)
        x, target = torch.randn(5, 8, requires_grad=True), torch.arange(5)
        with FlopCounterMode(display=False) as counter:
            layer(x, target).backward()
            layer.step(0.1)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_backward_after_the_step_is_refused():
    layer = SphericalOutput(3, 4)
    x, target = torch.randn(2, 3), torch.tensor([0, 1])
    early, late = layer(x, target), layer(x, target)
    early.backward()
    layer.step(0.1)
    with pytest.raises(RuntimeError, match="the weight has changed since the forward pass"):
        late.backward()


def test_training_that_diverges_ends_in_nan_and_not_in_an_error():
    layer = SphericalOutput(3, 4, loss="mse")
    for _ in range(200):
        layer(100 * torch.randn(2, 3), torch.tensor([0, 1])).backward()
        layer.step(10.0)
    assert not torch.isfinite(layer.weight).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes: expected at least 1, got 0"),
        ({"in_features": 0}, "in_features: expected at least 1, got 0"),
        ({"reduction": "max"}, "reduction: expected 'none', 'mean' or 'sum', got 'max'"),
        ({"loss": "softmax"}, "loss: expected one of z, mse, spherical, taylor, got 'softmax'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SphericalOutput(**({"in_features": 4, "num_classes": 3} | options))


def test_calls_that_do_not_fit_are_refused():
    layer, x, target = SphericalOutput(3, 4), torch.randn(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"input: expected \(\.\.\., 3\), got \(2, 2\)"):
        layer(x[:, :2], target)
    with pytest.raises(ValueError, match=r"target: expected torch.int64 of shape \(2,\), got torch.int32 of shape"):
        layer(x, target.int())
    with pytest.raises(ValueError, match=r"target: expected torch.int64 of shape \(2,\), got .* of shape \(1,\)"):
        layer(x, target[:1])
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 4\) or -100, got 4"):
        layer(x, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="lr: expected a finite number of at least 0, got nan"):
        layer.step(float("nan"))
