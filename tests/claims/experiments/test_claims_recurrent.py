"""What the experiments on recurrences measure with: forms, baselines, tasks and counts."""

import pytest
import torch

from manymax.attention.linear.lightning import alibi_slopes
from manymax.claims.experiments import aaren, dsf, forms, nats_l, sd_ssm, test_time_regression, transnormer_llm
from manymax.claims.experiments import local_linear_attention as local
from manymax.claims.registry import load_claim
from manymax.data.recall import Recall
from manymax.data.regular import Regular
from manymax.data.task import IGNORED
from manymax.models.gpt import GPT
from manymax.models.parts import sublayers
from manymax.models.transnormer_llm import TransNormerLLM


def tiny(name):
    claim = load_claim(name)
    return {**claim.numbers, **claim.tiny}


def test_cumulative_sums_are_another_form_of_the_same():
    decay = -alibi_slopes(2)
    inputs = forms.heads(0, 50, count=2, width=8, dtype=torch.float64)
    expected = forms.results(forms.form(decay), inputs)
    assert len(expected) == 4
    assert forms.largest_relative_error(forms.results(forms.by_cumulative_sums(decay), inputs), expected) < 1e-10


def test_errors_are_relative_to_each_tensor():
    expected = [torch.tensor([1.0, -100.0]), torch.tensor([0.01])]
    assert forms.largest_relative_error([x.clone() for x in expected], expected) == 0
    assert forms.largest_relative_error([expected[0], torch.tensor([0.02])], expected) == pytest.approx(1)
    assert forms.largest_relative_error([torch.tensor([2.0, -100.0]), expected[1]], expected) == pytest.approx(0.01)


def test_saved_bytes_count_each_storage_once():
    x, y = (torch.randn(100, requires_grad=True) for _ in range(2))
    assert forms.saved_bytes(lambda: x * y) == 800
    assert forms.saved_bytes(lambda: x * y + x * x) == 800
    assert forms.saved_bytes(lambda: x * (x * y)) == 1200


def test_layers_come_in_turn():
    mixed = nats_l.in_turn("softmax", "linear")
    names = [type(mixed(head_dim=8, num_heads=2)).__name__ for _ in range(3)]
    assert names == ["DenseAttention", "Linear", "DenseAttention"]


def test_the_diagonal_baseline_multiplies_phases():
    torch.manual_seed(0)
    layer, x = sd_ssm.Diagonal(3, 4), torch.randn(2, 7, 3)
    real, imaginary = layer.make(x).chunk(2, -1)
    moves = torch.complex(real, imaginary)
    state = torch.polar(torch.ones(4), layer.start)
    for t in range(7):
        state = state * moves[:, t] / moves[:, t].abs()
        torch.testing.assert_close(layer(x)[:, t], torch.cat([state.real, state.imag], -1), rtol=1e-4, atol=1e-4)


def test_accuracy_is_that_of_the_last_places():
    task, numbers = Regular(length=6), {"test_length": 20, "tested": 8, "last": 5}
    inputs, targets = sd_ssm.longer(task, numbers)
    assert inputs.shape == (8, 20)

    class Right:
        def logits(self, tokens):
            scores = torch.nn.functional.one_hot(targets, 2).float()
            scores[:, :15] = 1 - scores[:, :15]
            return scores

    assert sd_ssm.accuracy(Right(), task, numbers) == 1.0


def test_series_can_be_forecast_and_pixels_ask_once():
    series = aaren.Series(length=30, tested=4)
    inputs, targets = series.held_out()
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert (inputs[:, 1:] - inputs[:, :-1]).abs().float().mean() < 0.25 * aaren.LEVELS
    tokens, asked = aaren.Pixels().examples("validation")
    assert tokens.max() == aaren.BRIGHTNESS - 1
    assert (asked[:, :-1] == IGNORED).all()
    assert set(asked[:, -1].tolist()) == set(range(10))


def test_streams_change_and_the_best_fit_is_chosen_elsewhere():
    numbers = {"dims": 4, "segments": 3, "segment": 20, "streams": 2, "noise": 0.0}
    key, value = local.streams(0, numbers)
    assert key.shape == value.shape == (2, 1, 60, 4)
    torch.testing.assert_close(key.norm(dim=-1), torch.full((2, 1, 60), 2.0))
    slope = torch.linalg.lstsq(key[:, :, :20], value[:, :, :20]).solution
    torch.testing.assert_close(key[:, :, :20] @ slope, value[:, :, :20], rtol=1e-3, atol=1e-3)
    assert (key[:, :, 20:40] @ slope - value[:, :, 20:40]).abs().mean() > 0.1

    def fit(factor):
        return lambda query, key, value: factor * query

    stream = (torch.randn(1, 1, 9, 4),) * 2
    assert local.best_error([fit(0.0), fit(1.0), fit(2.0)], stream, (stream[0], 2 * stream[1]), 1) == pytest.approx(
        float(stream[0][:, :, 1:].square().mean())
    )


def test_every_fit_sees_the_past_alone():
    key, value = local.streams(1, {"dims": 4, "segments": 2, "segment": 8, "streams": 1, "noise": 0.1})
    changed = value.clone()
    changed[:, :, 10:] += 1
    for fits in local.candidates(4).values():
        for fit in fits:
            before, after = (fit(key, key, v)[:, :, :10] for v in (value, changed))
            torch.testing.assert_close(before, after)
            assert not torch.allclose(fit(key, key, value)[:, :, 10:], fit(key, key, changed)[:, :, 10:])


def test_orthonormal_keys_leave_no_difference_and_correlated_ones_do():
    numbers = tiny("test-time-regression")
    assert abs(test_time_regression.orthonormal_ratio(0, numbers) - 1) < 0.01
    ratios = [test_time_regression.covariance_ratio(0, {**numbers, "keys": 512}, c) for c in (1.0, 100.0)]
    assert 1 < ratios[0] < 0.5 * ratios[1]
    assert test_time_regression.solve_error(0, 8) < 1e-5


def test_systems_are_the_mechanisms_they_were_read_from():
    metrics = dsf.form_errors(0, 12)
    assert metrics["mechanism_error"] < 1e-4
    assert metrics["form_error"] < 1e-5


def test_the_kept_share_counts_complete_chunks():
    torch.manual_seed(0)
    task = Recall(vocabulary=16, pairs=2, length=14, validation=3)
    model = GPT(16, depth=1, width=16, num_heads=2, attention="nats-l")
    mechanism = sublayers(model)[0].mechanism
    mechanism.block_size = 4
    mechanism._choice = lambda value, complete: torch.where(
        complete[:, None, :, None], torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), 1
    )
    assert nats_l.kept_share(model.eval(), task) == 0.5


def test_transnormer_llm_and_the_transformer_have_as_many_parameters():
    numbers = load_claim("transnormer-llm").numbers
    made = {name: make(vocabulary=256) for name, make in transnormer_llm.contestants(numbers).items()}
    assert [type(model) for model in made.values()] == [GPT, TransNormerLLM, TransNormerLLM]
    slopes = [model.blocks[1].attention.mechanism.slopes for model in list(made.values())[1:]]
    assert slopes == [[2.0, 4.0], pytest.approx([2**-4 * 1e-5, 2**-8 * 1e-5])]
    counts = {name: sum(x.numel() for x in model.parameters()) for name, model in made.items()}
    assert counts["transnormer-llm"] == pytest.approx(counts["softmax"], rel=2e-3)
    sizes = [(len(model.blocks), model.size.width, model.size.num_heads) for model in made.values()]
    assert sizes == [(numbers["depth"], numbers["width"], numbers["heads"])] * 3
