"""What the claims about the base mechanisms of linear attention measure: text, recall, and time over length."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from manymax.attention.module import create_attention
from manymax.claims.claim import Numbers, Progress
from manymax.claims.experiments.timing import best_times
from manymax.claims.experiments.training import train, validation_loss
from manymax.data.recall import Recall
from manymax.data.text import Text
from manymax.models.evaluate import evaluate
from manymax.models.gpt import GPT


def model(name: str, options: dict[str, Any], seed: int, numbers: Numbers, task: Any) -> GPT:
    """Return a GPT with a mechanism; the body starts the same under one seed whatever the mechanism."""
    torch.manual_seed(seed)
    made = partial(create_attention, name, **options)
    return GPT(**task.model_options, depth=numbers["depth"], width=numbers["width"], attention=made)


def text_loss(name: str, seed: int, numbers: Numbers, progress: Progress, **options: Any) -> tuple[GPT, float]:
    """Train on text; return the model and its loss on text that was not trained on, in nats a byte."""
    task = Text(length=numbers["text"]["length"])
    made = model(name, options, seed, numbers, task)
    train(made, task, seed, {**numbers, **numbers["text"]}, progress)
    made.eval()
    return made, validation_loss(made, task)


def recall(name: str, seed: int, numbers: Numbers, progress: Progress, **options: Any) -> float:
    """Train on associative recall; return the share of values that are recalled in new sequences."""
    sizes = numbers["recall"]
    task = Recall(pairs=sizes["pairs"], length=sizes["length"])
    made = model(name, options, seed, numbers, task)
    train(made, task, seed, {**numbers, **sizes}, progress)
    made.eval()
    return evaluate(made, task)


def seconds_per_token(name: str, length: int, numbers: Numbers, **options: Any) -> Any:
    """Return a work that runs a mechanism forwards over so many tokens, causally."""
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
    works = [seconds_per_token(name, length, numbers, **options) for length in (short, long)]
    first, last = best_times(works, sizes["rounds"], sizes["seconds"], time.perf_counter)
    return (last / long) / (first / short)


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
