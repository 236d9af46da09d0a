import pytest
import torch

from manymax.models.layers import MLP, Attention, Block, Size, make_norm, rotate, rotation


@pytest.mark.parametrize(("head_dim", "base"), [(2, 10000.0), (6, 10000.0), (32, 50.0)])
def test_rotation_is_multiplication_by_a_complex_number(head_dim, base):
    x = torch.randn(2, 3, 9, head_dim, dtype=torch.float64)
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 6, 40, 1000])
    half = head_dim // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angles = positions[:, None] * base ** (-2.0 * torch.arange(half, dtype=torch.float64) / head_dim)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat([turned.real, turned.imag], -1)
    torch.testing.assert_close(rotate(x, rotation(positions, head_dim, base)), expected, rtol=0, atol=5e-4)
    torch.testing.assert_close(rotate(x, rotation(positions, head_dim, base, torch.float64)), expected)
    exact = torch.stack([angles.cos(), angles.sin()])
    torch.testing.assert_close(rotate(x, exact), expected)


def test_angles_are_in_float32_at_least():
    places = torch.tensor([3, 257, 4001])
    expected = rotation(places, 16, 100.0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        short = rotation(places, 16, 100.0, torch.bfloat16)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(short, expected)


def test_rotated_scores_depend_on_distance_alone():
    query, key = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64).unbind()

    def score(i, j):
        turned = [rotate(x, rotation(torch.tensor([p]), 16, 100.0)) for x, p in ((query, i), (key, j))]
        return float((turned[0] * turned[1]).sum())

    assert score(3, 1) == pytest.approx(score(12, 10), abs=1e-5)
    assert score(3, 1) != pytest.approx(score(12, 9), abs=1e-3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((4, None, None, None, None), (4, 128, 4, 4, 352)),
        ((2, None, None, None, None), (2, 64, 2, 2, 160)),
        ((1, 8, None, None, None), (1, 8, 1, 1, 32)),
        ((3, 60, 6, 2, 7), (3, 60, 6, 2, 7)),
    ],
)
def test_sizes_follow_from_depth_unless_given(given, expected):
    size = Size.of(*given)
    assert tuple(vars(size).values()) == expected
    assert size.head_dim * size.num_heads == size.width


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, None, None, None, None), "depth: expected at least 1, got 0"),
        ((1, 0, 1, None, None), "width: expected at least 1, got 0"),
        ((1, None, None, None, 0), "hidden: expected at least 1, got 0"),
        ((2, None, 3, None, None), "num_heads: expected a divisor of the width 64, got 3"),
        ((2, None, 4, 3, None), "num_kv_heads: expected a divisor of num_heads 4, got 3"),
        ((2, None, 0, None, None), "num_heads: expected at least 1, got 0"),
        ((2, None, 2, 0, None), "num_kv_heads: expected at least 1, got 0"),
    ],
)
def test_bad_sizes(given, words):
    with pytest.raises(ValueError, match=words):
        Size.of(*given)


class Recorder(torch.nn.Module):
    def forward(self, query, key, value, **options):
        self.seen = query, key, value, options
        return query


def test_attention_hands_the_mechanism_heads_of_the_projections():
    size = Size.of(1, 24, 6, 2, None)
    attention = Attention(size)
    attention.mechanism = Recorder()
    x = torch.randn(2, 5, 24)
    attention(x, None, None, is_causal=True)
    query, key, value, options = attention.mechanism.seen
    assert (query.shape, key.shape, value.shape) == ((2, 6, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))
    assert options == {"is_causal": True}
    projected = attention.query_key_value(x)
    torch.testing.assert_close(query[:, 1], projected[..., 4:8])
    torch.testing.assert_close(key[:, 1], projected[..., 28:32])
    torch.testing.assert_close(value[:, 0], projected[..., 32:36])
    turn = rotation(torch.arange(5), 4, 100.0)
    attention(x, turn, None)
    turned = attention.mechanism.seen
    torch.testing.assert_close(turned[0], rotate(query, turn))
    torch.testing.assert_close(turned[1], rotate(key, turn))
    assert torch.equal(turned[2], value)
    torch.nn.init.eye_(attention.output.weight)
    torch.testing.assert_close(attention(x, None, None), projected[..., :24])


def test_mlp_is_swiglu():
    mlp = MLP(Size.of(1, 8, 1, None, 12))
    torch.nn.init.normal_(mlp.output.weight)
    x = torch.randn(3, 8)
    gate, hidden = x @ mlp.gate_and_hidden.weight[:12].T, x @ mlp.gate_and_hidden.weight[12:].T
    torch.testing.assert_close(mlp(x), (gate / (1 + (-gate).exp()) * hidden) @ mlp.output.weight.T)


def test_mlp_without_activation_is_sglu():
    mlp = MLP(Size.of(1, 8, 1, None, 12), units="sglu")
    torch.nn.init.normal_(mlp.output.weight)
    x = torch.randn(3, 8)
    first, second = x @ mlp.gate_and_hidden.weight[:12].T, x @ mlp.gate_and_hidden.weight[12:].T
    torch.testing.assert_close(mlp(x), (first * second) @ mlp.output.weight.T)


def test_a_gate_reads_what_the_projections_read():
    attention = Attention(Size.of(1, 24, 6, 2, None), gated=True)
    attention.mechanism = Recorder()
    torch.nn.init.eye_(attention.output.weight)
    x = torch.randn(2, 5, 24)
    heads = attention.query_key_value(x)[..., :24]
    torch.testing.assert_close(attention(x, None, None), heads * (x @ attention.gate.weight.T))


def test_norms_with_and_without_gains():
    x = torch.randn(4, 9)
    gains = make_norm("rms", 9)
    torch.nn.init.normal_(gains.weight)
    plain = x / x.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(make_norm("simple", 9)(x), plain)
    torch.testing.assert_close(gains(x), plain * gains.weight)
    assert not list(make_norm("simple", 9).parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "layer"}, "norm: expected one of rms, simple, got 'layer'"),
        ({"mlp": "glu"}, "mlp: expected one of swiglu, sglu, got 'glu'"),
    ],
)
def test_blocks_of_no_such_kind(options, words):
    with pytest.raises(ValueError, match=words):
        Block(Size.of(1, 8, 1, None, None), **options)


def test_a_new_block_changes_nothing_and_its_maps_keep_the_variance():
    block = Block(Size.of(4, None, None, None, None))
    block.attention.mechanism = Recorder()
    x = torch.randn(2, 64, 128)
    assert torch.equal(block(x), x)
    for layer in (block.attention.query_key_value, block.mlp.gate_and_hidden):
        assert 0.95 < float(layer(x).detach().std()) < 1.05


def test_a_block_is_pre_normalised():
    block = Block(Size.of(1, 8, 1, None, 12))
    block.attention.mechanism = Recorder()
    for layer in (block.attention.output, block.mlp.output):
        torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 8)

    def normalised(x):
        return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()

    middle = x + block.attention(normalised(x), None, None)
    torch.testing.assert_close(block(x), middle + block.mlp(normalised(middle)))


def test_a_mechanism_that_knows_order_gets_queries_and_keys_unturned():
    class Recorder(torch.nn.Module):
        def __init__(self, rotary):
            super().__init__()
            if rotary is not None:
                self.rotary = rotary

        def forward(self, query, key, value, **_):
            self.seen = query, key
            return value

    seen = {}
    for rotary in (None, True, False):
        torch.manual_seed(0)
        size = Size.of(1, None, None, None, None)
        attention = Attention(size)
        attention.mechanism = Recorder(rotary)
        torch.manual_seed(1)
        attention(torch.randn(1, 5, size.width), rotation(torch.arange(5), size.head_dim, 100.0), None)
        seen[rotary] = attention.mechanism.seen
    for turned, plain, default in zip(seen[True], seen[False], seen[None], strict=True):
        assert torch.equal(turned, default)
        assert torch.equal(turned[:, :, 0], plain[:, :, 0])
        assert not torch.allclose(turned[:, :, 1:], plain[:, :, 1:])
