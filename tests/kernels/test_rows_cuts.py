"""Row kernels whose cuts have cases of their own: entmax at any alpha, ties of top-k, softmax clipped at both ends."""

from __future__ import annotations

import pytest
import torch
from test_rows import check, close, scores

from manymax.kernels import rows
from manymax.kernels.native import native, status

pytestmark = pytest.mark.skipif(native() is None, reason=status())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("alpha", [1.01, 1.2, 1.9, 2.1, 3.0])
def test_entmax_at_any_alpha(alpha, dtype):
    x = scores(4, 700, dtype=dtype)
    x[1], x[2, ::3] = 1.5, -torch.inf  # equal scores; a row that hides some
    check("entmax", x, alpha=alpha, temperature=0.8)
    close(rows.weights("entmax", {"alpha": alpha}, x).double().sum(-1), torch.ones(4, dtype=torch.float64), dtype)


@pytest.mark.parametrize("k", [1, 5, 64, 65, 700])
def test_topk_keeps_ties_and_any_number(k):
    x = scores(6, 700)
    x[1], x[2], x[3, ::2] = 0.0, x[2].round(), -torch.inf
    x[4, :300], x[4, 5] = -0.0, 0.0  # equal, and ordered as integers they are not
    x[5] *= torch.logspace(-30, 30, 700)
    check("topk_softmax", x, k=k)
    kept = torch.where(x >= x.sort(-1, descending=True).values[:, k - 1 : k], x, -torch.inf)
    assert torch.equal(rows.weights("topk_softmax", {"k": k}, x) > 0, torch.softmax(kept, -1) > 0)


@pytest.mark.parametrize("n", [19, 700, 9001])
def test_clipped_weights_of_both_ends(n):
    x = scores(5, n)
    x[0, 3], x[1, n // 2] = 30.0, -torch.inf
    for gamma in (-2 / n, 0.0):
        check("clipped_softmax", x, zeta=1.5, gamma=gamma)
    clipped = rows.weights("clipped_softmax", {"zeta": 1.5, "gamma": -2 / n}, x)
    assert clipped[0, 3] == 1
    assert (clipped[0] == 0).sum() == n - 1
