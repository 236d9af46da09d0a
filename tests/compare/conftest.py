import sys
import textwrap
from pathlib import Path

import pytest

STRANGE = '''
import os
import time
from pathlib import Path

import torch
from torch import nn

from manymax.attention.module import create_attention
from manymax.attention.registry import ATTENTIONS

STARTED = Path({started!r})  # calibration is over when it exists


class Strange(nn.Module):
    """Softmax attention times what `act` returns, which does something strange once training has begun."""

    def __init__(self, act, head_dim, num_heads):
        super().__init__()
        self.inner = create_attention("softmax", head_dim=head_dim, num_heads=num_heads)
        self.act = act

    def forward(self, query, key, value, *, attn_mask=None, is_causal=False):
        out = self.inner(query, key, value, attn_mask=attn_mask, is_causal=is_causal)
        return out * self.act() if STARTED.exists() else out


def breaks():
    raise RuntimeError("something broke")


def refuses(*, head_dim, num_heads):
    raise NotImplementedError("no such thing here")


ACTS = {{
    "breaks": breaks,
    "exits": lambda: os._exit(3),
    "nan": lambda: float("nan"),
    "greedy": lambda: float(torch.ones(2**32)[0]),
    "sleeps": lambda: time.sleep(600),
}}
for name, act in ACTS.items():
    ATTENTIONS[name] = lambda act=act, **sizes: Strange(act, **sizes)
ATTENTIONS["refuses"] = refuses

plan = {{
    "candidates": {candidates!r},
    "task": "text:length=16",
    "seeds": 1,
    "steps": 6,
    "budget": "2s",
    "batch_size": 2,
    "lengths": [16, 32],
    "model": {{"depth": 1}},
    "threads": 1,
    "memory": 2**31,
    "timeout": 600,
}}
'''


@pytest.fixture
def strange_plan(tmp_path):
    """Return a function that writes a Python plan with mechanisms that misbehave, and gives the plan's path."""

    def write(*candidates, started):
        path = tmp_path / "strange.py"
        path.write_text(textwrap.dedent(STRANGE.format(candidates=list(candidates), started=str(started))))
        return path

    return write


@pytest.fixture
def manymax():
    """Return the words that start the command line in a process of its own."""
    return [sys.executable, "-m", "manymax.cli"]


@pytest.fixture
def smoke_plan():
    """Return the path of the repository's smallest plan."""
    return Path(__file__).parents[2] / "plans" / "smoke.toml"
