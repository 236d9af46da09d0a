import pytest
import torch
import torch.nn.functional as F

from manymax.heads.adversarial import pgd, smooth_adversarial_comp_sum
from manymax.heads.comp_sum import comp_sum_loss


def test_pgd_finds_the_corner_and_stays_inside():
    x = torch.tensor([[0.2, 0.9], [0.5, 0.5]])
    slopes = torch.tensor([1.0, -2.0])
    found = pgd(lambda x: x @ slopes, x, radius=0.3, steps=7)
    torch.testing.assert_close(found, x + 0.3 * slopes.sign())
    bounded = pgd(lambda x: x @ -slopes, x, radius=0.3, steps=7, bounds=(0.0, 1.0))
    torch.testing.assert_close(bounded, torch.tensor([[0.0, 1.0], [0.2, 0.8]]))
    assert not found.requires_grad
    one = pgd(lambda x: x @ slopes, x, radius=0.3, steps=1, step_size=0.0)
    assert ((one - x).abs() <= 0.3).all()
    assert (one != x).any()


def test_the_loss_of_a_linear_model_by_hand():
    """With two classes the lead is linear, and so its largest move in the ball is radius times the slope's L1 norm."""
    torch.manual_seed(0)
    weight = torch.randn(2, 5, requires_grad=True)
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 1, 0])
    loss = smooth_adversarial_comp_sum(lambda x: x @ weight.T, x, y, radius=0.2, tau=1.5, rho=0.7, nu=3.0, steps=20)
    move = 0.2 * (weight[0] - weight[1]).abs().sum()
    expected = comp_sum_loss(x @ weight.T / 0.7, y, 1.5) + 3.0 * move
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(each.sum(), weight)[0] for each in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_without_radius_it_is_the_comp_sum_loss():
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = smooth_adversarial_comp_sum(lambda x: x, x, y, radius=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(x, y, reduction="none"))


def test_bad_options():
    x, y = torch.zeros(1, 2), torch.tensor([0])
    for options in ({"rho": 0.0}, {"nu": -1.0}, {"tau": -1.0}):
        with pytest.raises(ValueError, match="rho, nu, tau: expected"):
            smooth_adversarial_comp_sum(lambda x: x, x, y, radius=0.1, **options)
    for options in ({"radius": -1.0}, {"radius": 1.0, "steps": 0}):
        with pytest.raises(ValueError, match="radius, steps: expected"):
            pgd(lambda x: x.sum(1), x, **options)
