"""The list of attention mechanisms: one line each. API, docs pages, tests and the workbench read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from manymax.attention.dense.module import DenseAttention
from manymax.maps.registry import MAPS

# name -> what makes the module from head_dim=, num_heads= and the mechanism's own options. Each map is a mechanism of
# its own: dense attention with that map.
ATTENTIONS: dict[str, Callable[..., nn.Module]] = {name: partial(DenseAttention, name) for name in MAPS}
