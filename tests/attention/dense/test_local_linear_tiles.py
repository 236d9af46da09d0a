"""Local linear attention by tiles against the same fits in full: values, gradients, and what is ever held."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, Largest, make, tokens

from manymax.attention.cache import TokenCache
from manymax.attention.dense import local_linear_attention
from manymax.attention.dense.local_linear import local_linear
from manymax.attention.dense.local_linear_attention import local_fit
from manymax.attention.dense.local_linear_tiles import Block, Layout, local_linear_tiles
from manymax.attention.dense.visibility import make_band

NAME = "local-linear-attention"


def inputs(queries, keys, *, batch=2, heads=3, dim=5, value_dim=4, seed=0):
    """Query, key, value, ridge and scale in float64 that want gradients, which keys are there, and a direction."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    query, key, value = (draw(batch, heads, *x) for x in ((queries, dim), (keys, dim), (keys, value_dim)))
    ridge, scale = 0.5 + draw(heads, 1, 1).square(), 0.2 + 0.3 * draw(heads, 1, 1).abs()
    keep = torch.rand(batch, keys, generator=generator) > 0.3
    return [x.requires_grad_() for x in (query, key, value, ridge, scale)], keep, draw(batch, heads, queries, value_dim)


def in_full(tensors, keep, *, is_causal, solver):
    """The oracle: the weights of all pairs at once."""
    query, key, value, ridge, scale = tensors
    seen = keep[:, None, None]
    if is_causal:
        pairs = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool)
        seen = seen & pairs.tril(key.shape[2] - query.shape[2])
    return local_linear(query, key, value, seen, scale=scale, ridge=ridge, solver=solver)


def by_tiles(tensors, keep, rows, columns, *, is_causal, iterations=None):
    query, key, value, ridge, scale = tensors
    band = make_band(query.shape[2], key.shape[2], (None, None), is_causal=is_causal, align_last=True)
    return local_linear_tiles(
        query,
        key,
        value,
        keep,
        band,
        scale=scale,
        ridge=ridge,
        iterations=iterations,
        block_size=rows,
        key_block_size=columns,
    )


@pytest.mark.parametrize("solver", ["cg", "exact"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (5, 2), (64, 128)])
@pytest.mark.parametrize(
    ("queries", "keys", "is_causal"), [(1, 1, True), (9, 9, True), (7, 13, True), (7, 13, False), (13, 7, True)]
)
def test_tiles_fit_as_all_pairs_at_once_do(queries, keys, is_causal, rows, columns, solver):
    tensors, keep, direction = inputs(queries, keys)
    expected = in_full(tensors, keep, is_causal=is_causal, solver=solver)
    out = by_tiles(tensors, keep, rows, columns, is_causal=is_causal)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)
    found, wanted = (torch.autograd.grad((x * direction).sum(), tensors) for x in (out, expected))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-8 * max(1.0, float(theirs.abs().max())))
    if queries == 9:
        assert all(x.norm() > 1e-3 for x in wanted)


def test_gradients_are_those_of_differences():
    tensors, keep, _ = inputs(5, 5, batch=1, heads=2, dim=3, value_dim=2)
    assert torch.autograd.gradcheck(lambda *x: by_tiles(x, keep[:1], 2, 3, is_causal=True), tensors)


@pytest.mark.parametrize("tiled", [True, False])
def test_second_derivatives_are_refused(tiled):
    tensors, keep, _ = inputs(5, 5)
    options = {"is_causal": True}
    out = by_tiles(tensors, keep, 2, 2, **options) if tiled else in_full(tensors, keep, solver="cg", **options)
    (grad,) = torch.autograd.grad(out.sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives; solver='exact' does"):
        grad.sum().backward()


def test_a_direct_solve_has_second_derivatives():
    tensors, keep, _ = inputs(3, 3, batch=1, heads=1, dim=2, value_dim=2)
    keep[:] = True
    assert torch.autograd.gradgradcheck(lambda *x: in_full(x, keep, is_causal=True, solver="exact"), tensors)


@pytest.mark.parametrize("kept", ["none", "late"])
def test_a_query_that_sees_nothing_gives_zero(kept):
    tensors, keep, direction = inputs(9, 9)
    keep[:] = kept == "late"
    keep[:, :5] = False
    out = by_tiles(tensors, keep, 2, 3, is_causal=True)
    blind = out if kept == "none" else out[:, :, :5]
    assert (blind == 0).all()
    query_grad, *others = torch.autograd.grad((out * direction).sum(), tensors)
    assert (query_grad[:, :, : 9 if kept == "none" else 5] == 0).all()
    assert all(x.isfinite().all() for x in others)
    if kept == "late":
        assert out[:, :, 5:].abs().min() > 0


def test_scores_that_rise_from_tile_to_tile_are_rescaled():
    """Scores go from about -100 to 150, so that what a tile sums is too large or too small beside the next one's."""
    (query, key, value, ridge, scale), keep, direction = inputs(12, 12)
    query, key = 0.1 * query.detach(), key.detach()
    query[..., 0] = 10
    key[..., 0] = torch.tensor([-10, -7, -4, 0, 3, 6, 9, 12, 14.7, 14.8, 14.9, 15.0], dtype=torch.float64)
    tensors = [x.detach().requires_grad_() for x in (query, key, value, ridge * 4e64, torch.ones_like(scale))]
    expected = in_full(tensors, keep, is_causal=False, solver="exact")
    assert ((expected - value[:, :, -1:]).abs() > 1e-3).all()  # more than the last key counts
    wanted = torch.autograd.grad((expected * direction).sum(), tensors)
    for order in (slice(None), torch.arange(11, -1, -1)):  # rising and falling
        query, key, value, ridge, scale = tensors
        turned = [query, key[:, :, order], value[:, :, order], ridge, scale]
        out = by_tiles(turned, keep[:, order], 5, 2, is_causal=False)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)
        for mine, theirs in zip(torch.autograd.grad((out * direction).sum(), tensors), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9 * float(theirs.abs().max()))


def test_roundings_hold_a_fit_that_the_ridge_does_not():
    """Beside weights of e^150 a ridge of 1 is nothing: what holds is a part of sums that are rescaled as well."""
    (query, key, value, ridge, scale), keep, direction = inputs(12, 12)
    query, key = 0.1 * query.detach(), key.detach()
    query[..., 0] = 10
    key[..., 0] = torch.tensor([-10.0, 0.0, *torch.linspace(14.5, 15, 10).tolist()], dtype=torch.float64)
    tensors = [x.detach().requires_grad_() for x in (query, key, value, ridge, torch.ones_like(scale))]
    keep[:] = True
    expected = in_full(tensors, keep, is_causal=False, solver="exact")
    out = by_tiles(tensors, keep, 5, 2, is_causal=False)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    *found, d_ridge, _ = torch.autograd.grad((out * direction).sum(), tensors)
    *wanted, same, _ = torch.autograd.grad((expected * direction).sum(), tensors)
    assert (d_ridge == 0).all()
    assert (same == 0).all()
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    block = Block(
        query,
        query,
        key,
        None,
        Layout(make_band(12, 12, (None, None), is_causal=False, align_last=True), 12, 2, 1),
        slice(0, 12),
    )
    block.start(ridge)
    scores = query @ key.mT
    weights = (scores - scores.amax(3, keepdim=True)).exp()
    squares = (weights * (key[:, :, None] - query[:, :, :, None]).square().sum(4)).sum(3, keepdim=True)
    torch.testing.assert_close(block.ridge, 100 * 2.0**-52 * squares, rtol=1e-9, atol=0)


@pytest.mark.parametrize("spread", [60.0, 400.0])
def test_large_scores_stay_finite(spread):
    tensors, keep, direction = inputs(12, 12)
    tensors = [x.detach().float().requires_grad_() for x in [*tensors[:4], spread * tensors[4]]]
    out = by_tiles(tensors, keep, 5, 2, is_causal=True)
    assert out.isfinite().all()
    assert all(x.isfinite().all() for x in torch.autograd.grad((out * direction.float()).sum(), tensors))
    assert in_full(tensors, keep, is_causal=True, solver="cg").isfinite().all()


@pytest.mark.parametrize("iterations", [1, 2, None])
def test_iterations_are_those_that_were_asked_for(iterations):
    tensors, keep, _ = inputs(11, 11)
    query, key, value, ridge, scale = tensors
    seen = keep[:, None, None]
    expected = local_linear(query, key, value, seen, scale=scale, ridge=ridge, iterations=iterations)
    out = by_tiles(tensors, keep, 3, 4, is_causal=False, iterations=iterations)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("is_causal", [True, False])
def test_nothing_larger_than_inputs_and_a_tile_is_ever_held(is_causal):
    count, rows, columns = 300, 32, 48
    module = make((NAME, {"block_size": rows, "key_block_size": columns, "iterations": 2}))
    tensors = [x.requires_grad_() for x in tokens(count, batch=1)]
    mask = torch.ones(1, 1, 1, count, dtype=torch.bool)
    mask[..., 7] = False
    with Largest() as largest:
        module(*tensors, attn_mask=mask, is_causal=is_causal).sum().backward()
    assert largest.numel == HEADS * max(count * DIM, rows * columns)
    with Largest() as largest:
        make((NAME, {"block_size": rows}))(*tensors, attn_mask=mask, is_causal=is_causal).sum().backward()
    assert largest.numel >= HEADS * rows * count  # or this would count nothing


@pytest.mark.parametrize("is_causal", [True, False])
def test_many_keys_are_cut_into_tiles_by_themselves(monkeypatch, is_causal):
    sizes = []

    def record(*args, key_block_size, **options):
        sizes.append(key_block_size)
        return local_linear_tiles(*args, key_block_size=key_block_size, **options)

    monkeypatch.setattr(local_linear_attention, "local_linear_tiles", record)
    monkeypatch.setattr(local_linear_attention, "WHOLE", 10)
    monkeypatch.setattr(local_linear_attention, "COLUMNS", 4)
    for count in (10, 11):
        make((NAME, {}))(*tokens(count), is_causal=is_causal)
    assert sizes == [4]
    make((NAME, {"key_block_size": 3}))(*tokens(10), is_causal=is_causal)
    assert sizes == [4, 3]


def test_regression_at_test_time_is_cut_as_well(monkeypatch):
    expected = make(("test-time-regression", {"solver": "local-linear"}))(*tokens(9), is_causal=True)
    monkeypatch.setattr(local_linear_attention, "WHOLE", 4)
    monkeypatch.setattr(local_linear_attention, "COLUMNS", 2)
    with Largest() as largest:
        out = make(("test-time-regression", {"solver": "local-linear"}))(*tokens(9), is_causal=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)
    assert largest.numel < 2 * HEADS * 9 * 9


def test_an_unknown_solver_is_refused_whatever_the_size():
    (query, key, value, ridge, scale), keep, _ = inputs(3, 3)
    with pytest.raises(ValueError, match="solver: expected one of cg, exact, got 'qr'"):
        local_fit(
            query,
            TokenCache(key, value, keep),
            is_causal=True,
            scale=scale,
            ridge=ridge,
            solver="qr",
            key_block_size=2,
        )
