"""Calls for the native backend: which maps it has, and its outputs without gradients."""

import dataclasses

import pytest
import torch
from dense_cases import POINTWISE, RATIO, THRESHOLD, Case, arguments, as_call, combinations, plain

from manymax.attention.dense import native, reference
from manymax.attention.dense.call import make_call
from manymax.kernels.native import native as module
from manymax.kernels.native import status

needs_kernels = pytest.mark.skipif(module() is None, reason=status())
HAVE = tuple(
    name for name in (*RATIO, *POINTWISE, *THRESHOLD) if module() is not None and module().find_attention(name) >= 0
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OTHER = {  # options that the kernels have; dense_cases' own for the rest
    "power_softmax": {"p": 6, "eps": 0.3, "temperature": 1.7},
    "spherical_softmax": {"eps": 0.5},
    "squared_relu": {"temperature": 2.0},
}


def case_of(name, **changes):
    """Return a case of a map with options other than the defaults, without sinks for maps that have none."""
    if name in POINTWISE:
        changes["sinks"] = False
    changes.setdefault("lse", name in RATIO)
    return Case(map=name, options=OTHER.get(name, {}), **changes)


def mixed(name, count, **fixed):
    """Return cases that mix all options."""
    for case in combinations(count, map=name, options=OTHER.get(name, {}), lse=name in RATIO, **fixed):
        yield dataclasses.replace(case, sinks=case.sinks and name not in POINTWISE)


def forwards(case, dtype=torch.float32, **changes):
    """Return out, and lse if the case asks for it, without gradients."""
    given, _ = arguments(dataclasses.replace(case, precision=dtype), dtype)
    with torch.no_grad():
        call = make_call(**given | changes)
        assert native.refusal(call) is None
        return native.run(call)


def errors_forwards(case, backend, dtype):
    """Return dense_cases' errors of out and lse alone."""
    case = dataclasses.replace(case, precision=dtype)
    got = forwards(case, dtype)
    with torch.no_grad():
        exact = reference.run(as_call(case))
        rough = plain(make_call(**arguments(case, dtype)[0]))
    found = {}
    for name, ours, theirs, want in zip(("out", "lse"), got, rough, exact, strict=False):
        finite = want != -torch.inf
        assert torch.equal(ours != -torch.inf, finite)
        found[name] = [x[finite] for x in (ours.double() - want, theirs.double() - want, want)]
    return found


@pytest.fixture
def poisoned(monkeypatch):
    """Fill outputs with NaN before the kernel runs, so that an entry it does not write shows."""
    empty = torch.Tensor.new_empty

    def poison(x, *args, **kwargs):
        return empty(x, *args, **kwargs).fill_(torch.nan)

    monkeypatch.setattr(torch.Tensor, "new_empty", poison)
