"""A model on a task: created, trained for some steps, evaluated."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from manymax.data.registry import create_task
from manymax.heads.registry import create_head
from manymax.models.evaluate import evaluate, predictions
from manymax.models.registry import create_model


def trained(task, steps, learning_rate, batch_size, **options):
    torch.manual_seed(0)
    model = create_model(task, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95))
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 20)
        loss = model(*task.batch("train", step, batch_size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("attention", ["softmax", "sigmoid"])
def test_gpt_learns_text(attention):
    task = create_task("text", length=64)
    model, losses = trained(task, 40, 1e-2, 4, attention=attention, depth=1)
    assert losses[0] == pytest.approx(math.log(256), abs=1)
    assert losses[-1] < losses[0] - 2
    assert 3 < evaluate(model, task) < 5  # bits per byte; a byte without a model is 8


def test_gpt_learns_recall_by_attention():
    task = create_task("recall", vocabulary=16, pairs=2, length=8, validation=200)
    model, _ = trained(task, 150, 6e-3, 64)
    assert evaluate(model, task) > 0.9  # 1/8 by knowing the values, 1/2 by knowing which two are there


def test_vit_learns_digits():
    model, losses = trained(create_task("digits"), 60, 5e-3, 32)
    assert losses[-1] < 1
    assert evaluate(model, create_task("digits")) > 0.75


def test_accuracy_by_hand_and_whatever_the_batch_size():
    task = create_task("listops", validation=60)
    model = create_model(task)
    inputs, targets = task.held_out()
    right = model.logits(inputs).argmax(-1) == targets
    expected = float(right.sum()) / 60
    assert evaluate(model, task, batch_size=7) == evaluate(model, task, batch_size=100) == pytest.approx(expected)
    assert 0 < expected < 1


def test_bits_per_byte_by_hand_and_whatever_the_batch_size(tmp_path):
    (tmp_path / "text").write_bytes(bytes(torch.randint(256, (20000,)).tolist()))
    task = create_task("text", length=30, path=str(tmp_path / "text"))
    model = create_model(task, depth=1, head="stablemax").train()
    inputs, targets = task.held_out()
    logs = model.head.log_weights(model.logits(inputs))
    asked = targets != -100
    bits = -logs[asked].gather(-1, targets[asked][:, None]).mean() / math.log(2)
    for batch_size in (20, 64):
        assert evaluate(model, task, batch_size) == pytest.approx(bits.item(), rel=1e-5)
    assert model.training
    evaluate(model.eval(), task)
    assert not model.training


def test_create_model_takes_the_recipes_sizes_unless_given():
    task = create_task("text")
    assert create_model(task).size.depth == task.recipe.model["depth"]
    size = create_model(task, depth=1, width=96).size
    assert (size.depth, size.width) == (1, 96)
    with pytest.raises(TypeError, match=r"gpt has no option 'atention'; it has .*; did you mean 'attention'"):
        create_model(task, atention="softmax")
    with pytest.raises(TypeError, match="gpt has no option 'vocabulary'"):
        create_model(task, vocabulary=3)
    with pytest.raises(TypeError, match="vit has no option 'causal'"):
        create_model(create_task("digits"), causal=True)


def test_bits_are_those_of_the_probabilities_whatever_the_loss(tmp_path):
    (tmp_path / "text").write_bytes(bytes(torch.randint(256, (20000,)).tolist()))
    task = create_task("text", length=30, path=str(tmp_path / "text"))
    smooth = create_model(task, depth=1, head=partial(create_head, "softmax", label_smoothing=0.5))
    plain = create_model(task, depth=1)
    plain.load_state_dict(smooth.state_dict())
    assert evaluate(smooth, task) == evaluate(plain, task)


def test_predictions_by_hand_and_whatever_the_batch_size():
    task = create_task("listops", validation=60)
    model = create_model(task)
    inputs, targets = task.held_out()
    asked = targets != -100
    shares = model.head.log_weights(model.logits(inputs))[asked].exp()
    right, among, bins = 0, 0, {}
    for row, target in zip(shares.tolist(), targets[asked].tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda k, row=row: -row[k])
        right += order[0] == target
        among += target in order[:5]
        own = bins.setdefault(math.ceil(15 * row[order[0]]), [])
        own.append(row[order[0]] - (order[0] == target))
    expected = {
        "accuracy": right / 60,
        "top5_accuracy": among / 60,
        "calibration_error": sum(abs(sum(own)) for own in bins.values()) / 60,
    }
    assert predictions(model, task, batch_size=7) == pytest.approx(expected, rel=1e-5)
    assert predictions(model, task) == pytest.approx(expected, rel=1e-5)
    assert 0 < expected["accuracy"] < expected["top5_accuracy"] < 1


def test_predictions_ask_what_is_asked_and_of_few_classes():
    task = create_task("recall", validation=8)
    model = create_model(task, depth=1).train()
    assert 0 < predictions(model, task, 3)["calibration_error"] < 1
    assert model.training
    two = SimpleNamespace(
        training=True,
        eval=lambda: None,
        train=lambda mode: None,
        parameters=lambda: iter([torch.zeros(1)]),
        features=lambda inputs: inputs,
        head=SimpleNamespace(logits=lambda features: features, log_weights=lambda logits: logits.log_softmax(-1)),
    )
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]).log()
    targets = torch.tensor([0, 1, 1, -100])
    few = SimpleNamespace(evaluation=lambda size: [(scores, targets)])
    # Two predictions with 0.9, one of them right, and a right one with 0.8.
    expected = {"accuracy": 2 / 3, "top5_accuracy": 1.0, "calibration_error": (0.8 + 0.2) / 3}
    assert predictions(two, few) == pytest.approx(expected)
