import math

import pytest
import torch

from manymax.claims.experiments.collapse import descent_cosine, softmax_collapse
from manymax.claims.experiments.orthograd import OrthoGrad, orthogonal
from manymax.claims.experiments.stablemax import Adder, Arm, Course, grok, stablemax_loss

NUMBERS = {"modulus": 11, "train_share": 0.8, "hidden": 32, "learning_rate": 0.01, "checkpoints": 10}


@pytest.mark.parametrize("shape", [(7,), (5, 3), (1, 2)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonal_gradients_keep_their_length_and_lose_the_weights_direction(shape, scale):
    weight, gradient = torch.randn(2, *shape, dtype=torch.float64).unbind()
    turned = orthogonal(gradient * scale, weight)
    assert turned.shape == shape
    assert abs(float((turned * weight).sum())) < 1e-12 * scale
    assert float(turned.norm()) == pytest.approx(scale * float(gradient.norm()))
    assert float((turned * gradient).sum()) > 0


def test_orthogonal_of_nothing_is_finite():
    gradient = torch.randn(4)
    assert orthogonal(gradient, torch.zeros(4)).equal(gradient)
    assert orthogonal(torch.zeros(4), gradient).equal(torch.zeros(4))
    # A gradient along the weight has no direction left; what rounding leaves must not be blown up to its length.
    weight = torch.tensor([1.0, 0.0])
    assert orthogonal(2 * weight, weight).equal(torch.zeros(2))


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.01)])
def test_orthograd_turns_gradients_and_lets_the_optimiser_step(make):
    weight = torch.nn.Parameter(torch.randn(4, 3))
    unused = torch.nn.Parameter(torch.ones(2))
    twin = torch.nn.Parameter(weight.detach().clone())
    gradient = torch.randn(4, 3)
    optimizer, plain = OrthoGrad(make([weight, unused])), make([twin])
    weight.grad, twin.grad = gradient.clone(), orthogonal(gradient, weight).detach()
    optimizer.step()
    plain.step()
    assert weight.equal(twin)
    assert unused.equal(torch.ones(2))
    optimizer.zero_grad()
    assert weight.grad is None


def test_collapse_is_where_rounding_leaves_one_exponential():
    step = 24 * math.log(2)  # a float32 next to 1 is 2^-23 away, and 2^-24 rounds to even, which is 1
    rows = [[0.0, 0.0], [0.0, -step + 0.8], [0.0, -step - 0.1], [5.0, -100.0], [-1000.0, 0.0]]
    assert softmax_collapse(torch.tensor(rows[:2])) == 0.0
    assert softmax_collapse(torch.tensor(rows[2:])) == 1.0
    assert softmax_collapse(torch.tensor(rows)) == pytest.approx(3 / 5)
    assert softmax_collapse(torch.tensor(rows, dtype=torch.float64)) == pytest.approx(3 / 5)  # float32 counts


def test_descent_cosine():
    weights = [torch.nn.Parameter(torch.tensor(values)) for values in ([3.0], [0.0, 4.0], [7.0])]
    for weight, gradient in zip(weights, ([-6.0], [0.0, -8.0], None), strict=True):
        weight.grad = None if gradient is None else torch.tensor(gradient)
    assert descent_cosine(weights) == pytest.approx(1.0)  # one vector: the tensors' lengths count
    weights[0].grad = torch.tensor([6.0])
    assert descent_cosine(weights) == pytest.approx((16 - 9) * 2 / (5 * 10))
    weights[0].grad, weights[1].grad = torch.zeros(1), torch.zeros(2)
    assert descent_cosine(weights) == 0.0


def test_adder_is_a_network_of_one_hot_pairs():
    model = Adder(5, 8)
    pairs = torch.tensor([[1, 4], [0, 0]])
    one_hot = torch.cat([torch.eye(5)[pairs[:, 0]], torch.eye(5)[pairs[:, 1]]], 1)
    hidden = torch.relu(torch.relu(one_hot @ model.first.weight) @ model.second.weight.T)
    assert torch.allclose(model(pairs), hidden @ model.third.weight.T, atol=1e-6)
    assert float(model.first.weight.detach().abs().max()) <= 10**-0.5
    assert float(model.first.weight.detach().std()) == pytest.approx(10**-0.5 / 3**0.5, rel=0.3)


def test_stablemax_loss_is_in_float64():
    logits, targets = torch.tensor([[0.0, 1.0], [3.0, 0.0]]), torch.tensor([1, 1])
    loss = stablemax_loss(logits, targets)
    assert loss.dtype == torch.float64
    assert float(loss) == pytest.approx(-(math.log(2 / 3) + math.log(1 / 5)) / 2, rel=1e-12)


def test_epochs_to_an_accuracy():
    course = Course(epochs=[0, 10, 20, 30], test=[0.1, 0.96, 0.5, 1.0])
    assert [course.epochs_to(accuracy) for accuracy in (0.05, 0.95, 0.97)] == [0.0, 10.0, 30.0]
    assert math.isinf(Course(epochs=[0], test=[0.1]).epochs_to(0.95))


def test_weights_along_which_nothing_moves_keep_their_length():
    course = grok(Arm(60, orthogonal=True), 0, NUMBERS, lambda share, doing: None)
    assert course.epochs == list(range(0, 61, 6))
    assert course.train[0] < 0.3 < course.train[-1]
    assert all(len(part) == 11 for part in (course.train, course.test, course.collapse, course.cosine))


def test_arms_differ_and_seeds_do():
    def trained(arm, seed=0):
        return grok(arm, seed, NUMBERS, lambda share, doing: None).cosine

    arms = [
        Arm(20),
        Arm(20, orthogonal=True),
        Arm(20, weight_decay=5.0),
        Arm(20, loss=stablemax_loss),
        Arm(20, beta2=0.9),
    ]
    courses = [trained(arm) for arm in arms]
    assert len({tuple(course) for course in courses}) == 5
    assert trained(arms[0]) == courses[0] != trained(arms[0], seed=1)
