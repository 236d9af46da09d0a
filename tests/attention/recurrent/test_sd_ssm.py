"""Selective dense state spaces against their formula, and what makes them follow automata."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, make, tokens

NAME = "sd-ssm"


@pytest.mark.parametrize("options", [{}, {"form": "scan"}, {"state_size": 4, "num_matrices": 3, "power": 2.5}], ids=str)
def test_it_is_the_formula(options):
    module, whole = make((NAME, options)), tokens(40)
    torch.nn.init.normal_(module.gain)
    torch.nn.init.normal_(module.offset)
    out = module(*whole, is_causal=True)
    power, x = options.get("power", 1.2), torch.cat(whole, -1)
    with torch.no_grad():
        for b, h in torch.cartesian_prod(torch.arange(2), torch.arange(HEADS)):
            state = torch.zeros(options.get("state_size", DIM), dtype=torch.float64)
            for t in range(40):
                choice = (x[b, h, t] @ module.select.weight[h] + module.select.bias[h, 0]).softmax(0)
                mixed = sum(c * a for c, a in zip(choice, module.matrices[h], strict=True))
                columns = [column / column.abs().pow(power).sum() ** (1 / power) for column in mixed.T]
                state = torch.stack(columns, 1) @ state + x[b, h, t] @ module.write.weight[h]
                normal = (state - state.mean()) / (state.var(unbiased=False) + 1e-5).sqrt()
                normal = normal * module.gain[h, 0] + module.offset[h, 0]
                expected = normal @ module.read.weight[h] + module.read.bias[h, 0]
                torch.testing.assert_close(out[b, h, t], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("power", [1.0, 1.2, 3.0])
def test_columns_of_transitions_have_norm_one(power):
    module = make((NAME, {"power": power}))
    moves = module.transitions(torch.cat(tokens(10), -1))
    norms = moves.abs().pow(power).sum(-2) ** (1 / power)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("power", "growth"), [(1.0, 1.0), (1.2, DIM ** (1 / 6)), (2.0, DIM**0.5)])
def test_a_transition_lengthens_a_state_up_to_the_bound_of_its_power(power, growth):
    module, x = make((NAME, {"power": power})), torch.cat(tokens(40), -1)
    assert torch.linalg.matrix_norm(module.transitions(x), ord=1).max() <= growth + 1e-12
    module.matrices.data.fill_(1)
    state = torch.ones(DIM, 1, dtype=torch.float64)
    torch.testing.assert_close(module.transitions(x) @ state, (growth * state).expand(2, HEADS, 40, -1, -1))


def test_with_power_one_the_state_grows_by_no_more_than_what_is_written():
    module, whole = make((NAME, {"power": 1.0})), tokens(300)
    written = module.write(torch.cat(whole, -1)).abs().sum((2, 3))
    assert (module.prefill(*whole)[1].hidden.abs().sum((2, 3)) <= written).all()


def test_outputs_are_right_until_the_state_overflows_and_then_nan():
    module, whole = make((NAME, {"power": 2.0})), tokens(130)
    module.matrices.data.fill_(1)
    with torch.no_grad():
        module.matrices += torch.randn_like(module.matrices) / 10
        exact, state = module.prefill(*whole)
        assert state.hidden.abs().amin() > torch.finfo(torch.float32).max
        out = module.float()(*(x.float() for x in whole), is_causal=True)
    lost = out.isnan().any(3)
    assert lost[:, :, -1].all()
    assert (lost == lost.cummax(2).values).all()
    assert not lost[:, :, :80].any()
    torch.testing.assert_close(out[~lost], exact[~lost].float(), rtol=1e-2, atol=1e-2)


def test_two_permutations_make_a_parity():
    """With a swap for one token and the identity for the other, the state is the parity, at any length."""
    module = make((NAME, {"state_size": 2, "num_matrices": 2}))
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    module.matrices.data = torch.stack([torch.eye(2), swap]).expand(HEADS, -1, -1, -1).double()
    module.select.weight.data.zero_()
    module.select.weight.data[:, 2 * DIM] = torch.tensor([-50.0, 50.0])
    module.select.bias.data.zero_()
    module.write.weight.data.zero_()
    bits = torch.randint(2, (3, 500))
    value = torch.zeros(3, HEADS, 500, DIM).double()
    value[..., 0] = 2.0 * bits[:, None] - 1
    zero = torch.zeros_like(value)
    start = module.prefill(zero[:, :, :1], zero[:, :, :1], zero[:, :, :1])[1]
    start = start.apply(torch.tensor([1.0, 0.0]).double()[:, None].expand_as)
    _, state = module.step(zero, zero, value, start)
    assert torch.equal(state.hidden[:, 0, 1, 0].round().long(), bits.sum(1) % 2)


def test_wrong_options():
    for options, words in [
        ({"power": 0.5}, "power: expected at least 1"),
        ({"state_size": 0}, "state_size: expected at least 1, got 0"),
        ({"form": "scam"}, "form: expected one of .*did you mean 'scan'"),
    ]:
        with pytest.raises(ValueError, match=words):
            make((NAME, options))
