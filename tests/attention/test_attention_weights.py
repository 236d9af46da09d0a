import math

import pytest
import torch

import manymax as mm


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


def test_weights_of_dense_attention_are_its_weights():
    query, key = random(2, 4, 5, 6), random(2, 2, 7, 6)
    attend = mm.create_attention("sigmoid", head_dim=6, num_heads=4)
    scores = query @ key.repeat_interleave(2, 1).mT / 6**0.5
    torch.testing.assert_close(mm.attention_weights(attend, query, key), torch.sigmoid(scores - math.log(7)))
    causal = mm.attention_weights(attend, query, key, is_causal=True)
    assert bool((causal[..., ~torch.ones(5, 7, dtype=torch.bool).tril()] == 0).all())
    assert not torch.equal(causal, mm.attention_weights(attend, query, key))


@pytest.mark.parametrize("tokens", [1, 4, 9])  # fewer than the head is wide, as many, and more
def test_weights_of_linear_attention(tokens):
    query, key = random(2, 2, 3, tokens, 4).unbind()
    attend = mm.create_attention("linear-relu", head_dim=4, num_heads=3)
    products = query.relu() @ key.relu().mT
    expected = products / products.sum(-1, keepdim=True)
    found = mm.attention_weights(attend, query, key)
    torch.testing.assert_close(found, torch.where(expected.isnan(), 0, expected))
    assert found.shape == (2, 3, tokens, tokens)


@pytest.mark.parametrize("name", ["softhgnn", "gated-linear", "inline-attention"])  # GELU, a gate, a convolution
def test_what_is_no_sum_of_values_has_no_weights(name):
    query, key = random(2, 1, 2, 6, 4, dtype=torch.float32).unbind()
    attend = mm.create_attention(name, head_dim=4, num_heads=2)
    with pytest.raises(ValueError, match="attend: expected outputs that are sums of the values times weights"):
        mm.attention_weights(attend, query, key)


def test_one_output_that_is_no_sum_is_enough():
    query, key = random(2, 1, 1, 6, 4).unbind()
    attend = mm.create_attention("softmax", head_dim=4, num_heads=1)

    def nearly(query, key, value):
        out = attend(query, key, value)
        out[0, 0, 5, 3] += 1
        return out

    with pytest.raises(ValueError, match="attend: expected"):
        mm.attention_weights(nearly, query, key)


def test_weights_that_are_not_a_number_stay():
    query, key = random(2, 1, 1, 6, 4).unbind()
    query[0, 0, 2] = math.nan
    found = mm.attention_weights(lambda q, k, v: torch.softmax(q @ k.mT, -1) @ v, query, key)
    assert found[0, 0].isnan().any(-1).tolist() == [False, False, True, False, False, False]


def test_gap_between_two_sets_of_queries_by_hand():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.2, -0.3, 1.1]])
    other = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(mm.injectivity_gap(weights, other), torch.tensor([0.1, 0.6]))


def test_gap_to_the_nearest_other_query_by_loops():
    weights = random(2, 3, 5, 7)
    weights[1, 2, 4] = weights[1, 2, 0]
    expected = torch.empty(2, 3, 5, dtype=torch.float64)
    for b, h, i in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        rows = weights[b, h]
        expected[b, h, i] = min(max(abs(float(x)) for x in rows[i] - rows[k]) for k in range(5) if k != i)
    found = mm.injectivity_gap(weights)
    torch.testing.assert_close(found, expected)
    assert found[1, 2, 0] == found[1, 2, 4] == 0
    assert mm.injectivity_gap(weights[..., :1, :]).isinf().all()
    assert mm.injectivity_gap(weights[..., :0, :]).shape == (2, 3, 0)


def test_gaps_do_not_hide_what_is_not_a_number():
    weights = torch.eye(3)
    weights[1, 1] = math.nan
    assert mm.injectivity_gap(weights).isnan().all()
    assert mm.injectivity_gap(weights, torch.eye(3)).isnan().tolist() == [False, True, False]


def test_linear_attention_confuses_multiples_of_a_query_and_softmax_does_not():
    query, key = random(2, 1, 1, 8, 8).unbind()
    query[0, 0, 5] = 3 * query[0, 0, 2]
    gaps = {}
    for name, options in {"softmax": {}, "linear-relu": {}, "inline-attention": {"local": 0}}.items():
        attend = mm.create_attention(name, head_dim=8, num_heads=1, **options)
        gaps[name] = mm.injectivity_gap(mm.attention_weights(attend, query, key))[0, 0, [2, 5]]
    assert gaps["linear-relu"].max() < 1e-12
    assert min(gaps["softmax"].min(), gaps["inline-attention"].min()) > 1e-3


@pytest.mark.parametrize(("window", "grid"), [(1, (3, 4)), (3, (3, 4)), (5, (3, 4)), (3, None), (7, (4, 3))])
def test_local_mass_by_loops(window, grid):
    weights = random(2, 12, 12)
    height, width = grid or (1, 12)
    expected = torch.zeros(2, 12, dtype=torch.float64)
    for b in range(2):
        for i in range(12):
            for row in range(i // width - window // 2, i // width + window // 2 + 1):
                for column in range(i % width - window // 2, i % width + window // 2 + 1):
                    if 0 <= row < height and 0 <= column < width:
                        expected[b, i] += abs(weights[b, i, row * width + column])
    expected /= weights.abs().sum(-1)
    torch.testing.assert_close(mm.local_mass(weights, window, grid), expected)


def test_entropy_by_hand():
    weights = torch.tensor([[1.0, 0, 0, 0], [2, -2, 0, 0], [0.25, 0.25, 0.25, 0.25], [3, 1, 0, 0], [0, 0, 0, 0]])
    expected = [0, math.log(2), math.log(4), -0.75 * math.log(0.75) - 0.25 * math.log(0.25), math.nan]
    torch.testing.assert_close(mm.row_entropy(weights), torch.tensor(expected), equal_nan=True)
    half = mm.row_entropy(torch.full((1, 4096), 1.0, dtype=torch.float16))  # float16's sum would stop at 2048
    assert half.item() == pytest.approx(math.log(4096), rel=1e-5)


def test_a_query_without_weight_has_no_share():
    weights = torch.zeros(4, 4)
    weights[1, 0] = 0.5
    assert mm.local_mass(weights, 1).isnan().tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mm.local_mass(torch.ones(6, 6), 2, (2, 3)), "window: expected an odd number of at least 1, got 2"),
        (lambda: mm.local_mass(torch.ones(6, 6), -1), "window: expected an odd number of at least 1, got -1"),
        (lambda: mm.local_mass(torch.ones(6, 6), 3, (2, 4)), r"grid: expected .* of weights \(6, 6\), got \(2, 4\)"),
        (lambda: mm.local_mass(torch.ones(6, 6), 3, (-2, -3)), r"grid: expected .* got \(-2, -3\)"),
        (lambda: mm.local_mass(torch.ones(5, 6), 3), r"grid: expected .* of weights \(5, 6\), got None"),
        (lambda: mm.injectivity_gap(torch.ones(5, 6), torch.ones(6)), r"other: expected the shape of weights \(5, 6\)"),
        (lambda: mm.row_entropy(torch.ones(5)), r"weights: expected \(..., queries, keys\), got \(5,\)"),
        (lambda: mm.injectivity_gap(torch.ones(5)), "weights: expected"),
        (lambda: mm.local_mass(torch.ones(5), 1), "weights: expected"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=words):
        call()
