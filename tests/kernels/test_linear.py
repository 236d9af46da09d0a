"""The native linear recurrence gives what the token-by-token form gives: outputs, states and every gradient."""

from dataclasses import replace

import oracle
import pytest
import torch
from linear_cases import DTYPES, KINDS, NAMES, Case, assert_accurate, inputs, needs_kernels, run

from manymax.kernels import columns, linear, linear_call

pytestmark = needs_kernels
SIZES = [  # around vectors, strips of 6, sub-chunks of 16 and chunks of 48
    {"batch": 1, "heads": 1, "key_heads": 1, "tokens": 1, "dim": 1, "value_dim": 1},
    {"batch": 2, "heads": 4, "key_heads": 2, "tokens": 2, "dim": 3, "value_dim": 5},
    {"batch": 2, "heads": 3, "key_heads": 1, "tokens": 63, "dim": 17, "value_dim": 16},
    {"batch": 1, "heads": 2, "key_heads": 2, "tokens": 65, "dim": 64, "value_dim": 65},
    {"batch": 1, "heads": 2, "key_heads": 1, "tokens": 127, "dim": 66, "value_dim": 31},
    {"batch": 1, "heads": 1, "key_heads": 1, "tokens": 144, "dim": 5, "value_dim": 130},
    {"batch": 1, "heads": 1, "key_heads": 1, "tokens": 25, "dim": 270, "value_dim": 17},
]


@pytest.fixture
def poisoned(monkeypatch):
    """Fill outputs with NaN before the kernel runs, so that an entry it does not write shows."""

    def poisonous(empty):
        return lambda *args, **kwargs: empty(*args, **kwargs).fill_(torch.nan)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisonous(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", poisonous(torch.empty_like))


@pytest.fixture
def threads():
    """Restore the number of threads."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "x".join(map(str, sizes.values())))
@pytest.mark.usefixtures("poisoned")
def test_outputs_and_gradients(kind, sizes):
    assert_accurate(inputs(replace(kind, **sizes)))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.usefixtures("poisoned")
def test_half_precision(kind, dtype):
    assert_accurate(inputs(replace(kind, key_heads=1, dim=24, value_dim=25), dtype))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("tokens", [1, linear_call.FEW, linear_call.FEW + 1])
@pytest.mark.usefixtures("poisoned")
def test_few_tokens(kind, tokens):
    for state in (False, True):
        assert_accurate(inputs(replace(kind, state=state, tokens=tokens, dim=37, value_dim=70)))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("tokens", [0, 5])
@pytest.mark.usefixtures("poisoned")
def test_nothing_to_work_on(kind, tokens):
    given = inputs(replace(kind, tokens=tokens, batch=1 if tokens == 0 else 0, state=True))
    leaves = {name: x if x is None else x.requires_grad_() for name, x in given.items()}
    out, state = linear.attend(**leaves)
    torch.testing.assert_close(state, given["initial_state"])
    assert out.shape == (*given["query"].shape[:3], 16)
    (out.sum() + 3 * state.sum()).backward()
    for name, x in leaves.items():
        if x is not None:
            torch.testing.assert_close(x.grad, torch.full_like(x, 3 if name == "initial_state" else 0))


@pytest.mark.parametrize("sizes", [{"dim": 0}, {"value_dim": 0}, {"heads": 0}], ids=str)
@pytest.mark.usefixtures("poisoned")
def test_nothing_in_a_dim(sizes):
    given = inputs(replace(Case("token", delta=True, state=True), **sizes))
    assert_accurate(given)


@pytest.mark.parametrize(("decay", "delta"), [("token", False), ("token", True), ("channel", False)])
@pytest.mark.parametrize("worst", [-1e4, -104.0, -torch.inf])
def test_extreme_decays(decay, delta, worst):
    given = inputs(Case(decay, delta, state=True, tokens=150))
    given["log_decay"] = torch.where(torch.rand(given["log_decay"].shape) < 0.2, worst, given["log_decay"])
    assert_accurate(given)
    given["log_decay"][:, :, 60:80] = worst
    given["log_decay"][:, :, 80:] = 0.0
    assert_accurate(given)


@pytest.mark.parametrize("decay", ["head", "token", "channel"])
@pytest.mark.parametrize("strength", [1e-4, 6.0, 30.0])
def test_the_gradient_of_a_decay_is_exact_however_strong_it_is(decay, strength):
    """As the difference of two cumulative sums it would be rounding alone: here it is 1e-13 of the other gradients."""
    given = inputs(Case(decay, tokens=100, strength=strength, delta=decay == "token"))
    given["log_decay"] = given["log_decay"] / 2 - strength / 2
    exact, ours = run(oracle.recurrence, given, torch.float64), run(linear.attend, given)
    error = (ours["d_log_decay"] - exact["d_log_decay"]).abs().max() / exact["d_log_decay"].abs().max()
    assert error < 3e-6


@pytest.mark.parametrize(("decay", "delta"), [("head", False), ("token", True)])
def test_no_drift_over_32k_tokens(decay, delta):
    given = inputs(Case(decay, delta, heads=1, key_heads=1, tokens=32768, dim=4, value_dim=3, strength=1e-4))
    if decay == "head":
        given["log_decay"] = torch.tensor(
            [-1e-4]
        )  # its exponential, rounded to float32 once, is off by 5e-5 after 10^4 tokens
    with torch.no_grad():
        out, state = linear.attend(**given)
        exact, exact_state = oracle.recurrence(**{k: v if v is None else v.double() for k, v in given.items()})
    for name, got, want in (("out", out, exact), ("state", state, exact_state)):
        error = (got.double() - want).abs().max() / want.abs().max()
        assert error < 3e-6, f"{name}: {error:.1e}"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_size_of_a_chunk_changes_nothing(kind):
    given = inputs(replace(kind, tokens=401, dim=20, value_dim=21))
    want = run(linear.attend, given)
    for size in (1, 49, 96, 150, 100000):
        got = run(lambda size=size, **given: linear.attend(**given, chunk_size=size), given)
        for name, x in want.items():
            torch.testing.assert_close(got[name], x, rtol=1e-5, atol=2e-5 * max(1.0, x.abs().max().item()))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("cut", [1, 48, 67])
def test_carrying_the_state_over_a_cut_changes_nothing(kind, cut):
    given = inputs(replace(kind, state=True))

    def part(tokens, state):
        cut_out = {k: v if v is None or v.dim() < 3 else v[:, :, tokens] for k, v in given.items()}
        return linear.attend(**cut_out | {"initial_state": state})

    first, middle = part(slice(0, cut), given["initial_state"])
    rest, state = part(slice(cut, None), middle)
    out, final = linear.attend(**given)
    torch.testing.assert_close(torch.cat([first, rest], 2), out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_threads_and_repetition_change_nothing(kind, threads):
    for heads in (1, 2):  # one long head is cut into segments
        given = inputs(replace(kind, heads=heads, key_heads=1, tokens=1400 // heads, dim=30, value_dim=30))
        results = []
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            results.append(run(linear.attend, given))
        for got in results[1:]:
            for name, want in results[0].items():
                torch.testing.assert_close(got[name], want, rtol=0, atol=1e-5 * max(1.0, want.abs().max().item()))
        assert all(torch.equal(results[2][name], results[3][name]) for name in results[2])


@pytest.mark.parametrize("decay", ["token", "channel"])
def test_segments_of_a_long_head(decay, threads):
    torch.set_num_threads(3)
    assert_accurate(
        inputs(Case(decay, state=True, heads=1, key_heads=1, tokens=1400, dim=30, value_dim=30, strength=0.01))
    )


@pytest.mark.parametrize("decay", [None, "head", "token"])
@pytest.mark.parametrize(("heads", "key_heads", "width", "runs"), [(1, 1, 48, 3), (2, 1, 64, 2), (4, 2, 32, 2)])
def test_columns_of_a_long_delta_rule(decay, heads, key_heads, width, runs, threads, monkeypatch):
    monkeypatch.setattr(columns, "FEWEST", 150)
    torch.set_num_threads(6)
    case = Case(decay, True, True, 1, heads, key_heads, 150, 24, width, strength=0.01)
    given = inputs(case)
    assert columns.parts(linear_call.Tensors(*given.values())) == runs
    assert_accurate(given)


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ({}, 2),
        ({"value_dim": 80}, 1),  # five vectors are not cut in two
        ({"value_dim": 40}, 1),  # no whole vectors
        ({"heads": 2, "key_heads": 2}, 1),  # a head for each thread
        ({"tokens": columns.FEWEST - 1}, 1),
        ({"delta": False}, 1),  # segments of tokens serve it
        ({"batch": 0}, 1),
    ],
)
def test_when_columns_are_shared_out(change, runs, threads):
    torch.set_num_threads(2)
    case = Case("token", True, True, 1, 1, 1, columns.FEWEST, 8, 32)
    assert columns.parts(linear_call.Tensors(*inputs(replace(case, **change)).values())) == runs


def as_views(given):
    """Return the same inputs as other views of memory."""
    tokens = {name: given[name] for name in NAMES if given[name] is not None and name != "initial_state"}
    yield {name: x.mT.contiguous().mT if x.dim() == 4 else x for name, x in tokens.items()}  # the last stride is not 1
    yield {
        name: torch.stack([x, x], -2)[..., 1, :] if x.dim() == 4 else torch.stack([x, x], -1)[..., 1]
        for name, x in tokens.items()
    }
    yield {name: x.transpose(1, 2).contiguous().transpose(1, 2) if x.dim() > 1 else x for name, x in tokens.items()}
    padded = {name: torch.cat([x, x], 2)[:, :, : x.shape[2]] if x.dim() > 1 else x for name, x in tokens.items()}
    yield padded | {"initial_state": given["initial_state"].mT.contiguous().mT}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("length", [3, 50])
def test_any_strides(kind, dtype, length):
    given = inputs(replace(kind, state=True, tokens=length, dim=18), dtype)
    want = linear.attend(**given)
    for views in as_views(given):
        torch.testing.assert_close(linear.attend(**given | views), want, rtol=0, atol=0)


def test_expanded_inputs_are_read_in_place():
    given = inputs(Case("token", True, heads=4, key_heads=4))
    shared = {name: given[name][:, :1].expand(-1, 4, *given[name].shape[2:]) for name in ("key", "log_decay", "beta")}
    got = linear.attend(**given | shared)
    torch.testing.assert_close(
        got, linear.attend(**given | {k: v.contiguous() for k, v in shared.items()}), rtol=0, atol=0
    )


def test_outputs_are_laid_out_as_the_query():
    x = torch.randn(2, 70, 3, 8)
    for query in (x, x.transpose(1, 2)):
        leaf = query.detach().requires_grad_()
        out, _ = linear.attend(leaf, query, query)
        assert out.stride() == query.stride()
        assert torch.autograd.grad(out.sum(), leaf)[0].stride() == query.stride()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_token_sees_a_later_one(kind):
    given = inputs(replace(kind, tokens=60, state=True))
    leaves = {k: v if v is None else v.requires_grad_() for k, v in given.items()}
    out, _ = linear.attend(**leaves)
    later = [(name, leaves[name]) for name in NAMES[:5] if leaves[name] is not None and leaves[name].dim() > 1]
    for (name, _), grad in zip(later, torch.autograd.grad(out[:, :, :41].sum(), [x for _, x in later]), strict=True):
        assert not grad[:, :, 41:].any(), name
        assert grad[:, :, 30:41].any(), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("of", ["out", "final_state"])
@pytest.mark.parametrize("shape", ["head", "token"])
def test_one_gradient_alone(name, of, shape):
    given = inputs(Case(shape, True, state=True, tokens=60))
    given[name].requires_grad_()
    index = 0 if of == "out" else 1
    found = [
        torch.autograd.grad(function(**given)[index].square().sum() + 0 * given[name].sum(), given[name])[0]
        for function in (linear.attend, oracle.recurrence)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
