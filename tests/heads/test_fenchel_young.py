import entmax as reference
import pytest
import torch
import torch.nn.functional as F
from head_cases import make

import manymax as mm
from manymax.heads.fenchel_young import fenchel_young, tsallis_entropy

LOSSES = {
    ("sparsemax", None): reference.sparsemax_loss,
    ("entmax", 2.0): reference.sparsemax_loss,
    ("entmax", 1.5): reference.entmax15_loss,
    ("entmax", 1.3): lambda z, y: reference.entmax_bisect_loss(z, y, 1.3),
    ("entmax", 1.0): lambda z, y: F.cross_entropy(z, y, reduction="none"),
}


@pytest.mark.parametrize(("name", "alpha"), LOSSES)
def test_losses_and_gradients_are_those_of_the_entmax_package(name, alpha):
    head, x, target = make(name, {} if alpha is None else {"alpha": alpha}, shape=(30,), reduction="none")
    scores = (3 * head.logits(x)).detach().requires_grad_()
    found, expected = head.losses(scores, target), LOSSES[name, alpha](scores, target)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), scores)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_the_loss_is_0_from_the_margin_on(alpha):
    head = mm.create_head("entmax", in_features=2, num_classes=3, alpha=alpha, reduction="none")
    lead = 1 / (alpha - 1)
    scores = torch.tensor([[lead + 0.01, 0.0, -1.0], [lead - 0.1, 0.0, -1.0]], dtype=torch.float64)
    loss = head.losses(scores, torch.tensor([0, 0]))
    assert loss[0] == 0 < loss[1]


@pytest.mark.parametrize("alpha", [1.0, 1.4, 2.0])
def test_soft_targets_give_the_weights_less_the_target(alpha):
    head, x, _ = make("entmax", {"alpha": alpha}, shape=(5,), reduction="none")
    target = torch.rand(5, 7, dtype=torch.float64).softmax(-1)
    scores = head.logits(x).detach().requires_grad_()
    loss = head.losses(scores, target)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), scores)[0], mm.entmax(scores, alpha).detach() - target)
    torch.testing.assert_close(head(x, target), loss)
    at_target = head.losses(scores, mm.entmax(scores, alpha).detach())
    torch.testing.assert_close(at_target, torch.zeros(5, dtype=torch.float64))
    assert (loss > 0).all()


def test_another_map_of_the_family():
    """The argmax of p.z - |p|^2 over the simplex is sparsemax at temperature 2."""
    scores, target = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    found = fenchel_young(
        scores, target, lambda z: mm.sparsemax(z, temperature=2.0), lambda p: 2 * tsallis_entropy(p, 2.0)
    )
    torch.testing.assert_close(found, 2 * reference.sparsemax_loss(scores / 2, target))


def test_bad_alpha():
    with pytest.raises(ValueError, match="alpha: expected a number of at least 1"):
        mm.create_head("entmax", in_features=2, num_classes=3, alpha=0.5)
    with pytest.raises(TypeError, match="sparsemax has no option 'alpha'"):
        mm.create_head("sparsemax", in_features=2, num_classes=3, alpha=2.0)
