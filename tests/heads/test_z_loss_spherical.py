import math

import pytest
import torch
from head_cases import make

import manymax as mm
from manymax.heads.spherical import SphericalLoss, Sums

LOSSES = [
    SphericalLoss(),
    SphericalLoss("z", a=2.0, b=-0.5),
    SphericalLoss("mse"),
    SphericalLoss("spherical", eps=0.3),
    SphericalLoss("taylor"),
]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=[f"{one.name}-{one.a}" for one in LOSSES])


def rows(count=6, classes=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return scores, torch.randint(classes, (count,), generator=generator)


def by_hand(loss, o, c):
    """The loss of one row of scores with Python's numbers, from the scores of all classes."""
    if loss.name == "z":
        mean = sum(o) / len(o)
        deviation = math.sqrt(sum((one - mean) ** 2 for one in o) / len(o))
        return math.log1p(math.exp(loss.a * (loss.b - (o[c] - mean) / deviation))) / loss.a
    if loss.name == "mse":
        return sum((one - (k == c)) ** 2 for k, one in enumerate(o))
    share = {"spherical": lambda x: x * x + loss.eps, "taylor": lambda x: 1 + x + x * x / 2}[loss.name]
    return -math.log(share(o[c]) / sum(share(one) for one in o))


@each_loss
def test_losses_are_their_formulas(loss):
    scores, target = rows()
    expected = [by_hand(loss, row, c) for row, c in zip(scores.tolist(), target.tolist(), strict=True)]
    torch.testing.assert_close(loss(scores, target), torch.tensor(expected, dtype=torch.float64))


@each_loss
def test_three_numbers_are_enough(loss):
    scores, target = rows()
    sums = Sums(scores[torch.arange(6), target], scores.sum(-1), scores.square().sum(-1))
    torch.testing.assert_close(loss.of(sums, 9), loss(scores, target))


def test_likelihoods_are_those_of_the_maps():
    scores, target = rows()
    picked = (torch.arange(6), target)
    torch.testing.assert_close(
        SphericalLoss("spherical", eps=0.3)(scores, target), -mm.spherical_softmax(scores, eps=0.3)[picked].log()
    )
    torch.testing.assert_close(SphericalLoss("taylor")(scores, target), -mm.taylor_softmax(scores)[picked].log())


@pytest.mark.parametrize(("scale", "shift"), [(3.7, -2.0), (1e-6, 0.0), (1e25, 0.0), (1.0, 50.0)])
def test_the_z_loss_and_its_direction_do_not_see_shift_and_scale(scale, shift):
    loss, (scores, target) = SphericalLoss(a=1.0, b=2.0), rows()
    scores = scores.float().requires_grad_()
    expected = loss(scores, target)
    moved = scale * scores.detach() + shift
    moved.requires_grad_()
    torch.testing.assert_close(loss(moved, target), expected, rtol=1e-5, atol=1e-5)
    (direction,) = torch.autograd.grad(expected.sum(), scores)
    (found,) = torch.autograd.grad(loss(moved, target).sum(), moved)
    torch.testing.assert_close(scale * found, direction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e8])
def test_equal_scores_have_the_mean_s_z_loss_and_no_gradient(value):
    loss = SphericalLoss(a=0.5, b=3.0)
    scores = torch.full((2, 7), value, requires_grad=True)
    losses = loss(scores, torch.tensor([0, 6]))
    torch.testing.assert_close(losses, torch.full((2,), math.log1p(math.exp(1.5)) / 0.5))
    (found,) = torch.autograd.grad(losses.sum(), scores)
    assert (found == 0).all()
    sums = Sums(scores[:, 0], scores.sum(-1), scores.square().sum(-1))
    torch.testing.assert_close(loss.of(sums, 7), losses)


def test_a_distant_target_has_a_finite_z_loss():
    loss = SphericalLoss(a=1000.0, b=50.0)
    assert loss(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([1])).item() == pytest.approx(50 + 2**-0.5)


def test_the_z_loss_s_stand_in_probabilities_are_softmax_of_the_standardised_scores():
    head, x, _ = make("z-loss-spherical")
    scores = head.logits(x)
    standard = (scores - scores.mean(-1, keepdim=True)) / scores.std(-1, keepdim=True, correction=0)
    torch.testing.assert_close(head.log_weights(scores), standard.log_softmax(-1))
    assert (head.log_weights(torch.ones(7)) == -math.log(7)).all()


@pytest.mark.parametrize("loss", ["spherical", "taylor"])
def test_probabilities_are_those_that_the_loss_is_the_likelihood_of(loss):
    head, x, target = make("z-loss-spherical", {"loss": loss, "eps": 0.2}, reduction="none")
    torch.testing.assert_close(head.nll(x, target), head(x, target))


def test_estimated_probabilities_are_scaled_to_1_and_negative_ones_are_small():
    head = mm.create_head("z-loss-spherical", in_features=3, num_classes=4, loss="mse")
    found = head.log_weights(torch.tensor([0.9, 0.3, -0.2, 0.0])).exp()
    torch.testing.assert_close(found, torch.tensor([0.9, 0.3, 0.00025, 0.00025]) / 1.2005)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "softmax"}, "loss: expected one of z, mse, spherical, taylor, got 'softmax'"),
        ({"a": 0.0}, "a: expected a number above 0, got 0.0"),
        ({"b": math.nan}, "b: expected a finite number, got nan"),
        ({"eps": 0.0}, "eps: expected a number above 0, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mm.create_head("z-loss-spherical", in_features=3, num_classes=4, **options)
