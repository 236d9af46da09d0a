"""What the claims about the base mechanisms of linear attention measure: text, recall, and time over length."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from manymax.attention.module import create_attention
from manymax.claims.claim import Numbers, Progress
from manymax.claims.experiments.contests import Learnt, learn
from manymax.claims.experiments.timing import best_times
from manymax.claims.experiments.training import validation_loss
from manymax.data.recall import Recall
from manymax.data.text import Text
from manymax.models.gpt import GPT


def taught(name: str, task: Any, seed: int, numbers: Numbers, progress: Progress) -> Learnt:
    """Train a GPT with a mechanism on a task."""
    sizes = {key: numbers[key] for key in ("depth", "width", "num_heads") if key in numbers}
    return learn(partial(GPT, **task.model_options, **sizes, attention=name), task, seed, numbers, progress)


def text_loss(name: str, seed: int, numbers: Numbers, progress: Progress) -> tuple[GPT, float]:
    """Train on text; return the model and its loss on text that was not trained on, in nats a byte."""
    task = Text(length=numbers["text"]["length"])
    model, loss, _ = taught(name, task, seed, {**numbers, **numbers["text"]}, progress)
    return model, loss


def length_ratio(made: GPT, loss: float, numbers: Numbers) -> float:
    """Return a trained model's loss on contexts of four times the training length over that on the latter."""
    return float(validation_loss(made, Text(length=4 * numbers["text"]["length"]), 16) / loss)


def recall(name: str, seed: int, numbers: Numbers, progress: Progress) -> float:
    """Train on associative recall; return the share of values that are recalled in new sequences."""
    sizes = numbers["recall"]
    task = Recall(pairs=sizes["pairs"], length=sizes["length"])
    return taught(name, task, seed, {**numbers, **sizes}, progress).quality


def forward_pass(name: str, length: int, numbers: Numbers, **options: Any) -> Any:
    """Return what runs a mechanism forwards over so many tokens, causally."""
    sizes = numbers["time"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attend = create_attention(name, head_dim=sizes["head_dim"], num_heads=sizes["heads"], **options)
        tokens = torch.randn(3, 1, sizes["heads"], length, sizes["head_dim"]).unbind()

    def work() -> None:
        with torch.no_grad():
            attend(*tokens, is_causal=True)

    return work


def growth(name: str, numbers: Numbers, **options: Any) -> float:
    """Return the time a token takes at the longest length over that at the shortest."""
    sizes = numbers["time"]
    short, long = min(sizes["lengths"]), max(sizes["lengths"])
    works = [forward_pass(name, length, numbers, **options) for length in (short, long)]
    first, last = best_times(works, sizes["rounds"], sizes["seconds"], time.perf_counter)
    return float((last / long) / (first / short))


@torch.no_grad()
def step_growth(name: str, numbers: Numbers) -> tuple[float, float]:
    """Return time and memory of one generated token after the longest context over those after the shortest."""
    sizes = numbers["time"]
    torch.manual_seed(0)
    attend = create_attention(name, head_dim=sizes["head_dim"], num_heads=sizes["heads"])
    states = []
    for length in (min(sizes["lengths"]), max(sizes["lengths"])):
        tokens = torch.randn(3, 1, sizes["heads"], length, sizes["head_dim"]).unbind()
        states.append(attend.prefill(*tokens)[1])
    token = torch.randn(3, 1, sizes["heads"], 1, sizes["head_dim"]).unbind()
    works = [partial(attend.step, *token, state) for state in states]
    first, last = best_times(works, sizes["rounds"], sizes["seconds"], time.perf_counter)
    return last / first, states[1].nbytes / states[0].nbytes


def chunk_speed_up(name: str, numbers: Numbers) -> float:
    """Return the time of a forward pass token by token over that by chunks, both in plain PyTorch."""
    sizes = numbers["time"]
    length = min(sizes["lengths"])
    works = [forward_pass(name, length, numbers, backend=backend) for backend in ("recurrent", "chunked")]
    slow, fast = best_times(works, sizes["rounds"], sizes["seconds"], time.perf_counter)
    return slow / fast


@torch.no_grad()
def forms_difference(name: str, seed: int) -> float:
    """Return by how much outputs differ between a mechanism's forms in float32, over their largest."""
    outs = []
    for backend in ("recurrent", "chunked", "quadratic"):
        torch.manual_seed(seed)
        attend = create_attention(name, head_dim=32, num_heads=4, backend=backend)
        outs.append(attend(*torch.randn(3, 1, 4, 300, 32).unbind(), is_causal=True))
    return max(float((out - outs[0]).abs().max() / outs[0].abs().max()) for out in outs[1:])
