"""Parts of the experiments whose answer is known."""

import math

import pytest
import torch

from manymax.claims.claim import Untestable
from manymax.claims.experiments import jacobian, power_softmax, sigmoid_attention, sinkformers, training
from manymax.claims.experiments import normalized_attention_pooling as pooling
from manymax.claims.experiments.cases import Cases
from manymax.claims.registry import load_claim
from manymax.data.modular import Modular
from manymax.models.gpt import GPT
from manymax.models.layers import Size

NUMBERS = {"steps": 12, "warmup": 3, "batch_size": 8, "learning_rate": 0.02}


def quiet(share, doing):
    pass


def test_training_learns_and_the_loss_is_that_of_the_whole_validation_set():
    task = Modular(modulus=5, train_share=0.6)
    model = GPT(6, num_classes=5, depth=1)
    start = float(model(*task.examples("train")).detach())
    training.train(model, task, 0, NUMBERS, quiet)
    assert float(model(*task.examples("train")).detach()) < start - 0.2
    whole = float(model(*task.held_out()).detach())
    assert training.validation_loss(model, task, batch_size=3) == pytest.approx(whole, rel=1e-5)


def test_the_learning_rate_rises_and_falls(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def recording(self, *args, **options):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    training.train(GPT(6, num_classes=5, depth=1), Modular(5, 0.6), 0, NUMBERS, quiet)
    assert rates == pytest.approx(
        [0.02 * share for share in (1 / 3, 2 / 3, 1, 1, 8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9)]
    )


def test_a_diverged_model_has_infinite_loss():
    model = GPT(6, num_classes=5, depth=1)
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    assert training.validation_loss(model, Modular(5, 0.6)) == math.inf


def test_parts_of_a_progress():
    seen = []
    training.part(lambda share, doing: seen.append((share, doing)), "second", 1, 4)(0.5, "step 3")
    assert seen == [(0.375, "second, step 3")]


def test_the_output_norm_grows_with_n_without_the_bias():
    ratios = [sigmoid_attention.output_norm_ratio(0, n) for n in (8, 64, 512)]
    # At zero scores the weights are 1/2 against 1/(n + 1); scores of variance 1 make the latter uneven and larger.
    assert all(0.3 < ratio / ((n + 1) / 2) < 0.7 for ratio, n in zip(ratios, (8, 64, 512), strict=True)), ratios


@pytest.mark.parametrize(("softmax", "biased"), [(1.0, 2.0), (2.0, 1.0)])
@pytest.mark.parametrize("room", ["text", "digits"])
def test_ratios_of_losses(monkeypatch, room, softmax, biased):
    monkeypatch.setattr(sigmoid_attention, "losses", lambda *args: (softmax, biased, 3.0))
    monkeypatch.setattr(sigmoid_attention, "Text", Cases)
    metrics = getattr(sigmoid_attention, f"{room}_metrics")(0, {"text": {"length": 8}, "digits": {}}, quiet)
    assert metrics == {
        f"{room}_loss_ratio": biased / softmax,
        f"{room}_loss_ratio_without_bias": 1.5,
        f"softmax_{room}_loss": softmax,
    }


def test_times_are_of_the_maps_that_are_named(monkeypatch):
    clock = [0.0]
    cost = {"softmax": 3.0, "sigmoid": 2.0}
    called = []

    def attention(query, key, value, *, map, backend):
        assert backend == "tiled"
        assert torch.get_num_threads() == 1
        clock[0] += cost[map.name] * (1 + len(called) % 3)  # a machine that slows down within each round
        called.append(map.name)

    threads = torch.get_num_threads()
    monkeypatch.setattr(sigmoid_attention, "attention", attention)
    monkeypatch.setattr(sigmoid_attention.time, "perf_counter", lambda: clock[0])
    metrics = sigmoid_attention.time_metrics(0, heads=1, length=4, width=2, rounds=5)
    assert metrics == {"time_ratio": 1.5, "time_noise": 1 / 3}
    assert called == ["softmax", "sigmoid", "softmax"] * 6
    assert torch.get_num_threads() == threads


def test_the_spectral_norm_of_a_linear_function_is_found():
    matrix = torch.tensor([[3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    start = torch.randn(2, 3, 2, dtype=torch.float64)
    assert jacobian.worst_spectral_norm(lambda x: x @ matrix + 0 * x**2, start, 1.0, 2) == pytest.approx(5.0)


def test_ascent_climbs_and_stays_in_the_ball():
    # The Jacobian of sum x^2 / 2 at x, times x, is x^T x + ..., largest where |x| is: on the sphere.
    start = 0.1 * torch.randn(1, 1, 2, dtype=torch.float64)
    found = [jacobian.worst_spectral_norm(lambda x: x**3 / 3, start, 2.0, steps) for steps in (0, 100)]
    assert found[0] < 0.5
    assert found[1] == pytest.approx(4.0, rel=1e-3)  # one coordinate of length 2, squared
    points = jacobian.inside(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 2.0)
    assert torch.allclose(points, torch.tensor([[1.2, 1.6], [0.3, 0.4]]))


def test_the_jacobian_of_attention_at_small_radius_is_that_of_the_mean():
    metrics = sigmoid_attention.jacobian_metrics(0, quiet, tokens=5, width=2, radii=[0.001], starts=2, steps=2)
    assert metrics["jacobian_ratio"] == pytest.approx(5 / 6, rel=1e-3)  # 5 weights of 1/6 against 5 of 1/5


def test_writers_do_not_start_at_zero():
    model = GPT(9, depth=2, width=64)
    sigmoid_attention.start_writers(model)
    for block in model.blocks:
        for writer in (block.attention.output, block.mlp.output):
            expected = (writer.in_features * 4) ** -0.5
            assert float(writer.weight.detach().std()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    "measure",
    [
        lambda: sigmoid_attention.digits_metrics(0, {}, quiet)["digits_loss_ratio"],
        lambda: sinkformers.digits_spread_ratio(0, {}, quiet),
    ],
)
def test_without_scikit_learn_digits_are_untestable(monkeypatch, measure):
    def missing(module, extra):
        raise ImportError(f"{module} is not installed; run: pip install 'manymax[{extra}]'")

    monkeypatch.setattr("manymax.data.digits.require", missing)
    assert measure() == Untestable("sklearn.datasets is not installed; run: pip install 'manymax[compare]'")


def test_column_spread_of_attention_that_is_known():
    model = sinkformers.SetTransformer(Size.of(1, 8, 1, None, None), 3, "softmax")
    with torch.no_grad():
        model.blocks[0].attention.query_key_value.weight.zero_()
    assert sinkformers.column_spread(model, torch.randn(2, 5, 3)) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        model.blocks[0].attention.query_key_value.weight.normal_()
    assert sinkformers.column_spread(model, torch.randn(2, 5, 3)) > 0.1


def test_balance_of_scores_that_are_hard_to_balance():
    model = sinkformers.SetTransformer(Size.of(1, 8, 1, None, None), 3, "softmax")
    easy = sinkformers.balance(model, torch.randn(2, 5, 3))
    assert easy["row_error"] < 1e-5
    assert easy["column_error"] < 0.1
    assert easy["softmax_difference"] < 1e-6
    with torch.no_grad():
        model.blocks[0].attention.query_key_value.weight.normal_(std=20.0)
    assert sinkformers.balance(model, torch.randn(2, 5, 3))["column_error"] > 1e-2


@pytest.mark.parametrize("nap", [True, False])
def test_what_is_pooled_at_the_start(nap):
    numbers = {"slope_width": 32, "slope_lengths": [16, 64, 256]}
    slope = pooling.slope(0, numbers, nap=nap)
    assert slope == pytest.approx(0.0 if nap else -1.0, abs=0.15)


def test_pooling_is_bert_or_nap():
    x = torch.randn(2, 6, 8)
    bert, nap = pooling.Pooling(8, 2, nap=False), pooling.Pooling(8, 2, nap=True)
    assert [type(one.output_norm) for one in (bert, nap)] == [type(None), torch.nn.LayerNorm]
    assert {"mechanism.map.gain", "mechanism.map.bias"} <= {name for name, _ in nap.named_parameters()}
    assert nap(x).mean(-1).abs().max() < 1e-5
    query, key, value = bert.query_key_value(x).unflatten(-1, (6, 4)).transpose(1, 2).chunk(3, dim=1)
    weights = torch.softmax(query @ key.transpose(-2, -1) / 2, -1)
    assert torch.allclose(bert(x), bert.output((weights @ value).transpose(1, 2).flatten(2)), atol=1e-6)
    query, key, value = nap.query_key_value(x).unflatten(-1, (6, 4)).transpose(1, 2).chunk(3, dim=1)
    scores = query @ key.transpose(-2, -1)
    weights = (scores - scores.mean(-1, keepdim=True)) / (scores.std(-1, keepdim=True, correction=0) + 1e-3)
    heads = nap.hidden_norm((weights @ value).transpose(1, 2).flatten(2))
    expected = nap.output_norm(nap.output(torch.nn.functional.gelu(heads, approximate="tanh")))
    assert torch.allclose(nap(x), expected, atol=1e-5)


@pytest.mark.parametrize("nap", [True, False])
def test_outputs_leave_the_hull_with_normalised_weights_alone(nap):
    task = Cases(length=9, tested=10)
    model = pooling.Pointer(task, 8, 2, nap=nap)
    torch.nn.init.normal_(model.embedding.weight)
    for block in model.blocks:
        torch.nn.init.normal_(block.pooling.query_key_value.weight)
    gaps = pooling.head_outputs_outside(model, task.held_out()[0][:3])
    assert gaps.shape == (2 * 3 * 2 * 9,)
    assert float((gaps > 0).double().mean()) == pytest.approx(1.0 if nap else 0.0, abs=0.3)
    assert nap or gaps.count_nonzero() == 0


def test_a_diverged_network_has_no_outputs():
    task = Cases(length=5, tested=4)
    model = pooling.Pointer(task, 4, 1, nap=False)
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    assert pooling.head_outputs_outside(model, task.held_out()[0]).numel() == 0


def test_a_run_counts_above_90_percent(monkeypatch):
    claim = load_claim("normalized-attention-pooling")
    values = {True: iter([0.91, 0.95, 0.9]), False: iter([0.1, 0.92, 0.3])}
    monkeypatch.setattr(pooling, "evaluate", lambda model, task, batch_size: next(values[model.blocks[0].nap]))
    metrics = pooling.run(0, {**claim.numbers, **claim.tiny, "exponents": [1, 2, 3]}, quiet)
    assert [metrics["nap_share"], metrics["softmax_share"]] == pytest.approx([2 / 3, 1 / 3])
    assert metrics["robust_share_ratio"] == pytest.approx(2)
    assert metrics["nap_accuracy"] == pytest.approx(0.92)


def test_ratio_of_shares():
    assert pooling._ratio(0.5, 0.25) == 2.0
    assert pooling._ratio(0.5, 0.0) == math.inf
    assert math.isnan(pooling._ratio(0.0, 0.0))


@pytest.mark.parametrize(("nap", "expected"), [(True, [1, 9 / 10, 8 / 10]), (False, [1 / 2, 1, 8 / 9])])
def test_bert_warms_up_and_nap_does_not(monkeypatch, nap, expected):
    rates, clipped = [], []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: rates.append(self.param_groups[0]["lr"]))
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *args: clipped.append(clip(*args)))
    task = Cases(length=6, tested=4)
    numbers = {"steps": 20 if not nap else 10, "batch_size": 2}
    pooling.train(pooling.Pointer(task, 4, 1, nap=nap), task, 0, 0.5, numbers)
    shown = rates[:3] if nap else [rates[0], rates[1], rates[3]]
    assert shown == pytest.approx([0.5 * share for share in (expected if nap else [1 / 2, 1, 17 / 19])])
    assert len(clipped) == (0 if nap else 20)


def test_the_range_of_denominators_that_are_known(monkeypatch):
    class Layer:
        def __init__(self, n):
            self.scores = torch.full((1, 1, n, n), 2.0)

    monkeypatch.setattr(power_softmax, "probe", lambda model, tokens: [Layer(tokens.shape[1])] * 2)
    ratio = power_softmax.range_ratio(None, 0, {"lengths": [4, 16, 64], "eps": 0.0})
    assert ratio == pytest.approx(1 / 16)  # the sums grow 16-fold, the means stay
