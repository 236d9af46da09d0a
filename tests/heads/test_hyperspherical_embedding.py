"""Classes that were never trained, by the means of their examples."""

import pytest
import torch
from head_cases import make

from manymax.heads.hyperspherical_embedding import class_means, nearest_class_mean


def test_means_are_those_of_unit_rows():
    x = torch.randn(9, 4, dtype=torch.float64)
    target = torch.tensor([5, 2, 5, 9, 2, 2, 9, 5, 5])
    classes, rows = class_means(100 * torch.rand(9, 1) * x, target)
    assert classes.tolist() == [2, 5, 9]
    for number, row in zip((2, 5, 9), rows, strict=True):
        mean = torch.stack([one / one.norm() for one in x[target == number]]).mean(0)
        torch.testing.assert_close(row, mean / mean.norm())


def test_the_nearest_mean_in_angle_is_chosen():
    support, target = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 50.0]]), torch.tensor([3, 3, 8])
    x = torch.tensor([[[9.0, 1.0], [-0.1, 0.2]], [[0.3, 0.1], [1.0, 9.0]]])
    assert nearest_class_mean(x, support, target).tolist() == [[3, 8], [3, 8]]


def test_means_are_candidates_of_a_head():
    head, x, _ = make("hyperspherical-embedding", shape=(11,))
    support, target = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4
    classes, rows = class_means(support, target)
    assert torch.equal(classes[head.logits(x, rows).argmax(-1)], nearest_class_mean(x, support, target))


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match=r"target: expected one class for each row of \(2, 4\), got"):
        class_means(torch.zeros(2, 4), torch.zeros(shape, dtype=torch.int64))
