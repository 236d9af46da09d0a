"""TransNormerLLM: learning, exactness, overflow of the direct form, decoding (Qin et al., 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from manymax.attention.module import create_attention
from manymax.claims.claim import Metrics, Numbers, Progress
from manymax.claims.experiments.forms import heads, largest_relative_error, results
from manymax.claims.experiments.timing import best_times
from manymax.claims.experiments.training import part, trained, validation_loss
from manymax.data.text import Text
from manymax.models.gpt import GPT
from manymax.models.transnormer_llm import TransNormerLLM

NAME = "transnormer-llm"
RELEASED = "transnormer-llm, released decay"


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Measure everything."""
    progress(0.0, "exactness")
    metrics: Metrics = {
        "error": form_error(seed, numbers["error_length"], numbers["head_width"]),
        "overflowed": overflowed(seed, numbers["overflow_length"], numbers["head_width"]),
        "decode_time_ratio": decode_time_ratio(seed, numbers),
    }
    task = Text(length=numbers["length"])
    losses, weights = {}, {}
    for index, (name, make) in enumerate(contestants(numbers).items()):
        model = trained(partial(make, **task.model_options), task, seed, numbers, part(progress, name, 1 + index, 4))
        losses[name] = validation_loss(model, task)
        weights[name] = sum(parameter.numel() for parameter in model.parameters())
    metrics["perplexity_ratio"] = math.exp(losses[NAME] - losses["softmax"])
    metrics["softmax_perplexity"] = math.exp(losses["softmax"])
    metrics["released_perplexity_ratio"] = math.exp(losses[RELEASED] - losses["softmax"])
    metrics["parameter_ratio"] = weights[NAME] / weights["softmax"]
    return metrics


def contestants(numbers: Numbers) -> dict[str, Callable[..., GPT]]:
    """Return what makes the transformer and TransNormerLLM, with either decay, with as many parameters.

    Each block of the second has width² weights more, its gate, and loses them where three matrices meet its MLP.
    """
    width, hidden = numbers["width"], numbers["hidden"]
    sizes = {"depth": numbers["depth"], "width": width, "num_heads": numbers["heads"]}
    ours = partial(TransNormerLLM, **sizes, hidden=hidden - round(width / 3))
    return {"softmax": partial(GPT, **sizes, hidden=hidden), NAME: ours, RELEASED: partial(ours, decay="code")}


def form_error(seed: int, length: int, width: int) -> float:
    """Return the largest relative error of the recurrent form, outputs and gradients, against the quadratic one."""
    inputs = heads(seed, length, count=2, width=width)
    found = []
    for backend in ("recurrent", "quadratic"):
        torch.manual_seed(seed)
        mechanism = create_attention(NAME, head_dim=width, num_heads=2, backend=backend)
        found.append(results(lambda q, k, v, m=mechanism: m(q, k, v, is_causal=True), inputs))
    return largest_relative_error(*found)


@torch.no_grad()
def overflowed(seed: int, length: int, width: int) -> float:
    """Return how many numbers are not finite in keys times decay^(-t), which the direct form keeps."""
    mechanism = create_attention(NAME, head_dim=width, num_heads=2)
    key = torch.nn.functional.silu(heads(seed, length, count=2, width=width)[1])
    grown = key * (torch.tensor(mechanism.slopes)[:, None] * torch.arange(length)).exp()[..., None]
    return float((~grown.isfinite()).sum())


@torch.no_grad()
def decode_time_ratio(seed: int, numbers: Numbers) -> float:
    """Return the time of a step after many tokens over that after few."""
    mechanism = create_attention(NAME, head_dim=numbers["head_width"], num_heads=numbers["heads"])
    works = []
    for length in (numbers["short"], numbers["long"]):
        tokens = heads(seed, length + 1, count=numbers["heads"], width=numbers["head_width"])
        _, state = mechanism.prefill(*(x[:, :, :length] for x in tokens))
        new = [x[:, :, length:].contiguous() for x in tokens]
        works.append(lambda new=new, state=state: mechanism.step(*new, state))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    short, long = best_times(works, numbers["rounds"], numbers["seconds"])
    torch.set_num_threads(threads)
    return long / short
