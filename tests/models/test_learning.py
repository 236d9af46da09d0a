"""A model on a task: created, trained for some steps, evaluated."""

import math

import pytest
import torch

from manymax.data.registry import create_task
from manymax.models.evaluate import evaluate
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
