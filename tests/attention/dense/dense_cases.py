"""One description of a call serves every test of a backend: its tensors, its arguments, its outputs and gradients."""

import dataclasses
import math
from dataclasses import dataclass, field
from random import Random

import torch

import manymax as mm
from manymax.attention.dense import plan, tiles
from manymax.attention.dense.call import make_call
from manymax.attention.dense.dispatch import BACKENDS
from manymax.maps.rule import as_rows, reference

RATIO = ("power_softmax", "softmax", "softmax1", "softplus", "spherical_softmax", "stablemax", "taylor_softmax")
POINTWISE = ("relu", "sigmoid", "squared_relu")
THRESHOLD = ("clipped_softmax", "entmax", "entmax15", "sparsemax", "topk_softmax")
COUPLED = ("normalized", "sinkhorn")
OPTIONS = {
    "clipped_softmax": {"zeta": 1.1, "gamma": -0.05, "temperature": 0.8},
    "entmax": {"alpha": 1.3},
    "power_softmax": {"p": 2, "eps": 0.3, "length_agnostic": True, "temperature": 1.7},
    "sigmoid": {"temperature": 0.6},
    "softmax": {"temperature": 1.3},
    "softmax1": {"temperature": 0.7},
    "sparsemax": {"temperature": 0.5},
    "taylor_softmax": {"order": 4},
    "topk_softmax": {"k": 3},
}


@dataclass(frozen=True)
class Case:
    """A call in numbers. Masks: "bool", "float" or None. Bias: the dims it has in full, of "bhqk", or None."""

    map: str = "softmax"
    batch: int = 2
    heads: int = 4
    key_heads: int = 2
    queries: int = 33
    keys: int = 29
    dim: int = 8
    value_dim: int = 5
    causal: str | None = None
    window: object = None
    mask: str | None = None
    bias: str | None = None
    softcap: float | None = None
    sinks: bool = False
    lse: bool = False
    scale: float | None = None
    strided: bool = False
    spread: float = 1.0
    options: dict = field(default_factory=dict)
    seed: int = 0
    precision: torch.dtype = torch.float64

    def __str__(self):
        changed = [
            f"{f.name}={getattr(self, f.name)}"
            for f in dataclasses.fields(self)
            if f.default is not dataclasses.MISSING and getattr(self, f.name) != f.default
        ]
        return ",".join(changed) or "default"


def arguments(case, dtype=torch.float64):
    """Return the call's arguments, and its leaves by name."""
    generator = torch.Generator().manual_seed(case.seed)

    def leaf(*shape, spread=1.0):
        x = torch.randn(*shape, dtype=torch.float64, generator=generator) * spread
        x = x.to(case.precision).to(dtype)  # so that calls in several dtypes see the same inputs
        if case.strided and len(shape) == 4:
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        return x.requires_grad_()

    b, hq, hk, nq, nk = case.batch, case.heads, case.key_heads, case.queries, case.keys
    leaves = {
        "query": leaf(b, hq, nq, case.dim, spread=case.spread),
        "key": leaf(b, hk, nk, case.dim),
        "value": leaf(b, hk, nk, case.value_dim),
    }
    full = dict(zip("bhqk", (b, hq, nq, nk), strict=True))
    if case.bias is not None:
        leaves["bias"] = leaf(*(full[d] if d in case.bias else 1 for d in "bhqk"))
    if case.mask == "float":
        leaves["attn_mask"] = leaf(b, 1, nq, nk)
        hidden = torch.rand(b, 1, nq, nk, generator=generator) < 0.3
        leaves["attn_mask"].data.masked_fill_(hidden, -torch.inf)
    if case.sinks:
        leaves["sinks"] = leaf(hq)
    given = dict(leaves)
    if case.mask == "bool":
        given["attn_mask"] = torch.rand(b, 1, nq, nk, generator=generator) > 0.3
        given["attn_mask"][0, 0, min(1, nq - 1)] = False  # a row with nothing to see
    given |= {
        "map": mm.create_map(case.map, **(case.options or OPTIONS.get(case.map, {}))),
        "is_causal": case.causal is not None,
        "causal_align": case.causal or "top-left",
        "window": case.window,
        "softcap": case.softcap,
        "return_lse": case.lse,
        "scale": case.scale,
        "enable_gqa": hq != hk,
    }
    return given, leaves


def as_call(case, dtype=torch.float64):
    given, _ = arguments(case, dtype)
    return make_call(**given)


def directions(results, seed=1):
    """Return fixed random gradients of the results."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(x.shape, dtype=torch.float64, generator=generator).to(x.dtype) for x in results]


def outcome(case, backend, dtype=torch.float64, run=None):
    """Return {name: tensor} of outputs and gradients; rows whose lse is -inf pass no gradient back."""
    given, leaves = arguments(case, dtype)
    call = make_call(**given)
    if run is None:
        assert BACKENDS[backend].refusal(call) is None
        run = BACKENDS[backend].run
    results = run(call)
    loss = sum(
        (torch.where(x == -torch.inf, 0, x).double() * d.double()).sum()
        for x, d in zip(results, directions(results), strict=True)
    )
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    names = ["out", "lse"][: len(results)]
    return dict(zip(names, (x.detach() for x in results), strict=True)) | dict(
        zip((f"d_{name}" for name in leaves), gradients, strict=True)
    )


EVERYTHING = {
    "causal": (None, "top-left", "bottom-right"),
    "window": (None, 5, (9, 3), (None, 2)),
    "mask": (None, "bool", "float"),
    "bias": (None, "h", "qk", "bhk"),
    "softcap": (None, 1.5),
    "sinks": (False, True),
    "shape": ((33, 29, 5), (20, 41, 8), (1, 30, 11), (17, 1, 8), (65, 63, 3), (2, 2, 4)),
    "strided": (False, True),
    "scale": (None, -0.4, 0.0),
}


def combinations(count, **fixed):
    """Return cases that mix all options, without a regular pattern and the same ones in every run."""
    random = Random(f"{count} {fixed}")
    for seed in range(count):
        chosen = {name: random.choice(values) for name, values in EVERYTHING.items()}
        chosen["queries"], chosen["keys"], chosen["value_dim"] = chosen.pop("shape")
        yield Case(**{**chosen, "seed": seed, **fixed})


def assert_same(case, backend, tolerance=1e-11):
    """A backend gives the reference's outputs and gradients, in float64."""
    expected, got = outcome(case, "reference"), outcome(case, backend)
    assert expected.keys() == got.keys()
    for name, want in expected.items():
        finite = want[want.isfinite()].abs()
        size = max(finite.max().item(), 1.0) if finite.numel() else 1.0
        torch.testing.assert_close(got[name], want, rtol=0, atol=tolerance * size, msg=lambda m, n=name: f"{n}: {m}")


def use_small_tiles(monkeypatch, rows=24, columns=13, elements=700):
    """Make every call of several tiles; return the list of (rows, columns) of the tiles that were computed."""
    monkeypatch.setattr(plan, "ROWS", rows)
    monkeypatch.setattr(plan, "COLUMNS", columns)
    monkeypatch.setattr(plan, "ELEMENTS", elements)
    computed, compute = [], tiles.Block._tile

    def counting(block, columns):
        computed.append((block.rows, columns))
        return compute(block, columns)

    monkeypatch.setattr(tiles.Block, "_tile", counting)
    return computed


def plain(call):
    """Return the formula with every step in the inputs' own dtype, as a user would write it."""
    inputs, options, rule = call.inputs, call.options, call.options.rule
    key, value = (x.repeat_interleave(inputs.groups, 1) for x in (inputs.key, inputs.value))
    scores = options.scale * (inputs.query @ key.mT)
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    for addition in inputs.additions:
        scores = scores + addition
    nq, nk = scores.shape[-2:]
    visible = torch.ones(nq, nk, dtype=torch.bool)
    distance = torch.arange(nk) - torch.arange(nq)[:, None]
    visible &= distance >= (-math.inf if options.band.low is None else options.band.low)
    visible &= distance <= (math.inf if options.band.high is None else options.band.high)
    visible = visible if inputs.mask is None else visible & inputs.mask
    visible = visible.expand(scores.shape)
    if inputs.sinks is not None:
        scores = torch.cat([inputs.sinks[:, None, None].expand(*scores.shape[:3], 1), scores], -1)
        visible = torch.cat([torch.ones_like(visible[..., :1]), visible], -1)
    out = reference(rule, scores, -1, visible)[..., -nk:] @ value
    if not options.return_lse:
        return (out,)
    rule, scores, visible = as_rows(rule, scores, -1, visible)
    return out, rule.log_total(scores, visible).squeeze(-1)


def errors(case, backend, dtype):
    """Return {name: differences of the backend, differences of the plain formula, exact values}, all flat."""
    case = dataclasses.replace(case, precision=dtype)
    exact, got, rough = (
        outcome(case, "reference"),
        outcome(case, backend, dtype),
        outcome(case, "reference", dtype, run=plain),
    )
    found = {}
    for name, want in exact.items():
        finite = want != -torch.inf  # the logarithm of an empty row's denominator
        assert torch.equal(got[name] != -torch.inf, finite), f"{name} of {case}"
        found[name] = [x[finite] for x in (got[name].double() - want, rough[name].double() - want, want)]
    return found


def assert_accurate(case, backend, dtype, times=2):
    """Over a few seeds, the mean error to float64 is at most `times` that of the plain formula in the same dtype.

    So is nearly the largest error: that of one entry is the size of a rounding or two, and hence half as large by luck.
    """
    wrong = {}
    for seed in range(4):
        for name, found in errors(dataclasses.replace(case, seed=seed), backend, dtype).items():
            wrong.setdefault(name, []).append(found)
    for name, found in wrong.items():
        ours, theirs, exact = (torch.cat(parts) for parts in zip(*found, strict=True))
        tiny = torch.finfo(dtype).eps
        assert ours.norm() <= times * theirs.norm() + tiny / 4 * exact.norm(), name
        assert ours.abs().max() <= 1.5 * times * theirs.abs().max() + tiny * exact.abs().max(), name


def assert_accurate_on_the_whole(cases, backend, dtype, times=2, errors=errors):
    """Over many cases the mean of relative errors is at most `times` the plain formula's; each alone is of its size.

    Luck of a single case, such as a row of one key, which the plain formula gets exactly right, does not count.
    """
    shares, tiny = {}, torch.finfo(dtype).eps
    for case in cases:
        for name, (*differences, exact) in errors(case, backend, dtype).items():
            size = max(float(exact.norm()), 0.1 * math.sqrt(max(exact.numel(), 1)))
            ours, theirs = (float(x.norm()) / size / tiny for x in differences)
            assert ours <= 4 * theirs + 25, f"{name} of {case}: {ours:.1f} eps, plain {theirs:.1f}"
            shares.setdefault(name, []).append((ours, theirs))
    assert shares
    for name, found in shares.items():
        ours, theirs = (sum(x) / len(found) for x in zip(*found, strict=True))
        assert ours <= times * theirs + 0.25, f"{name}: {ours:.2f} eps, plain {theirs:.2f}"
