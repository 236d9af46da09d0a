"""The Galerkin Transformer against its formulas, with sums in the place of Fourier transforms."""

import math

import pytest
import torch

from manymax.models.galerkin_transformer import GalerkinTransformer
from manymax.models.operators import relative_loss

WIDTH, HEADS = 6, 2
SHAPES = {1: (11,), 2: (7, 9)}


def built(dims, **options):
    """A model in float64 whose gains, shifts and biases are no longer ones and zeros, with projections of all sizes."""
    torch.manual_seed(dims)
    sizes = {"width": WIDTH, "num_heads": HEADS, "depth": 2, "hidden": 5, "modes": 3}
    model = GalerkinTransformer(dims, **(sizes | options)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def layer_norm(x, norm, h):
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    return normal * norm.gain[h] + norm.shift[h]


def attention(block, x, where):
    """The sum over heads of Q (K^T V) / n, for the features x (N, width) of one function."""
    query, key, value = (p(x).split(WIDTH // HEADS, 1) for p in block.query_key_value)
    heads, norms = [], block.mechanism.norms
    for h in range(HEADS):
        q = torch.cat([query[h], where], 1)
        k = torch.cat([layer_norm(key[h], norms["key"], h), where], 1)
        v = torch.cat([layer_norm(value[h], norms["value"], h), where], 1)
        heads.append(q @ k.T @ v / len(x) @ block.mechanism.back.weight[h])
    return block.output(torch.cat(heads, 1))


def waves(n, frequencies):
    """exp(2 pi i k j / n) for points j and frequencies k, (n, frequencies)."""
    places = torch.arange(n, dtype=torch.float64)[:, None]
    return torch.exp(2j * math.pi * places * torch.tensor(frequencies) / n)


def spectral(layer, x, shape):
    """The convolution by sums over points and frequencies: those without a partner of other sign count twice."""
    height, breadth = (1, *shape)[-2:]
    rows = [0] if layer.dims == 1 else [0, 1, 2, -3, -2, -1]
    down, across = waves(height, rows), waves(breadth, [0, 1, 2])
    grid = x.reshape(height, breadth, WIDTH).to(torch.complex128)
    spectrum = torch.einsum("yxi,yr,xc->rci", grid, down.conj(), across.conj())
    changed = torch.einsum("rci,rcio->rco", spectrum, torch.complex(*layer.weight))
    twice = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    out = torch.einsum("rco,yr,xc,c->yxo", changed, down, across, twice.to(torch.complex128)).real / (height * breadth)
    return torch.nn.functional.silu(layer.point(x) + out.reshape(-1, WIDTH))


def by_hand(model, values):
    shape = values.shape
    sides = [torch.arange(n, dtype=torch.float64) / (n - 1) for n in shape]
    where = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).reshape(-1, len(shape))
    x = model.lift(torch.cat([values.reshape(-1, 1), where], 1))
    for block in model.blocks:
        x = x + attention(block, x, where)
        first, _, second = block.ffn
        x = x + second(first(x).clamp(min=0))
    for layer in model.spectral:
        x = spectral(layer, x, shape)
    first, _, second = model.project
    hidden = first(x)
    return second(hidden / (1 + (-hidden).exp())).reshape(shape)


@torch.no_grad()
@pytest.mark.parametrize("dims", [1, 2])
def test_functions_are_those_of_the_formula(dims):
    model, values = built(dims), torch.randn(2, *SHAPES[dims], dtype=torch.float64)
    expected = torch.stack([by_hand(model, one) for one in values])
    torch.testing.assert_close(model.functions(values), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("dims", [1, 2])
def test_functions_that_are_zero_at_the_boundary(dims):
    model, free = built(dims, boundary="zero"), built(dims)
    values = torch.randn(2, *SHAPES[dims], dtype=torch.float64)
    inner = (slice(None), *(slice(1, -1),) * dims)
    found, expected = model.functions(values), torch.zeros_like(values)
    expected[inner] = free.functions(values)[inner]
    assert torch.equal(found, expected)
    assert bool((free.functions(values) != 0).all())


@torch.no_grad()
@pytest.mark.parametrize("kind", ["galerkin", "fourier", "softmax", "linear"])
@pytest.mark.parametrize("norm", ["layer", "instance"])
def test_kinds_and_norms_reach_every_block(kind, norm):
    model = built(2, kind=kind, norm=norm)
    assert {(b.mechanism.kind, b.mechanism.pos_dim) for b in model.blocks} == {(kind, 2)}
    assert {n.over for b in model.blocks for n in b.mechanism.norms.values()} <= {norm}
    assert model.functions(torch.randn(1, 7, 9, dtype=torch.float64)).isfinite().all()


def test_projections_start_small_and_near_a_multiple_of_the_identity():
    torch.manual_seed(0)
    model = GalerkinTransformer(width=40, depth=3, gain=0.02, diagonal=0.3)
    for block in model.blocks:
        for projection in block.query_key_value:
            spread = projection.weight.detach() - 0.3 * torch.eye(40)
            bound = 0.02 * math.sqrt(6 / 80)
            assert 0.95 * bound < float(spread.abs().max()) <= 1.001 * bound
            assert float(spread.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert not projection.bias.any()
    default = GalerkinTransformer(width=40).blocks[0].query_key_value[1].weight
    assert float(default.diagonal().mean().detach()) == pytest.approx(0.01, rel=0.05)


def test_one_seed_gives_all_kinds_the_same_start():
    states = []
    for kind in ("galerkin", "fourier", "softmax", "linear"):
        torch.manual_seed(4)
        states.append(GalerkinTransformer(2, width=8, num_heads=2, depth=2, modes=2, kind=kind).state_dict())
    shared = [name for name in states[0] if ".norms." not in name]
    assert len(shared) == len(states[2])
    assert all(torch.equal(state[name], states[0][name]) for state in states for name in shared)


def test_sizes_reach_the_layers():
    model = GalerkinTransformer(2, width=12, num_heads=3, depth=5, modes=2)
    assert len(model.blocks) == 5
    assert model.blocks[0].mechanism.num_heads == 3
    assert model.blocks[0].ffn[0].weight.shape == model.project[0].weight.shape == (24, 12)
    assert [tuple(layer.weight.shape) for layer in model.spectral] == [(2, 4, 2, 12, 12)] * 2


def test_the_loss_has_derivatives_and_gradients_reach_every_parameter():
    model, values = built(2, gamma=0.5), torch.randn(2, 7, 9, dtype=torch.float64)
    wanted = torch.randn(2, 7, 9, dtype=torch.float64)
    loss = model(values, wanted)
    loss.backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in model.parameters())
    expected = relative_loss(built(2).functions(values), wanted, gamma=0.5)
    torch.testing.assert_close(loss, expected)
    assert not torch.allclose(loss, built(2)(values, wanted))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 3}, "dims: expected 1 or 2, got 3"),
        ({"boundary": "periodic"}, "boundary: expected one of free, zero, got 'periodic'"),
        ({"width": 8, "num_heads": 3}, "num_heads: expected a divisor of the width 8, got 3"),
        ({"modes": 0}, "modes: expected at least 1, got 0"),
        ({"kind": "fourrier"}, "kind: expected one of .*did you mean 'fourier'"),
        ({"gamma": -1.0}, "gamma: expected at least 0, got -1.0"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        GalerkinTransformer(**options)


@pytest.mark.parametrize(("dims", "shape"), [(1, (2, 5)), (1, (2, 9, 9)), (2, (2, 9)), (2, (2, 5, 9)), (2, (2, 9, 5))])
def test_functions_of_wrong_shapes(dims, shape):
    model = GalerkinTransformer(dims, width=4, modes=3)
    with pytest.raises(ValueError, match=r"values: expected \(batch, at least 2 \* modes.* with modes = 3, got"):
        model.functions(torch.zeros(shape))
