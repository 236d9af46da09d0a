"""Arguments that do not fit are refused with a line that says what was expected."""

import pytest
import torch

import manymax as mm


def call(query=(1, 4, 5, 8), key=(1, 4, 6, 8), value=(1, 4, 6, 8), dtypes=(torch.float32,) * 3, **options):
    query, key, value = (torch.zeros(s, dtype=d) for s, d in zip((query, key, value), dtypes, strict=True))
    return mm.attention(query, key, value, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": (1, 4, 6, 7)}, r"key: expected the query's last dim 8, got shape \(1, 4, 6, 7\)"),
        ({"value": (1, 4, 5, 8)}, r"value: expected one for each of 6 keys, got shape \(1, 4, 5, 8\)"),
        ({"key": (4, 6, 8)}, r"key: expected \(batch, heads, tokens, dim\), as all three, got \(4, 6, 8\)"),
        ({"query": (8,), "key": (8,), "value": (8,)}, r"query: expected \(batch, heads, tokens, dim\)"),
        ({"query": (3, 4, 5, 8), "key": (2, 4, 6, 8)}, "query: expected batch dims that broadcast with the"),
        ({"key": (1, 2, 6, 8), "value": (1, 2, 6, 8)}, "key: expected the query's 4 heads, or enable_gqa=True, got 2"),
        ({"key": (1, 3, 6, 8), "value": (1, 3, 6, 8), "enable_gqa": True}, "enable_gqa: expected query heads to be a"),
        ({"key": (1, 2, 6, 8), "value": (1, 4, 6, 8), "enable_gqa": True}, "got 4, 2 and 4"),
        ({"dtypes": (torch.float32, torch.float64, torch.float32)}, "key: expected the query's torch.float32 on cpu"),
        ({"dtypes": (torch.int64,) * 3}, "query: expected float16, bfloat16, float32 or float64, got torch.int64"),
        (
            {"attn_mask": torch.ones(5, 6, dtype=torch.int32)},
            "attn_mask: expected a bool or floating tensor, got torch.int",
        ),
        (
            {"attn_mask": torch.ones(4, 6)},
            r"attn_mask: expected a shape that broadcasts to \(1, 4, 5, 6\), got \(4, 6\)",
        ),
        ({"attn_mask": torch.ones(2, 4, 5, 6)}, r"attn_mask: expected a shape that broadcasts to \(1, 4, 5, 6\)"),
        ({"bias": torch.ones(5, 6, dtype=torch.bool)}, "bias: expected a floating tensor, got torch.bool"),
        ({"bias": torch.ones(1, 1, 4, 5, 6)}, r"bias: expected a shape that broadcasts to \(1, 4, 5, 6\)"),
        ({"dropout_p": 1.5}, "dropout_p: expected a probability from 0 to 1, got 1.5"),
        ({"dropout_p": -0.1}, "dropout_p: expected a probability from 0 to 1"),
        ({"scale": float("nan")}, "scale: expected a finite number, got nan"),
        ({"scale": torch.ones(())}, "scale: expected a finite number, got tensor"),
        ({"softcap": 0.0}, "softcap: expected None or a number above 0, got 0.0"),
        ({"sinks": torch.zeros(2)}, r"sinks: expected a floating tensor of shape \(4,\), got torch.float32 \(2,\)"),
        (
            {"sinks": torch.zeros(4), "map": "sigmoid"},
            "sinks: expected a ratio or threshold map; a pointwise map has no",
        ),
        ({"sinks": torch.zeros(4), "map": "sinkhorn"}, "sinks: expected a ratio or threshold map; a coupled map would"),
        ({"window": -1}, r"window: expected w or \(left, right\), each an int >= 0 or None, got -1"),
        ({"window": (1, 2, 3)}, "window: expected w or"),
        ({"window": (1, 2.0)}, "window: expected w or"),
        ({"window": True}, "window: expected w or"),
        ({"causal_align": "top_left"}, "causal_align: expected 'top-left' or 'bottom-right', got 'top_left'"),
        ({"return_lse": True, "map": "sigmoid"}, "return_lse: expected a ratio map, .* got a pointwise map"),
        ({"return_lse": True, "map": "sparsemax"}, "got a threshold map"),
        ({"return_lse": True, "map": "sinkhorn"}, "got a coupled map"),
        ({"map": "sofmax"}, r"map: expected one of clipped_softmax, .* got 'sofmax'; did you mean 'softmax'\?"),
        ({"map": 3}, "map: expected a map's name, or its module from create_map, got 3"),
        ({"map": mm.create_map("log_softmax")}, "map: expected one that returns weights, got 'log_softmax'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        call(**options)


def test_results_come_in_order():
    query, key, value = torch.randn(3, 2, 4, 5, 8).unbind()
    out = mm.attention(query, key, value, map="softplus")
    assert out.shape == (2, 4, 5, 8)
    out, weights, lse = mm.attention(query, key, value, map="softplus", return_weights=True, return_lse=True)
    assert (out.shape, weights.shape, lse.shape) == ((2, 4, 5, 8), (2, 4, 5, 5), (2, 4, 5))
    pair = mm.attention(query, key, value, map="softplus", return_lse=True)
    torch.testing.assert_close(pair, (out, lse))
    assert [x.shape for x in mm.attention(query, key, value, return_weights=True)] == [out.shape, weights.shape]


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_leading_dims_of_all_results(backend):
    query, key, value = torch.randn(3, 3, 2, 4, 5, 8).unbind()
    mask = torch.rand(3, 1, 1, 5, 5) > 0.3
    out, lse = mm.attention(query, key, value, mask, return_lse=True, backend=backend)
    assert (out.shape, lse.shape) == ((3, 2, 4, 5, 8), (3, 2, 4, 5))
    one = mm.attention(query[1], key[1], value[1], mask[1], return_lse=True, backend=backend)
    torch.testing.assert_close((out[1], lse[1]), one)
    out, lse = mm.attention(query[0, 0, 0], key[0, 0, 0], value[0, 0, 0], return_lse=True, backend=backend)
    assert (out.shape, lse.shape) == ((5, 8), (5,))


def test_a_window_from_a_plan_file_may_be_a_list():
    query, key, value = torch.randn(3, 1, 2, 9, 4).unbind()
    torch.testing.assert_close(
        mm.attention(query, key, value, window=[2, 0]), mm.attention(query, key, value, window=(2, 0))
    )


def test_a_map_is_a_name_or_a_module():
    query, key, value = torch.randn(3, 1, 2, 9, 4).unbind()
    module = mm.create_map("softmax", temperature=torch.nn.Parameter(torch.tensor(2.0)))
    got = mm.attention(query, key, value, map=module)
    torch.testing.assert_close(got, mm.attention(query, key, value, scale=0.25))
    got.sum().backward()
    assert module.temperature.grad.abs() > 0
    by_head = mm.create_map("softmax", temperature=torch.tensor([1.0, 2.0])[:, None, None])
    both = mm.attention(query, key, value, map=by_head)
    torch.testing.assert_close(both[:, 1:], got[:, 1:])
    torch.testing.assert_close(both[:, :1], mm.attention(query, key, value)[:, :1])
