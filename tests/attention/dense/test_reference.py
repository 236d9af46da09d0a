"""The oracle itself against loops over single numbers, and against torch's own attention."""

import math

import numpy as np
import pytest
import torch
from dense_cases import Case, arguments, combinations
from torch.nn import functional as F

import manymax as mm


def softmax(x, n):
    shifted = np.exp(x - max(x, default=0))
    return shifted / shifted.sum()


def sparsemax(x, n):
    """Michelot's way: drop what falls below the cut until nothing does."""
    kept = np.ones(len(x), bool)
    while True:
        cut = (x[kept].sum() - 1) / kept.sum()
        if (x[kept] > cut).all():
            return np.maximum(x - cut, 0)
        kept &= x > cut


ROWS = {
    "relu": (lambda x, n: np.maximum(x, 0) / n, {}),
    "sigmoid": (lambda x, n: 1 / (1 + n * np.exp(-x)), {}),
    "softmax": (softmax, {"temperature": 1.6}),
    "softmax1": (lambda x, n: np.exp(x) / (1 + np.exp(x).sum()), {}),
    "softplus": (lambda x, n: np.log1p(np.exp(x)) / np.log1p(np.exp(x)).sum(), {"temperature": 0.7}),
    "sparsemax": (sparsemax, {"temperature": 0.8}),
}


def by_loops(given, case):
    """Return output and weights of `arguments`, one pair at a time."""
    q, k, v = (given[name].detach().numpy() for name in ("query", "key", "value"))
    b, hq, nq, d = q.shape
    hk, nk = k.shape[1], k.shape[2]
    row, options = ROWS[case.map]
    scale = 1 / math.sqrt(d) if case.scale is None else case.scale
    left, right = case.window if isinstance(case.window, tuple) else (case.window, case.window)
    start = nk - nq if case.causal == "bottom-right" else 0
    added, allowed = np.zeros((b, hq, nq, nk)), np.ones((b, hq, nq, nk), bool)
    if case.bias:
        added = added + given["bias"].detach().numpy()
    if case.mask == "float":
        added = added + given["attn_mask"].detach().numpy()
    if case.mask == "bool":
        allowed = allowed & given["attn_mask"].numpy()
    weights, out = np.zeros((b, hq, nq, nk)), np.zeros((b, hq, nq, v.shape[-1]))
    for e in range(b):
        for h in range(hq):
            for i in range(nq):
                scores, seen = [], []
                for j in range(nk):
                    p = start + i
                    near = (left is None or j >= p - left) and (right is None or j <= p + right)
                    past = case.causal is None or j <= p
                    score = scale * float(q[e, h, i] @ k[e, h // (hq // hk), j])
                    if case.softcap:
                        score = case.softcap * math.tanh(score / case.softcap)
                    score += added[e, h, i, j]
                    if near and past and allowed[e, h, i, j] and score != -math.inf:
                        scores.append(score)
                        seen.append(j)
                if not seen:
                    continue
                scores = [float(given["sinks"][h].detach()), *scores] if case.sinks else scores
                w = row(np.array(scores) / options.get("temperature", 1), len(scores))[-len(seen) :]
                weights[e, h, i, seen] = w
                out[e, h, i] = sum(x * v[e, h // (hq // hk), j] for x, j in zip(w, seen, strict=True))
    return out, weights


@pytest.mark.parametrize("name", ROWS)
def test_one_pair_at_a_time(name):
    fixed = {"sinks": False} if name in {"relu", "sigmoid"} else {}
    for case in combinations(12, map=name, options=ROWS[name][1] or {"temperature": 1.0}, batch=1, **fixed):
        given, _ = arguments(case)
        given["return_lse"] = False
        out, weights = mm.attention(**given, return_weights=True, backend="reference")
        want_out, want_weights = by_loops(given, case)
        np.testing.assert_allclose(weights.detach().numpy(), want_weights, rtol=0, atol=1e-12, err_msg=str(case))
        np.testing.assert_allclose(out.detach().numpy(), want_out, rtol=0, atol=1e-12)


def test_lse_is_the_logarithm_of_the_denominator():
    given, _ = arguments(Case(lse=True, sinks=True, options={"temperature": 2.0}, causal="bottom-right"))
    _, weights, lse = mm.attention(**given, return_weights=True, backend="reference")
    scores = given["query"] @ given["key"].repeat_interleave(2, 1).mT / math.sqrt(8) / 2
    seen = weights > 0
    torch.testing.assert_close(weights[seen], torch.exp(scores - lse[..., None])[seen])
    share = torch.exp(given["sinks"][:, None] / 2 - lse)
    torch.testing.assert_close(weights.sum(-1) + share, torch.ones_like(share))


def test_softmax1_alone_has_a_denominator_of_one():
    x = torch.zeros(1, 1, 2, 4)
    _, lse = mm.attention(x, x[:, :, :0], x[:, :, :0], map="softmax1", return_lse=True)
    assert (lse == 0).all()
    _, lse = mm.attention(x, x[:, :, :0], x[:, :, :0], return_lse=True)
    assert (lse == -torch.inf).all()


@pytest.mark.parametrize("backend", ["auto", "reference", "tiled", "sdpa"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.rand(7, 9, generator=torch.Generator().manual_seed(0)) > 0.2},
        {"attn_mask": torch.randn(2, 1, 7, 9, generator=torch.Generator().manual_seed(0)).double()},
        {"attn_mask": torch.randn(8, 7, 1, generator=torch.Generator().manual_seed(0)).double()},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", ["plain", "gqa", "three", "two", "five", "broadcast"])
def test_softmax_is_torchs_attention(options, shape, backend):
    torch.manual_seed(1)
    heads = {"plain": ((2, 8),) * 3, "gqa": ((2, 8), (2, 2), (2, 2)), "three": ((8,),) * 3, "two": ((),) * 3}
    heads |= {"five": ((3, 2, 8),) * 3, "broadcast": ((2, 8), (1, 8), (2, 1))}
    mask = options.get("attn_mask")
    if mask is not None:
        options = options | {"attn_mask": mask[(0,) * (mask.dim() - len(heads[shape][0]) - 2)]}
    query, key, value = (
        torch.randn(*lead, n, d, dtype=torch.float64, requires_grad=True)
        for lead, n, d in zip(heads[shape], (7, 9, 9), (5, 5, 3), strict=True)
    )
    options = options | {"enable_gqa": shape == "gqa"}
    want = F.scaled_dot_product_attention(query, key, value, **options)
    got = mm.attention(query, key, value, **options, backend=backend)
    torch.testing.assert_close(got, want)
    direction = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, (query, key, value), direction),
        torch.autograd.grad(want, (query, key, value), direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 64, 30, 8).unbind()
    whole = mm.attention(query, key, value, map="softplus")
    parts = [mm.attention(query, key, value, dropout_p=0.3, map="softplus", backend="reference") for _ in range(200)]
    assert not torch.equal(parts[0], parts[1])
    torch.testing.assert_close(torch.stack(parts).mean(0), whole, atol=0.15, rtol=0)
    _, weights = mm.attention(query, key, value, dropout_p=0.3, map="softplus", return_weights=True)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 64, 30))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_single(dtype):
    given, _ = arguments(Case(causal="top-left", lse=True, precision=dtype), dtype)
    out, weights, lse = mm.attention(**given, return_weights=True, backend="reference")
    assert out.dtype == weights.dtype == dtype
    assert lse.dtype == torch.float32
    single, _ = arguments(Case(causal="top-left", lse=True, precision=dtype), torch.float32)
    assert torch.equal(mm.attention(**single, backend="reference")[0].to(dtype), out)
    assert torch.equal(mm.attention(**single, backend="reference")[1], lse)


def test_gradients_of_the_weights():
    given, leaves = arguments(
        Case(map="entmax15", batch=1, heads=2, key_heads=1, queries=4, keys=5, dim=3, causal="top-left")
    )

    def function(query, key):
        inputs = given | {"query": query, "key": key}
        return mm.attention(**inputs, return_weights=True, backend="reference")

    assert torch.autograd.gradcheck(function, (leaves["query"], leaves["key"]))
