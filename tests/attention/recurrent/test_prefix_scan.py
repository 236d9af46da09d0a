"""Prefix scans: every form is the definition, for operators that do not commute."""

import pytest
import torch

from manymax.attention.recurrent.scan import FORMS, merge_softmax, prefix_scan


def affine(first, then):
    return then[0] @ first[0], then[0] @ first[1] + then[1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_each_place_holds_what_goes_before_in_order(form, count):
    torch.manual_seed(0)
    moves, adds = (torch.randn(2, 3, count, 4, width, dtype=torch.float64) for width in (4, 1))
    whole, added = prefix_scan(affine, (moves, adds), form)
    move, state = torch.eye(4, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    for t in range(count):
        move, state = moves[:, :, t] @ move, moves[:, :, t] @ state + adds[:, :, t]
        torch.testing.assert_close(whole[:, :, t], move)
        torch.testing.assert_close(added[:, :, t], state)


def test_merging_softmax_is_associative_and_survives_large_scores():
    torch.manual_seed(0)
    a, b, c = (
        (scale * torch.rand(5, 1).double(), torch.ones(5, 1).double(), torch.randn(5, 2).double())
        for scale in (1.0, 1e4, -1e4)
    )
    left, right = merge_softmax(merge_softmax(a, b), c), merge_softmax(a, merge_softmax(b, c))
    for x, y in zip(left, right, strict=True):
        assert x.isfinite().all()
        torch.testing.assert_close(x, y)
    torch.testing.assert_close(left[2] / left[1], b[2])  # the others' scores are far below


def test_an_unknown_form():
    with pytest.raises(ValueError, match=r"form: expected one of .*got 'blellock'; did you mean 'blelloch'"):
        prefix_scan(affine, (torch.zeros(1, 1, 1),), "blellock")
