import pytest
import torch
import torch.nn.functional as F
from head_cases import make

import manymax as mm


def test_the_formula():
    head, x, target = make("focal", {"gamma": 1.5, "alpha": [1, 2, 3, 4, 5, 6, 7]}, shape=(9,), reduction="none")
    p = (x @ head.weight.T + head.bias).softmax(-1)[torch.arange(9), target]
    torch.testing.assert_close(head(x, target), (target + 1) * -((1 - p) ** 1.5) * p.log())


def test_gamma_0_is_cross_entropy():
    head, x, target = make("focal", {"gamma": 0.0})
    torch.testing.assert_close(head(x, target), F.cross_entropy(head.logits(x).flatten(0, 1), target.flatten()))


def test_what_is_known_has_no_gradient_rather_than_nan():
    head = mm.create_head("focal", in_features=2, num_classes=2, gamma=0.5)
    x = torch.full((1, 2), 1e4, requires_grad=True)
    head.weight.data = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    loss = head(x, torch.tensor([0]))
    loss.backward()
    assert loss == 0
    assert (x.grad == 0).all()


def test_bad_options():
    with pytest.raises(ValueError, match="gamma: expected at least 0"):
        mm.create_head("focal", in_features=2, num_classes=2, gamma=-1.0)
    for alpha in ([1.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="alpha: expected 2 numbers of at least 0"):
            mm.create_head("focal", in_features=2, num_classes=2, alpha=alpha)
