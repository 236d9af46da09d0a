"""The list of attention mechanisms: one line each. API, docs pages, tests and the workbench read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from manymax.attention.dense.local_linear_attention import LocalLinearAttention
from manymax.attention.dense.module import DenseAttention
from manymax.attention.linear.delta import Delta, GatedDelta
from manymax.attention.linear.flowformer import Flowformer
from manymax.attention.linear.galerkin_transformer import OperatorAttention
from manymax.attention.linear.gated_linear import GatedLinear
from manymax.attention.linear.inline_attention import InLineAttention
from manymax.attention.linear.kernelized_attention_rpe import KernelizedRPE
from manymax.attention.linear.l2vit import L2ViT
from manymax.attention.linear.lightning import LightningAttention, LightningAttention2
from manymax.attention.linear.linear import Linear
from manymax.attention.linear.mala import MALA
from manymax.attention.linear.mamba2 import Mamba2
from manymax.attention.linear.nalaformer import NaLaFormer
from manymax.attention.linear.nats_l import NAtSLinear
from manymax.attention.linear.retention import Retention
from manymax.attention.linear.soft import SOFT
from manymax.attention.linear.softhgnn import SoftHGNN
from manymax.attention.linear.transnormer_llm import TransNormerLLM
from manymax.attention.mechanism import Choices, Mechanism
from manymax.attention.recurrent.aaren import Aaren
from manymax.attention.recurrent.dsf import NormalisedAttention
from manymax.attention.recurrent.sd_ssm import SelectiveDense
from manymax.attention.recurrent.softmax_rnn import SoftmaxRNN
from manymax.attention.recurrent.test_time_regression import TestTimeRegression
from manymax.maps.registry import MAPS

# Mechanisms with a rule of their own: a class, or one with some of its options chosen.
MECHANISMS: dict[str, Callable[..., Mechanism]] = {
    "aaren": Aaren,
    "delta": Delta,
    "dsf": NormalisedAttention,
    "flowformer": Flowformer,
    "galerkin-transformer": OperatorAttention,
    "gated-delta": GatedDelta,
    "gated-linear": GatedLinear,
    "inline-attention": InLineAttention,
    "kernelized-attention-rpe": KernelizedRPE,
    "l2vit": L2ViT,
    "lightning-attention": LightningAttention,
    "lightning-attention-2": LightningAttention2,
    "linear": Linear,
    "linear-favor": partial(Linear, feature_map="favor"),
    "linear-relu": partial(Linear, feature_map="relu"),
    "local-linear-attention": LocalLinearAttention,
    "mala": MALA,
    "mamba2": Mamba2,
    "nalaformer": NaLaFormer,
    "nats-l": NAtSLinear,
    "retention": Retention,
    "sd-ssm": SelectiveDense,
    "soft": SOFT,
    "softhgnn": SoftHGNN,
    "softhgnn-ses": partial(SoftHGNN, num_edges=8, num_dynamic=64),
    "softmax-rnn": SoftmaxRNN,
    "test-time-regression": TestTimeRegression,
    "transnormer-llm": TransNormerLLM,
}

# name -> what makes the module from head_dim=, num_heads= and the mechanism's own options. Each map is a mechanism of
# its own: dense attention with that map.
ATTENTIONS: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(DenseAttention, name) for name in MAPS},
    **MECHANISMS,
}


def mechanism_choices(name: str) -> Choices:
    """Return the choices of one of MECHANISMS, with the options that its name has chosen."""
    made = MECHANISMS[name]
    return mechanism_class(name).choices_with(**(made.keywords if isinstance(made, partial) else {}))


def mechanism_class(name: str) -> type[Mechanism]:
    """Return the class of one of MECHANISMS."""
    made = MECHANISMS[name]
    found: type[Mechanism] = made.func if isinstance(made, partial) else made  # type: ignore[assignment]
    return found
