"""The CPU's attention kernels on tensors of more than 2^31 elements: every offset in them needs 64 bits."""

from __future__ import annotations

import pytest
import torch

import manymax as mm
from manymax.kernels.native import native, status

pytestmark = [pytest.mark.slow, pytest.mark.skipif(native() is None, reason=status())]
LIMIT = 2**31


def test_one_query_against_a_cache_beyond_the_limit():
    tokens, dim, score = LIMIT // 128 + 8, 128, 20.0
    cache = torch.zeros(1, 1, tokens, dim, dtype=torch.bfloat16)  # 4.3 GB, keys and values in one
    places = [0, LIMIT // 128 - 1, LIMIT // 128, tokens - 1]
    for d, place in enumerate(places):
        cache[0, 0, place, d] = 4
    query = torch.full((1, 1, 1, dim), score / 4, dtype=torch.bfloat16)
    out = mm.attention(query, cache, cache, scale=1.0, backend="cpu")[0, 0, 0].double()
    large = torch.tensor(score, dtype=torch.float64).exp()
    expected = 4 * large / (4 * large + tokens - 4)
    torch.testing.assert_close(out[:4], expected.expand(4), rtol=8e-3, atol=0)
    assert out[4:].eq(0).all()


def test_tokens_far_apart_forwards_and_backwards():
    memory = torch.zeros(LIMIT + 2**10, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    far, near = [], []
    for start in (0, 256, 512):
        view = memory.as_strided((1, 2, 65, 64), (0, 64, 2**25, 1), start)  # the last token begins at 2^31 and more
        view.copy_(torch.randn(view.shape, generator=generator))
        far.append(view)
        near.append(view.clone().requires_grad_())
    got = mm.attention(*far, is_causal=True, backend="cpu")
    expected = mm.attention(*near, is_causal=True, backend="cpu")
    assert torch.equal(got, expected)
    upstream = torch.randn(got.shape, generator=generator).bfloat16()
    exact = torch.autograd.grad(expected, near, upstream)
    leaves = [view.detach().requires_grad_() for view in far]
    grads = torch.autograd.grad(mm.attention(*leaves, is_causal=True, backend="cpu"), leaves, upstream)
    assert all(torch.equal(a, b) for a, b in zip(grads, exact, strict=True))


def test_an_output_beyond_the_limit():
    batch = LIMIT // (8 * 64 * 64) + 1
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 8, 64, 64, generator=generator).bfloat16() for _ in range(3))
    expected = mm.attention(query, key, value, backend="cpu")[0]
    out = mm.attention(*(x.expand(batch, 8, 64, 64) for x in (query, key, value)), backend="cpu")  # 4.3 GB
    assert out.numel() > LIMIT
    assert all(torch.equal(out[b], expected) for b in (0, 1, batch // 2, batch - 2, batch - 1))
