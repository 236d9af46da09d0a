"""The docs' table says how many numbers a state has: a formula of each mechanism, against the state that it returns."""

import re

import pytest
import torch
from mechanism_cases import CAUSAL

import manymax as mm
from manymax.attention.registry import mechanism_choices

KEYS, VALUES, HEADS, N = 6, 10, 2, 70
# Options that another formula than the first one of a mechanism is for, and which it is.
OTHERS = [
    ("softmax-rnn", {"order": 2}, 1),
    ("test-time-regression", {"solver": "no-covariance"}, 1),
    ("test-time-regression", {"solver": "gradient"}, 1),
    ("test-time-regression", {"solver": "local-constant"}, 2),
    ("test-time-regression", {"solver": "local-linear"}, 2),
    ("transnormer-llm", {"layer": 1, "num_layers": 2}, 1),
]
# Options that a formula names, and the symbol that they give a value to.
NAMED = [
    ("kernelized-attention-rpe", {"max_distance": 9}, {"W": 9}),
    ("kernelized-attention-rpe", {"num_features": 5}, {"m": 5}),
    ("linear-favor", {"num_features": 5}, {"m": 5}),
    ("sd-ssm", {"state_size": 4}, {"n": 4}),
]
DEFAULTS = [(name, {}, 0) for name in sorted({name for name, _ in CAUSAL.values()})]


def state_of(name, options):
    """Return the state after N tokens, whose values are wider than the keys."""
    torch.manual_seed(0)
    sizes = {"head_dim": KEYS, "num_heads": HEADS}
    try:
        module = mm.create_attention(name, **sizes, value_dim=VALUES, **options)
    except TypeError:
        module = mm.create_attention(name, **sizes, **options)
    tokens = (torch.randn(1, HEADS, N, dim) for dim in (KEYS, KEYS, VALUES))
    return module.prefill(*tokens)[1]


def evaluate(formula, symbols):
    """Return the value of a formula in which what stands side by side is multiplied."""
    python = re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", formula).replace("^", "**")
    return eval(python, {"__builtins__": {}}, symbols)


def check(name, options, which, **symbols):
    formula = re.sub(" (with|without|after) .*", "", mechanism_choices(name).state.split(", or ")[which])
    state = state_of(name, options)
    count = sum(x.numel() for x in state.tensors() if x.is_floating_point())
    if name == "nats-l":
        symbols |= {"kept": state.key.shape[2], "open": state.open.shape[2]}
        assert min(symbols["kept"], symbols["open"]) > 0
    given = {"Dk": KEYS, "Dv": VALUES, "N": N, "m": KEYS, "n": KEYS, "W": 256} | symbols
    assert evaluate(formula, given) * HEADS == count


@pytest.mark.parametrize(("name", "options", "which"), [*DEFAULTS, *OTHERS], ids=str)
def test_a_state_has_as_many_numbers_as_the_table_says(name, options, which):
    check(name, options, which)


@pytest.mark.parametrize(("name", "options", "symbols"), NAMED, ids=str)
def test_symbols_of_the_table_are_options(name, options, symbols):
    check(name, options, 0, **symbols)


def test_all_formulas_are_checked():
    counts = {name: len(mechanism_choices(name).state.split(", or ")) for name, _, _ in DEFAULTS}
    assert {(name, which) for name, _, which in [*DEFAULTS, *OTHERS]} == {
        (name, which) for name, count in counts.items() for which in range(count)
    }
