"""Flowformer against its definition with all pairs, and what it conserves."""

import pytest
import torch
from mechanism_cases import HEADS, make, tokens

EXACT = {"rtol": 0, "atol": 1e-10}
EPS = 1e-6
MAPS = {"sigmoid": torch.sigmoid, "relu": lambda x: x.clamp(min=0) + EPS}


def pairs(query, key, value, feature_map, limit):
    """All flows from the matrix of pairs, which has 1e-6 added to features and, a row or column at a time, to sums."""
    q, k = MAPS[feature_map](query), MAPS[feature_map](key)
    n, m = q.shape[2], k.shape[2]

    def flows(x, many):
        return ((x + EPS)[:, :, :, None] * many[:, :, None]).sum((3, 4)) + EPS * (x + EPS).sum(-1)

    incoming, outgoing = flows(q, k), flows(k, q)
    conserved_in = flows(q, k / outgoing[..., None])
    conserved_out = flows(k, q / incoming[..., None]).clamp(-limit, limit)
    competition = torch.softmax(conserved_out, -1) * m
    weights = q @ k.transpose(2, 3) / incoming[..., None] * competition[:, :, None]
    return torch.sigmoid(conserved_in * n / m)[..., None] * (weights @ value)


@pytest.mark.parametrize(("feature_map", "limit"), [("sigmoid", 1.0), ("relu", 1.0), ("relu", 0.7)])
def test_the_output_is_that_of_all_pairs(feature_map, limit):
    query, key, value = tokens(9)
    query = query[:, :, :6]
    module = make(("flowformer", {"feature_map": feature_map, "limit": limit}))
    expected = pairs(query, key, value, feature_map, limit)
    torch.testing.assert_close(module(query, key, value), expected, **EXACT)
    if limit < 1:
        assert (expected - pairs(query, key, value, feature_map, 1.0)).abs().max() > 1e-3


def test_the_causal_form_is_token_by_token_what_is_known_then():
    query, key, value = tokens(7)
    module = make(("flowformer", {}))
    expected = torch.zeros_like(value)
    for b in range(2):
        for h in range(HEADS):
            q, k, v = query[b, h].sigmoid(), key[b, h].sigmoid(), value[b, h]
            sources, sinks, strengths = [], [], []
            memory = torch.zeros(6, 6, dtype=torch.float64)
            for t in range(1, 8):
                i = t - 1
                incoming = ((q[i] + EPS) * (k[:t].sum(0) + EPS)).sum()
                outgoing = ((k[i] + EPS) * (q[:t].sum(0) + EPS)).sum()
                sources.append(k[i] * t / outgoing)
                sinks.append(q[i] * t / incoming)
                conserved_in = ((q[i] + EPS) * (sum(sources) + EPS)).sum() / t
                conserved_out = (((k[i] + EPS) * (sum(sinks) + EPS)).sum() / t).clamp(-1, 1)
                strengths.append(conserved_out.exp())
                memory = memory + torch.outer(k[i], v[i] * strengths[-1] / sum(strengths) * t)
                expected[b, h, i] = conserved_in.sigmoid() * (q[i] / incoming) @ memory
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, **EXACT)


def test_flow_is_conserved():
    query, key, _ = tokens(40)
    q, k = query.sigmoid(), key.sigmoid()
    total = k.sum(2, keepdim=True)
    incoming = ((q + EPS) * (total + EPS)).sum(-1, keepdim=True)
    into = (q / incoming * total).sum((2, 3))
    torch.testing.assert_close(into, torch.full_like(into, 40.0), rtol=0, atol=1e-3)


def test_one_state_is_small_however_long_the_sequence():
    module = make(("flowformer", {}))
    sizes = [module.prefill(*tokens(n))[1].nbytes for n in (3, 50)]
    assert sizes[0] == sizes[1]


def test_wrong_options():
    with pytest.raises(ValueError, match="limit: expected a positive number, got 0"):
        make(("flowformer", {"limit": 0.0}))
    with pytest.raises(ValueError, match="feature_map: expected one of"):
        make(("flowformer", {"feature_map": "sigmoids"}))
    with pytest.raises(ValueError, match="backend: expected one of"):
        make(("flowformer", {"backend": "fast"}))
