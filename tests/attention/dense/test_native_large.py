"""Calls that the native kernels cut in ways in which small ones are never cut, on one, two and three threads.

The sizes are those of kernels/cpu/attention: 16 MB of packed heads make a wave, 192 keys a block of a segment, and 2^17
scores a tile of whole rows; a million products wake a thread.
"""

import pytest
import torch
from dense_cases import assert_accurate_on_the_whole
from native_cases import HAVE, case_of, needs_kernels

pytestmark = needs_kernels
NAMES = [name for name in ("softmax", "sigmoid", "entmax15") if name in HAVE]
CUTS = {
    # Packed keys and values take 5 MB a head: waves of two or three heads forwards.
    "many keys": {"queries": 11, "keys": 20000, "heads": 7, "key_heads": 7, "dim": 32, "value_dim": 30, "batch": 1},
    # Queries and their gradients take 8 MB a head and more: waves of one to three heads backwards.
    "many queries": {"queries": 20000, "keys": 11, "heads": 7, "key_heads": 7, "dim": 32, "value_dim": 30, "batch": 1},
    # Two or three segments for each of five heads, whose gradients of queries are summed.
    "segments": {"queries": 200, "keys": 700, "heads": 5, "key_heads": 5, "dim": 40, "batch": 1, "causal": "top-left"},
    # Segments whose heads add to the same gradient, one after the other.
    "segments in order": {
        "queries": 200,
        "keys": 700,
        "heads": 4,
        "key_heads": 2,
        "dim": 40,
        "bias": "qk",
        "mask": "bool",
    },
    # All keys and heads add to the same gradient: one segment, in order.
    "one column": {"queries": 200, "keys": 700, "heads": 4, "key_heads": 2, "dim": 40, "bias": "q", "sinks": True},
    # Tiles of 36 whole rows.
    "long rows": {"queries": 100, "keys": 3550, "heads": 2, "key_heads": 1, "dim": 24, "batch": 1, "spread": 4.0},
}


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    """Set the number of threads, and restore it."""
    count = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(count)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", CUTS)
def test_large_calls_and_their_gradients(cut, name, threads):
    assert_accurate_on_the_whole([case_of(name, **CUTS[cut])], "cpu", torch.float32)
