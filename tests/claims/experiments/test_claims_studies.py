"""The kernels that claims measure, against float64."""

import math

import pytest
import torch

from manymax.claims.experiments import studies
from manymax.claims.experiments.flashdecoding_pp import exact_decode
from manymax.claims.experiments.studies import attend, on_rows
from manymax.kernels.native import native, status

pytestmark = pytest.mark.skipif(native() is None, reason=status())
PASSES = ("two_pass", "three_pass_recompute", "three_pass_reload")


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exact_attention(query, key, value, *, causal=False):
    query, key, value = query.double(), key.double(), value.double()
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    return torch.softmax(scores, -1) @ value, scores


@pytest.mark.parametrize("study", PASSES)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_passes(study, threads, scale):
    for n in (1, 3, 8, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000, 100_003):
        x = scale * (2 * torch.rand(3, n, generator=torch.Generator().manual_seed(n)) - 1)
        y = on_rows(study, x, torch.full_like(x, math.nan), threads=threads)
        exact = torch.softmax(x.double(), -1)
        assert float((y - exact).abs().max()) < 2e-7
        if scale == 1:
            assert float((y / exact - 1).abs().max()) < 2e-6


@pytest.mark.parametrize("study", PASSES)
@pytest.mark.parametrize("value", [1e4, -1e4, 0.0])
def test_passes_of_equal_scores(study, value):
    x = torch.full((1, 1001), value)
    assert torch.allclose(on_rows(study, x, torch.empty_like(x)), torch.full_like(x, 1 / 1001), rtol=1e-6, atol=0)


@pytest.mark.parametrize("study", PASSES)
def test_passes_flush_what_is_below_the_normal_numbers(study):
    x = torch.tensor([[0.0, -86.0, -89.0, -1e4]])
    y = on_rows(study, x, torch.empty_like(x))
    assert float(y[0, 1]) == pytest.approx(math.exp(-86), rel=1e-5)
    assert y[0, 2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("study", PASSES)
def test_passes_write_nothing_behind_the_end(study):
    for n in (1, 17, 130):
        memory = torch.full((n + 64,), 7.0)
        on_rows(study, normal(n), memory[:n])
        assert memory[n:].tolist() == [7.0] * 64


def test_rows_refuse_what_the_kernels_cannot_read():
    x = normal(2, 8)
    for wrong in (x.double(), x.T):
        with pytest.raises(ValueError, match="expected contiguous float32"):
            on_rows("two_pass", wrong, torch.empty_like(x))
    with pytest.raises(ValueError, match="expected a study"):
        on_rows("four_pass", x, x)
    with pytest.raises(ValueError, match="expected a study of rows"):
        on_rows("flash4", x, x)


def test_without_the_compiled_module_it_says_why(monkeypatch):
    monkeypatch.setattr(studies, "native", lambda: None)
    monkeypatch.setattr(studies, "status", lambda: "not built")
    with pytest.raises(ImportError, match="not built"):
        studies.kernels()


@pytest.mark.parametrize(("degree", "bound"), [(3, 8.9e-5), (5, 1.6e-7)])
def test_the_papers_exponential(degree, bound):
    x = torch.linspace(-126, 8, 200_003)
    y = on_rows("flash4_exp2", x, torch.empty_like(x), degree)
    error = float((y / x.double().exp2() - 1).abs().max())
    assert bound / 4 < error < bound
    x = torch.tensor([-math.inf, -1e30, -127.0, math.nan, 0.0, 3.0])
    y = on_rows("flash4_exp2", x, torch.empty_like(x), degree)
    assert y[[0, 1, 2, 4, 5]].tolist() == [0.0, 0.0, 0.0, 1.0, 8.0]
    assert y[3].isnan()


def shaped(queries, keys, dim=24, value_dim=40, dtype=torch.float32, spread=1.0):
    query = spread * normal(2, 3, queries, dim, seed=1)
    return (
        query.to(dtype),
        normal(2, 3, keys, dim, seed=2, dtype=dtype),
        normal(2, 3, keys, value_dim, seed=3, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries", [1, 97, 300])
def test_attention_with_the_papers_tricks(dtype, causal, queries):
    heads = shaped(queries, 519 if not causal else queries, dtype=dtype, spread=6)
    exact, scores = exact_attention(*heads, causal=causal)
    plain = attend("softmax", *heads, causal=causal)
    plain_error = float((plain - exact).abs().max())
    for degree, share, slack in ((5, 1.0, 8.0), (3, 1.0, 8.0), (5, 0.5, 0.0), (3, 0.25, 3.0), (5, 0.0, 20.0)):
        stats, lse = torch.full((2, 2, 3, queries), math.nan), torch.full((2, 3, queries), math.nan)
        options = {"causal": causal, "stats": stats, "lse": lse, "threads": 2}
        out = attend("flash4", *heads, degree, share, slack, **options)
        rough = degree == 3 and share > 0
        assert float((out - exact).abs().max()) <= 2 * plain_error + (4e-4 if rough else 4e-6)
        assert float((lse - scores.logsumexp(-1)).abs().max()) < (2e-4 if rough or dtype == torch.bfloat16 else 3e-5)
        rises, rescales = stats
        assert (rescales <= rises).all()
        assert rescales.equal(rises) or slack > 0


def counted(scores, slack, columns):
    """Return how often a row's largest score grows from tile to tile, and how often by more than the slack in all."""
    rises, rescales = torch.zeros(2, *scores.shape[:-1]).unbind()
    tops = [part.amax(-1) / math.log(2) for part in scores.split(columns, -1)]
    largest = shift = tops[0]
    for top in tops[1:]:
        rises += top > largest
        largest = torch.maximum(top, largest)
        far = largest - shift > slack
        rescales += far
        shift = torch.where(far, largest, shift)
    return rises, rescales


@pytest.mark.parametrize("slack", [0.0, 2.0, 8.0, 50.0])
def test_rescalings_are_counted(slack):
    query, key, value = shaped(200, 1500)
    key = key * torch.linspace(0.1, 6, 1500)[:, None]  # the largest score keeps growing
    _, scores = exact_attention(query, key, value)
    stats = torch.empty(2, 2, 3, 200)
    attend("flash4", query, key, value, 5, 1.0, slack, stats=stats)
    rises, rescales = counted(scores, slack, 128)
    assert rises.sum() > 500
    assert (rescales.sum() > 100) == (slack < 10)
    assert stats[0].equal(rises)
    assert float((stats[1] - rescales).abs().mean()) < 0.002  # a score may lie on the border


def test_the_share_of_the_polynomial():
    heads = shaped(50, 512)
    coarse, half, none = (attend("flash4", *heads, 3, share, 8.0) for share in (1.0, 0.5, 0.0))
    exact, _ = exact_attention(*heads)
    errors = [float((out - exact).abs().max()) for out in (coarse, half, none)]
    assert errors[0] > 10 * errors[2]
    assert errors[2] < errors[1]
    assert not coarse.equal(half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "key_heads", "queries"), [(2, 2, 1), (6, 2, 1), (4, 1, 3)])
@pytest.mark.parametrize("keys", [1, 31, 257, 4100])
def test_decoding(dtype, heads, key_heads, queries, keys):
    query = normal(2, heads, queries, 40, seed=4, dtype=dtype)
    key, value = (
        normal(2, key_heads, keys, 40, seed=5, dtype=dtype),
        normal(2, key_heads, keys, 24, seed=6, dtype=dtype),
    )
    exact = exact_decode((query, key, value))
    bound = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for threads, chunk in ((1, 32), (3, 100), (2, 256)):
        for always in (0, 1):
            out = attend("online_decode", query, key, value, chunk, always, decode=True, threads=threads)
            assert float((out - exact).abs().max()) < bound
        for preset, share in (((0.5, -20.0, 20.0), 0), ((300.0, -20.0, 20.0), 1), ((-300.0, -20.0, 20.0), 1)):
            again, lse = torch.full((2, heads, queries), math.nan), torch.full((2, heads, queries), math.nan)
            options = {"decode": True, "threads": threads, "stats": again, "lse": lse}
            out = attend("unified_decode", query, key, value, chunk, *preset, **options)
            assert float((out - exact).abs().max()) < bound
            assert again.unique().tolist() == [share]
            scores = query.double() @ key.double().repeat_interleave(heads // key_heads, 1).transpose(-2, -1) * 40**-0.5
            assert float((lse - scores.logsumexp(-1)).abs().max()) < (2e-3 if dtype == torch.bfloat16 else 2e-5)


def test_rows_out_of_range_alone_are_computed_again():
    query, key, value = normal(1, 4, 1, 16, seed=7), normal(1, 4, 5000, 16, seed=8), normal(1, 4, 5000, 16, seed=9)
    for position in (0, 4095, 4096, 4999):
        moved = key.clone()
        moved[0, 2, position] = 10 * query[0, 2, 0]
        score = float(moved[0, 2, position] @ query[0, 2, 0]) / 4
        for preset, hit in (
            ((1.0, -20.0, score - 1.5), 1),
            ((1.0, -20.0, score - 0.5), 0),
            ((score + 20, -90.0, 1.0), 0),
        ):
            again = torch.empty(1, 4, 1)
            out = attend("unified_decode", query, moved, value, 64, *preset, decode=True, stats=again)
            assert again.flatten().tolist() == [0, 0, hit, 0]
            assert float((out - exact_decode((query, moved, value))).abs().max()) < 2e-6


def test_the_lower_bound_of_the_range():
    query, key, value = normal(1, 1, 1, 16, seed=7), normal(1, 1, 500, 16, seed=8), normal(1, 1, 500, 16, seed=9)
    low = float((query @ key.transpose(-2, -1)).min()) / 4
    for a, hit in ((low - 0.01, 0), (low + 0.01, 1)):
        again = torch.empty(1, 1, 1)
        attend("unified_decode", query, key, value, 64, 0.0, a, 20.0, decode=True, stats=again)
        assert again.item() == hit
