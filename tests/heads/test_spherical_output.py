import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from manymax.heads import factored
from manymax.heads.spherical_output import SphericalOutput

OPTIONS = {
    "z": {"a": 1.0, "b": 2.0},
    "mse": {},
    "spherical": {"eps": 0.3},
    "taylor": {},
}
RATES = {"z": 0.5, "mse": 0.02, "spherical": 0.05, "taylor": 0.1}


def dense_losses(name, scores, target):
    """The losses with all scores at hand, written with torch's functions."""
    if name == "z":
        standard = F.layer_norm(scores, scores.shape[-1:], eps=0.0)
        return F.softplus(2 - standard.gather(1, target[:, None])[:, 0], threshold=200)
    if name == "mse":
        return (scores - F.one_hot(target, scores.shape[-1])).square().sum(-1)
    share = scores.square() + 0.3 if name == "spherical" else 0.5 * (scores + 1).square() + 0.5
    return F.nll_loss((share / share.sum(-1, keepdim=True)).log(), target, reduction="none")


class Twin:
    """The layer and a dense weight that SGD trains on the same batches."""

    def __init__(self, name, features=6, classes=15, dtype=torch.float64, seed=0, **options):
        torch.manual_seed(seed)
        self.name = name
        self.layer = SphericalOutput(features, classes, loss=name, **{**OPTIONS[name], **options}).to(dtype)
        self.weight = self.layer.weight.requires_grad_()

    def batch(self, count):
        x = torch.randn(count, self.layer.in_features, dtype=self.weight.dtype) + 0.3
        return x.requires_grad_(), torch.randint(self.layer.num_classes, (count,))

    def backward(self, x, target):
        """Find both weights' gradients; return by how much losses and the features' gradients differ at most."""
        loss, expected = self.layer(x, target), dense_losses(self.name, x @ self.weight.T, target).mean()
        (found,) = torch.autograd.grad(loss, x)
        wanted, self.weight.grad = torch.autograd.grad(expected, (x, self.weight))
        return torch.stack([(loss - expected).detach().abs(), (found - wanted).abs().max()]).max()

    @torch.no_grad()
    def step(self, rate):
        self.layer.step(rate)
        self.weight -= rate * self.weight.grad
        self.weight.grad = None

    def difference(self):
        return float((self.layer.weight - self.weight).detach().abs().max())


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


def drift(layer):
    """How far the state is from that of the weight which it stands for, relative."""
    state, weight = layer.factored, layer.weight.double()

    def relative(found, exact):
        return float((found.double() - exact).norm() / exact.norm())

    return max(
        relative(state.gram, weight.T @ weight),
        relative(state.factor.double() @ state.inverse.double(), torch.eye(layer.in_features).double()),
        float((state.total.double() - weight.sum(0)).norm() / weight.norm() / len(weight) ** 0.5),
    )


def train_in_float32(name, steps, classes):
    """Let the layer learn clusters; return it and the mean losses of the first and the last hundredth."""
    torch.manual_seed(0)
    layer = SphericalOutput(8, classes, loss=name, **OPTIONS[name])
    centres, losses = torch.randn(classes, 8), []
    for _ in range(steps):
        target = torch.randint(classes, (4,))
        loss = layer(centres[target] + 0.3 * torch.randn(4, 8) + 0.3, target)
        loss.backward()
        layer.step(RATES[name])
        losses.append(loss.detach())
    losses = torch.stack(losses).chunk(100)
    return layer, losses[0].mean(), losses[-1].mean()


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
