import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.wasserstein_dependency import GOLDEN, wpc_loss


def dot(x, y):
    return x @ y.T


def test_without_a_penalty_it_is_contrastive_prediction_and_bounded_by_the_batch():
    x, y = torch.randn(2, 8, 3, dtype=torch.float64)
    loss = wpc_loss(dot, x, y, gp=0.0)
    scores = (x @ y.T).tolist()
    expected = sum(math.log(sum(map(math.exp, row))) - row[i] for i, row in enumerate(scores)) / 8
    assert math.isclose(loss.item(), expected)
    same = F.normalize(x, dim=-1)
    bound = math.log(8) - wpc_loss(dot, 50 * same, 50 * same, gp=0.0).item()
    assert 0.9 * math.log(8) < bound <= math.log(8)


def test_the_penalty_is_that_of_the_slope_between_pairs():
    x, y = torch.randn(2, 6, 3, dtype=torch.float64)
    found = wpc_loss(dot, x, y, gp=2.5, generator=torch.Generator().manual_seed(3)) - wpc_loss(dot, x, y, gp=0.0)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(6, generator=generator)
    epsilon = torch.rand(6, 1, generator=generator, dtype=torch.float64)
    total = 0.0
    for i in range(6):  # the gradient of x . y is (y, x)
        between = epsilon[i] * y[i] + (1 - epsilon[i]) * y[order[i]]
        total += (math.sqrt(float(between.square().sum() + x[i].square().sum())) - 1) ** 2
    assert math.isclose(found.item(), 2.5 * total / 6, rel_tol=1e-9)


def test_the_penalty_trains_the_critic():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    x, y = torch.randn(2, 32, 1)

    def critic(x, y):
        pairs = torch.cat([x[:, None].expand(-1, len(y), -1), y[None].expand(len(x), -1, -1)], -1)
        return network(pairs)[..., 0]

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    missed = []
    for step in range(60):
        loss = wpc_loss(critic, x, y, gp=10.0, generator=torch.Generator().manual_seed(step))
        missed.append((loss - wpc_loss(critic, x, y, gp=0.0)).item() / 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert missed[0] > 0.3
    assert missed[-1] < 0.1


def test_the_penalty_has_gradients_of_encoders():
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def loss(w):
        return wpc_loss(dot, x @ w, y @ w, gp=1.5, generator=torch.Generator().manual_seed(0))

    assert torch.autograd.gradcheck(loss, w)


@pytest.mark.parametrize("gp", [0.0, 0.7])
def test_the_head_in_closed_form(gp):
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    head = mm.create_head("wasserstein-dependency", in_features=3, num_classes=4, gp=gp).double()
    target = torch.tensor([3, 0, -100, 1, 4])
    kept = [0, 1, 3, 4]
    penalty = 0.0
    for place, i in enumerate(kept):
        a, b = x[i].clone().requires_grad_(), y.clone()
        epsilon = ((place + 1) * GOLDEN) % 1
        after = target[kept[(place + 1) % 4]]
        between = (epsilon * b[target[i]] + (1 - epsilon) * b[after]).requires_grad_()
        slope = torch.cat(torch.autograd.grad(a @ between, (a, between)))
        penalty += (slope.norm().item() - 1) ** 2 / 4
    expected = F.cross_entropy(x @ y.T, target) + gp * penalty
    torch.testing.assert_close(head(x, target, candidates=y), expected)
    head.reduction = "none"
    torch.testing.assert_close(head(x, target, candidates=y), F.cross_entropy(x @ y.T, target, reduction="none"))


def test_bad_options_and_calls():
    with pytest.raises(ValueError, match=r"gp: expected at least 0, got -1\.0"):
        mm.create_head("wasserstein-dependency", in_features=3, num_classes=4, gp=-1.0)
    with pytest.raises(ValueError, match=r"gp: expected at least 0, got -1\.0"):
        wpc_loss(dot, torch.zeros(2, 2), torch.zeros(2, 2), gp=-1.0)
    head = mm.create_head("wasserstein-dependency", in_features=3, num_classes=4)
    with pytest.raises(ValueError, match=r"candidates: expected \(count, 3\), got \(2, 1, 3\)"):
        head(torch.zeros(2, 3), torch.arange(2), candidates=torch.zeros(2, 1, 3))
