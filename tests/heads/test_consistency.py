import pytest
import torch

from manymax.heads.comp_sum import comp_sum_loss
from manymax.heads.consistency import errors_allowed, h_consistency, least_loss, loss_of_errors

TAUS = [0.0, 0.5, 1.0, 1.5, 1.9, 2.0, 3.0]


@pytest.mark.parametrize("tau", TAUS)
def test_least_losses_are_those_that_descent_finds(tau):
    torch.manual_seed(0)
    given = torch.rand(3, 4, dtype=torch.float64).softmax(1)
    start = given.log() * 3 if tau >= 2 else given.log()  # from 2 on the loss has several valleys
    scores = start.clone().requires_grad_()
    descent = torch.optim.LBFGS([scores], max_iter=200, line_search_fn="strong_wolfe")

    def mean():
        return sum((given[:, y] * comp_sum_loss(scores, torch.full((3,), y), tau)).sum() for y in range(4))

    def step():
        descent.zero_grad()
        loss = mean()
        loss.backward()
        return loss

    descent.step(step)
    assert float(mean().detach()) == pytest.approx(float(least_loss(given, tau).sum()), abs=1e-2 if tau > 1.5 else 1e-5)


@pytest.mark.parametrize("tau", TAUS)
def test_the_bound_holds_for_random_classifiers(tau):
    generator = torch.Generator().manual_seed(0)
    tight = 1.0
    for _ in range(60):
        joint = torch.rand(4, 3, generator=generator, dtype=torch.float64) ** 3
        joint = joint / joint.sum()
        found = h_consistency(0.3 * torch.randn(4, 3, generator=generator), joint, tau)
        assert found.zero_one <= found.bound
        assert found.bound <= 1
        tight = min(tight, found.bound - found.zero_one)
    assert tight < 1


@pytest.mark.parametrize("tau", [tau for tau in TAUS if tau <= 2])
@pytest.mark.parametrize("errors", [0.2, 0.7])
def test_it_is_tight_for_two_classes_whose_scores_hardly_differ(tau, errors):
    joint = torch.tensor([[(1 - errors) / 2, (1 + errors) / 2]], dtype=torch.float64)
    found = h_consistency(torch.tensor([[1e-9, 0.0]]), joint, tau)
    assert found.zero_one == pytest.approx(errors)
    assert found.bound == pytest.approx(errors, rel=1e-5)
    assert found.surrogate == pytest.approx(loss_of_errors(errors, tau, 2))


def test_the_best_classifier_has_no_excess():
    joint = torch.tensor([[0.3, 0.2], [0.1, 0.4]])
    found = h_consistency(joint.log(), joint, 1.0)
    assert found.zero_one == 0
    assert found.surrogate == pytest.approx(0, abs=1e-7)
    assert errors_allowed(10.0, 1.0, 3) == 1
    with pytest.raises(ValueError, match="joint: expected probabilities"):
        h_consistency(joint, 2 * joint, 1.0)
