"""Bands against the definition, pair by pair."""

import itertools

import pytest
import torch

from manymax.attention.dense.visibility import Band, make_band

SIZES = [(5, 5), (3, 7), (7, 3), (1, 4), (4, 1)]
WINDOWS = [(None, None), (0, 0), (2, None), (None, 1), (1, 3), (9, 9)]


def by_definition(queries, keys, window, is_causal, align_last):
    left, right = window
    seen = torch.zeros(queries, keys, dtype=torch.bool)
    for i, j in itertools.product(range(queries), range(keys)):
        p = i + keys - queries if align_last else i
        near = (left is None or j >= p - left) and (right is None or j <= p + right)
        seen[i, j] = near and (not is_causal or j <= p)
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("align_last", [False, True])
def test_band(size, window, is_causal, align_last):
    queries, keys = size
    want = by_definition(queries, keys, window, is_causal, align_last)
    band = make_band(queries, keys, window, is_causal=is_causal, align_last=align_last)
    assert (band == Band()) == bool(want.all())
    for first, last in itertools.combinations(range(queries + 1), 2):
        rows = slice(first, last)
        seen = want[rows].any(0).nonzero()
        columns = band.columns(rows, keys)
        assert 0 <= columns.start <= columns.stop <= keys
        if len(seen):
            assert (columns.start, columns.stop) == (int(seen.min()), int(seen.max()) + 1)
        else:
            assert columns.start == columns.stop or not want[rows, columns].any()
        assert band.counts(rows, keys, torch.device("cpu")).squeeze(-1).tolist() == want[rows].sum(-1).tolist()
        for left, right in itertools.combinations(range(keys + 1), 2):
            block = band.block(rows, slice(left, right), torch.device("cpu"))
            piece = want[rows, left:right]
            assert (block is None) == bool(piece.all())
            assert block is None or torch.equal(block, piece)
