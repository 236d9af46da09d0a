"""Dynamical systems: scan and matrix form agree, and what is converted to them is what it was."""

import pytest
import torch
from mechanism_cases import CAUSAL, DIM, HEADS, make, tokens

import manymax as mm
from manymax.attention.linear.features import FEATURES
from manymax.attention.linear.module import LinearAttention
from manymax.attention.linear.streams import Streams
from manymax.attention.recurrent.dynamical_system import (
    DynamicalSystem,
    from_gates,
    from_linear_attention,
    from_mechanism,
    from_selective,
    from_softmax,
    from_streams,
)
from manymax.attention.registry import mechanism_class

EXACT = {"rtol": 1e-9, "atol": 1e-9}
LINEAR = {
    label: case
    for label, case in CAUSAL.items()
    if issubclass(mechanism_class(case[0]), LinearAttention) and case[0] != "nats-l"  # two parts, one of them softmax
}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_the_two_forms_agree_whatever_the_shapes():
    torch.manual_seed(0)
    for channels in (1, 3):
        system = DynamicalSystem(
            random(2, HEADS, 9, 3),
            random(2, HEADS, 9, 4, 3),
            random(2, HEADS, 9, 4, channels),
            random(2, HEADS, 9, 4, channels),
            random(2, HEADS, 9, 4, 4),
            random(2, HEADS, 9, channels),
        )
        out = system.scan()
        torch.testing.assert_close(system.convolve(), out, **EXACT)
        matrix = system.matrix()
        assert (matrix.permute(0, 1, 4, 2, 3).triu(1) == 0).all()
        hidden = torch.zeros(4, 3, dtype=torch.float64)
        for i in range(9):  # the definition, for one sequence and head
            decayed = system.mixing[1, 2, i] @ (system.decay[1, 2, i] * hidden)
            hidden = decayed + system.write[1, 2, i] * system.inputs[1, 2, i]
            y = (system.read[1, 2, i] * hidden).sum(0) + system.skip[1, 2, i] * system.inputs[1, 2, i]
            torch.testing.assert_close(out[1, 2, i], y, **EXACT)


@pytest.mark.parametrize("case", list(LINEAR.values()), ids=list(LINEAR))
def test_every_mechanism_of_the_linear_family_is_one(case):
    module, (query, key, value) = make(case), tokens(12, kv_heads=2)
    system = from_mechanism(module, query, key, value)
    streams = module.streams(*module._convolve(query, key, value, None, None)[:3], torch.arange(12).expand(2, -1))
    for out in (system.scan(), system.convolve()):
        torch.testing.assert_close(
            module.finish(out, streams, value), module(query, key, value, is_causal=True), **EXACT
        )


def test_decays_gates_and_the_delta_rule_are_read():
    query, key, value = tokens(10)
    gates = -random(2, HEADS, 10).abs()
    for more in ({"log_decay": -random(HEADS).abs()}, {"log_decay": -random(2, HEADS, 10, DIM).abs()},
                 {"log_decay": gates, "beta": torch.rand(2, HEADS, 10).double()}):  # fmt: skip
        expected, _ = mm.linear_attention(query, key, value, **more)
        system = from_streams(Streams(query, key, value, **more))
        torch.testing.assert_close(system.scan(), expected, **EXACT)
        torch.testing.assert_close(system.convolve(), expected, **EXACT)


def test_linear_attention_has_its_normaliser_inside():
    query, key, value = tokens(12)
    system = from_linear_attention(query, key, value, FEATURES["elu"])
    expected = make(("linear", {}))(query, key, value, is_causal=True)
    torch.testing.assert_close(system.scan(), expected, **EXACT)
    rows = system.matrix()[..., 0].sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows), **EXACT)


def test_softmax_is_the_limit_of_taylor_orders():
    query, key, value = (0.3 * x for x in tokens(6))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    errors = [(from_softmax(query, key, value, order).scan() - expected).abs().max() for order in (1, 2, 4)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 1e-5


def test_selective_state_spaces():
    torch.manual_seed(0)
    u, step, write, read = random(1, 2, 7, 3), torch.rand(1, 2, 7, 3).double(), random(1, 2, 7, 4), random(1, 2, 7, 4)
    rate, skip = torch.rand(2, 4, 3).double(), random(2, 3)
    system = from_selective(u, step, rate, write, read, skip)
    for head in range(2):
        for channel in range(3):
            h = torch.zeros(4, dtype=torch.float64)
            for i in range(7):
                delta = step[0, head, i, channel]
                h = (-delta * rate[head, :, channel]).exp() * h + delta * write[0, head, i] * u[0, head, i, channel]
                y = read[0, head, i] @ h + skip[head, channel] * u[0, head, i, channel]
                torch.testing.assert_close(system.scan()[0, head, i, channel], y, **EXACT)
    torch.testing.assert_close(system.convolve(), system.scan(), **EXACT)


def test_gated_networks():
    u, forget, write, read = random(1, 2, 7, 3), *torch.rand(3, 1, 2, 7, 3).double()
    system = from_gates(u, forget, write, read)
    h = torch.zeros(1, 2, 3, dtype=torch.float64)
    for i in range(7):
        h = forget[:, :, i] * h + write[:, :, i] * u[:, :, i]
        torch.testing.assert_close(system.scan()[:, :, i], read[:, :, i] * h, **EXACT)
    torch.testing.assert_close(system.convolve(), system.scan(), **EXACT)


@pytest.mark.parametrize("normaliser", ["exp", "softplus", "sigmoid"])
def test_normalised_attention_divides_by_a_function_of_the_token(normaliser):
    module, (query, key, value) = make(("dsf", {"normaliser": normaliser})), tokens(9)
    torch.nn.init.normal_(module.linear.bias)
    raw = value @ module.linear.weight + module.linear.bias
    eta = {"exp": raw.exp(), "softplus": (1 + raw.exp()).log(), "sigmoid": 1 / (1 + (-raw).exp())}[normaliser]
    expected = (query @ key.transpose(2, 3)).tril() @ value / eta
    torch.testing.assert_close(module(query, key, value, is_causal=True), expected, **EXACT)
    torch.testing.assert_close(module(query, key, value), query @ key.transpose(2, 3) @ value / eta, **EXACT)


def test_wrong_options():
    with pytest.raises(ValueError, match="normaliser: expected one of exp, softplus, sigmoid, got 'expo'"):
        make(("dsf", {"normaliser": "expo"}))
