"""Any combination of options, on every backend that serves it."""

from dataclasses import replace

import pytest
import torch
from dense_cases import COUPLED, POINTWISE, RATIO, THRESHOLD, Case, as_call, assert_same, errors, use_small_tiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_cases import DTYPES, OTHER, errors_forwards

from manymax.attention.dense import native
from manymax.attention.dense.dispatch import BACKENDS


@st.composite
def cases(draw):
    name = draw(st.sampled_from((*RATIO, *POINTWISE, *THRESHOLD, *COUPLED)))
    key_heads = draw(st.integers(1, 2))
    side = st.none() | st.integers(0, 12)
    return Case(
        map=name,
        batch=draw(st.integers(1, 3)),
        heads=key_heads * draw(st.integers(1, 3)),
        key_heads=key_heads,
        queries=draw(st.integers(1, 20)),
        keys=draw(st.integers(1, 20)),
        dim=draw(st.integers(1, 6)),
        value_dim=draw(st.integers(1, 6)),
        causal=draw(st.sampled_from((None, "top-left", "bottom-right"))),
        window=draw(side | st.tuples(side, side)),
        mask=draw(st.sampled_from((None, "bool", "float"))),
        bias=draw(st.none() | st.sets(st.sampled_from("bhqk")).map(lambda dims: "".join(sorted(dims)))),
        softcap=draw(st.none() | st.floats(0.5, 5)),
        sinks=name in (*RATIO, *THRESHOLD) and draw(st.booleans()),
        lse=name in RATIO and draw(st.booleans()),
        scale=draw(st.none() | st.floats(-1, 1)),
        strided=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


# Without randomness between runs: a failure here is a bug of this commit and not of the last night.
SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SETTINGS
@given(case=cases())
def test_backends_agree(case, monkeypatch):
    use_small_tiles(monkeypatch, rows=8, columns=5, elements=100)
    for name in ("tiled", "sdpa"):
        if BACKENDS[name].refusal(as_call(case)) is None:
            assert_same(case, name, tolerance=1e-9)


@SETTINGS
@given(case=cases(), dtype=st.sampled_from(DTYPES), few=st.booleans())
def test_native_kernels_agree(case, dtype, few, monkeypatch):
    case = replace(case, options=OTHER.get(case.map, {}))
    if BACKENDS["cpu"].refusal(as_call(case, dtype)) is None:
        found = errors(case, "cpu", dtype) if not few else errors_of_few(case, dtype, monkeypatch)
        for name, (ours, theirs, exact) in found.items():
            size = float(exact.norm()) + max(exact.numel(), 1) ** 0.5
            wrong, plain = (float(x.norm()) / size / torch.finfo(dtype).eps for x in (ours, theirs))
            assert wrong <= 4 * plain + 25, f"{name}: {wrong:.1f} eps, plain {plain:.1f}"


def errors_of_few(case, dtype, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(native, "FEW", 10**6)
        return errors_forwards(case, "cpu", dtype)


@pytest.mark.slow
@settings(SETTINGS, max_examples=1500, derandomize=False)
@given(case=cases())
def test_backends_agree_on_many(case, monkeypatch):
    test_backends_agree.hypothesis.inner_test(case, monkeypatch)
