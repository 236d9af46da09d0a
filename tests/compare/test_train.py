import math

import pytest
import torch
from torch import nn

from manymax.compare import subject as subjects
from manymax.compare.jobs import Order
from manymax.compare.reading import from_mapping
from manymax.compare.results import finite
from manymax.compare.subject import Excerpt, Subject, refuse_foresight, share_weights
from manymax.compare.train import POINTS, Record, Trainer, evaluation_steps, perform, train
from manymax.heads.registry import HEADS

SMALL = {"model": {"depth": 1}, "task": "recall:validation=16", "batch_size": 4}


def make(**keys):
    return Subject(from_mapping({"candidates": ["sigmoid", "softmax:sinks=true"], **SMALL, **keys}))


def order(candidate="sigmoid", steps=4, seed=0, **keys):
    plan = from_mapping({"candidates": ["sigmoid", "softmax:sinks=true"], **SMALL, **keys})
    return Order(plan.as_mapping(), "train", candidate, seed, steps=steps)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def subject(one_thread):
    return make()


def test_all_candidates_start_from_the_same_weights(subject):
    for seed in (0, 1):
        baseline = dict(subject.model("softmax", seed).named_parameters())
        for label in ("sigmoid", "softmax:sinks=true"):
            parameters = dict(subject.model(label, seed).named_parameters())
            assert set(baseline) <= set(parameters)
            assert all(torch.equal(parameters[name], value) for name, value in baseline.items())
    other = dict(subject.model("softmax", 5).named_parameters())
    assert not torch.equal(other["embedding.weight"], baseline["embedding.weight"])


def test_all_heads_start_from_the_same_weights():
    subject = make(site="output", candidates=["stablemax", "softmax:bias=true"])
    models = [dict(subject.model(label, 3).named_parameters()) for label in subject.plan.labels]
    for parameters in models[1:]:
        assert all(torch.equal(parameters[name], value) for name, value in models[0].items())
    assert "head.bias" in models[2]


def test_a_head_that_draws_more_numbers_starts_from_the_same_weights_all_the_same(monkeypatch):
    class Odd(HEADS["softmax"]):
        def __init__(self, in_features, num_classes):
            torch.randn(5)
            super().__init__(in_features, num_classes)

    monkeypatch.setitem(HEADS, "odd", Odd)
    subject = make(site="output", candidates=["odd"])
    one, other = (dict(subject.model(label, 3).named_parameters()) for label in ("softmax", "odd"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_shared_where_name_and_shape_agree_and_mechanisms_keep_their_own():
    def net(width):
        parts = {
            "body": nn.Linear(2, 3),
            "other": nn.Linear(2, width),
            "a": nn.ModuleDict({"mechanism": nn.Linear(2, 2)}),
        }
        return nn.ModuleDict(parts)

    one, other = net(3), net(4)
    share_weights(one, other)
    assert torch.equal(one["body"].weight, other["body"].weight)
    assert not torch.equal(one["other"].weight, other["other"].weight[:3])
    assert not torch.equal(one["a"]["mechanism"].weight, other["a"]["mechanism"].weight)


def test_all_candidates_see_the_same_batches_of_a_seed(subject, monkeypatch):
    seen = {}
    for label in ("softmax", "sigmoid"):
        batches = seen.setdefault(label, [])
        trainer = Trainer(subject, subject.model(label, 2), 3, 2)
        forward = trainer.model.forward
        monkeypatch.setattr(
            trainer.model, "forward", lambda *both, to=batches, do=forward: (to.append(both), do(*both))[1]
        )
        for index in range(3):
            trainer.step(index)
    for one, other in zip(seen["softmax"], seen["sigmoid"], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
    assert torch.equal(seen["softmax"][1][0], subject.batch(1, 2)[0])
    assert not torch.equal(seen["softmax"][0][0], seen["softmax"][1][0])
    assert not torch.equal(subject.batch(0, 2)[0], subject.batch(0, 3)[0])


def test_two_equal_trainings_give_equal_results():
    lines = [finite(perform(order(seed=1), make(), lambda _: None)) for _ in range(2)]
    for line in lines:
        del line["metrics"]["peak_memory_bytes"]
    assert lines[0] == lines[1]


def test_the_rate_warms_up_and_falls_to_zero(subject):
    trainer = Trainer(subject, subject.model("softmax", 0), 100, 0)
    rates = [trainer.rate(step) for step in range(101)]
    warmup = trainer.warmup
    assert warmup == 10  # a tenth, as in the task's recipe
    assert rates[:warmup] == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    assert rates[warmup] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert all(b < a for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_a_step_is_adamw_with_cut_gradients_and_the_schedule(subject):
    model, twin = subject.model("softmax", 0), subject.model("softmax", 0)
    trainer = Trainer(subject, model, 10, 0)
    loss, norm = trainer.step(0)
    expected = twin(*subject.batch(0, 0))
    expected.backward()
    assert loss == expected.item()
    assert norm == pytest.approx(math.sqrt(sum(p.grad.square().sum().item() for p in twin.parameters())), rel=1e-5)
    # AdamW's first step moves every weight with a gradient by the learning rate, cut gradients or not.
    moved = (model.head.weight - twin.head.weight).abs()
    assert moved.max().item() == pytest.approx(subject.learning_rate * trainer.rate(0), rel=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_with_nan_leaves_the_weights_alone(subject, where):
    model = subject.model("softmax", 0)
    forward = type(model).forward
    if where == "loss":
        model.forward = lambda *both: forward(model, *both) * math.nan
    else:
        model.embedding.weight.register_hook(lambda grad: grad * math.nan)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, norm = Trainer(subject, model, 10, 0).step(0)
    assert not math.isfinite(loss if where == "loss" else norm)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("bad", "done"), [(3, 40), (4, 40), (5, 5)])
def test_more_than_a_tenth_of_nan_steps_ends_a_training(subject, monkeypatch, bad, done):
    trainer = Trainer(subject, subject.model("softmax", 0), 40, 0)
    monkeypatch.setattr(trainer, "step", lambda index: (math.nan if index < bad else 1.0, 0.5))
    record = train(trainer, lambda _: None)
    assert len(record.losses) == done
    assert record.nan_steps == bad
    assert (40 in record.quality) is (done == 40)


def test_a_training_writes_what_the_report_reads(served):
    told = []
    result = perform(order(steps=8), make(), told.append)
    metrics, curves = result["metrics"], result["curves"]
    assert (result["status"], result["message"]) == ("ok", "")
    assert metrics["steps"] == 8
    assert metrics["nan_steps"] == 0
    assert 0 <= metrics["quality"] <= 1
    assert 0 < metrics["grad_norm_median"] <= metrics["grad_norm_max"]
    assert metrics["parameters"] == sum(p.numel() for p in make().model("sigmoid", 0).parameters())
    assert metrics["peak_memory_bytes"] > 4 * 3 * metrics["parameters"]  # weights and Adam's two moments
    assert metrics["largest_score"] > 0
    assert 0 < metrics["entropy"] < math.log(32)
    assert 0 < metrics["first_token_share"] < 1
    assert metrics["backend"] == served("reference")
    assert curves["train"]["step"] == list(range(1, 9))
    assert len(curves["train"]["loss"]) == len(curves["grad_norm"]["value"]) == 8
    assert curves["quality"]["step"] == evaluation_steps(8)
    assert curves["quality"]["value"][-1] == metrics["quality"]
    assert told
    assert all(0 < share <= 1 for share in told)


def test_a_training_of_a_head_also_says_how_good_its_predictions_are():
    keys = {"site": "output", "candidates": ["stablemax"], "task": "listops:validation=40"}
    metrics = perform(order("stablemax", **keys), make(**keys), lambda _: None)["metrics"]
    assert metrics["accuracy"] == metrics["quality"]  # of this task
    assert 0 < metrics["accuracy"] < metrics["top5_accuracy"] <= 1
    assert 0 < metrics["calibration_error"] < 1
    assert "accuracy" not in perform(order(steps=1), make(), lambda _: None)["metrics"]


def test_a_training_that_diverges_says_so(monkeypatch):
    monkeypatch.setattr(Trainer, "step", lambda self, index: (math.nan, math.nan))
    result = perform(order(steps=8), make(), lambda _: None)
    assert result["status"] == "diverged"
    assert result["message"] == "4 of the first 4 steps were NaN"
    assert result["metrics"]["quality"] is None
    assert result["metrics"]["grad_norm_median"] is None


def test_curves_are_means_of_stretches():
    record = Record()
    for i in range(2 * POINTS + 1):
        record.add(float(i), math.nan if i < 3 else 1.0)
    curves = record.curves()
    assert curves["train"]["step"][:2] == [3, 6]
    assert curves["train"]["step"][-1] == 2 * POINTS + 1
    assert curves["train"]["loss"][:2] == [1.0, 4.0]
    assert curves["grad_norm"]["value"][:2] == [None, 1.0]
    assert len(curves["train"]["step"]) <= POINTS
    assert record.nan_steps == 3


@pytest.mark.parametrize(("steps", "expected"), [(1, [1]), (4, [1, 2, 3, 4]), (50, [10, 20, 30, 40, 50])])
def test_evaluations_are_spread_and_include_the_end(steps, expected):
    assert evaluation_steps(steps) == expected


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("task", ["recall:validation=16", "digits"])
def test_other_dtypes_train(dtype, task):
    result = perform(order(steps=2, dtype=dtype, task=task), make(dtype=dtype, task=task), lambda _: None)
    assert result["status"] == "ok"
    assert make(dtype=dtype).model("sigmoid", 0).embedding.weight.dtype == (
        torch.float64 if dtype == "float64" else torch.float32
    )


def test_excerpts_are_spread_over_a_long_validation_set(subject):
    part = Excerpt.of(subject.task, torch.float32, targets=4 * 32)
    whole, _ = subject.task.held_out()
    assert torch.equal(part.inputs, whole[[0, 5, 10, 15]])
    assert torch.equal(Excerpt.of(subject.task, torch.float32).inputs, whole)


def test_mechanisms_that_see_the_future_are_refused_for_language():
    with pytest.raises(ValueError, match="would see"):
        make(candidates=["sinkhorn"]).model("sinkhorn", 0)
    make(candidates=["sinkhorn"], task="digits").model("sinkhorn", 0)

    class Mean(nn.Module):
        def forward(self, query, key, value, *, is_causal):
            return value.mean(2, keepdim=True).expand_as(value)

    mean = Mean().train()
    with pytest.raises(ValueError, match="not causal: its outputs depend on later tokens"):
        refuse_foresight(mean, 2, 4)
    assert mean.training


def test_a_text_of_ones_own(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 20)
    subject = make(task="text:length=16", text=str(tmp_path / "a.txt"))
    assert subject.batch(0, 0)[0].shape == (4, 16)
    with pytest.raises(FileNotFoundError, match="text: no file or folder"):
        make(task="text", text=str(tmp_path / "b.txt"))


def test_facts(subject):
    facts = subject.facts(subject.model("softmax", 0))
    assert facts["quality"] == {"name": "accuracy", "better": "higher", "unit": "share"}
    assert facts["model"]["depth"] == 1
    assert facts["batch_size"] == 4
    assert facts["learning_rate"] == subject.task.recipe.learning_rate
    assert make(batch_size=3, learning_rate=0.5).facts(subject.model("softmax", 0))["learning_rate"] == 0.5


def test_what_the_other_site_holds():
    assert subjects.BASELINE == "softmax"
    model = make(site="output", candidates=["stablemax"]).model("stablemax", 0)
    assert model.blocks[0].attention.mechanism.map.name == "softmax"
    assert type(model.head).__name__ == "StableMaxHead"
