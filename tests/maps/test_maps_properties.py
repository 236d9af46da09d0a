"""Random shapes, values, dims and masks: every map against its oracle, and what masks promise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from map_cases import CASES, named

every_case = pytest.mark.parametrize("case", named(CASES))
few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Far apart, equal, opposite and tiny scores in one row; -inf is not there.
values = st.one_of(
    st.floats(-6, 6, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, 1e-3, 30.0, -30.0, -math.inf])
)


@st.composite
def problems(draw):
    """Draw scores of 1 to 3 dims, a dim, and a mask that broadcasts or none."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    count = math.prod(shape)
    x = torch.tensor(draw(st.lists(values, min_size=count, max_size=count)), dtype=torch.float64).reshape(shape)
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    if draw(st.booleans()):
        return x, dim, None
    sizes = [size if draw(st.booleans()) else 1 for size in shape]
    bits = draw(st.lists(st.booleans(), min_size=math.prod(sizes), max_size=math.prod(sizes)))
    return x, dim, torch.tensor(bits).reshape(sizes)


@every_case
@few
@given(problem=problems())
def test_oracle(case, problem):
    x, dim, mask = problem
    mask = None if mask is None else mask.expand(x.shape)
    # A weight that starts with a vertical slope carries the score's rounding to the power of 1 / 1.7.
    tolerance = 1e-8 if case.options.get("alpha") == 2.7 else 1e-10
    torch.testing.assert_close(case(x, dim, mask=mask), case.expected(x, dim, mask), rtol=tolerance, atol=tolerance)


@every_case
@few
@given(problem=problems(), garbage=st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))
def test_what_is_masked_does_not_matter_and_has_no_gradient(case, problem, garbage):
    x, dim, mask = problem
    mask = (torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand(x.shape)) & (x != -math.inf)
    clean, spoilt = (torch.where(mask, x, fill).requires_grad_() for fill in (0.0, garbage))
    outputs = [case(x, dim, mask=mask) for x in (clean, spoilt)]
    assert torch.equal(*outputs)
    assert (outputs[0][~mask] == case.hidden).all()
    assert torch.isfinite(outputs[0][mask]).all()
    upstream = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
    grads = [
        torch.autograd.grad((o * upstream).masked_select(mask).sum(), x)
        for o, x in zip(outputs, (clean, spoilt), strict=True)
    ]
    assert torch.equal(grads[0][0], grads[1][0])
    assert (grads[0][0][~mask] == 0).all()
    assert torch.isfinite(grads[0][0]).all()
