"""The operators of the Galerkin Transformer against their formulas."""

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, HEADS, make, tokens

EXACT = {"rtol": 0, "atol": 1e-10}


def built(options):
    """A module whose norms' gains and shifts are no longer ones and zeros."""
    module = make(("galerkin-transformer", options))
    torch.manual_seed(0)
    for norm in module.norms.values():
        torch.nn.init.normal_(norm.gain)
        torch.nn.init.normal_(norm.shift)
    return module


def normal(x, norm, over):
    dims = {"layer": (3,), "instance": (2,)}[over]
    centred = x - x.mean(dims, keepdim=True)
    return centred / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt() * norm.gain + norm.shift


@pytest.mark.parametrize("over", ["layer", "instance"])
@pytest.mark.parametrize("kind", ["galerkin", "fourier", "softmax", "linear"])
def test_the_output_is_that_of_all_pairs(kind, over):
    module, (query, key, value) = built({"kind": kind, "norm": over}), tokens(9)
    query = query[:, :, :7]
    q, k, v = query, key, value
    if kind == "galerkin":
        k, v = normal(k, module.norms["key"], over), normal(v, module.norms["value"], over)
        weights = q @ k.transpose(2, 3) / 9
    elif kind == "fourier":
        q, k = normal(q, module.norms["query"], over), normal(k, module.norms["key"], over)
        weights = q @ k.transpose(2, 3) / 9 / DIM**0.5
    elif kind == "softmax":
        weights = torch.softmax(q @ k.transpose(2, 3) / DIM**0.5, -1)
    else:
        weights = torch.softmax(q, -1) @ torch.softmax(k, -2).transpose(2, 3)
    torch.testing.assert_close(module(query, key, value), weights @ v, **EXACT)


@pytest.mark.parametrize(("pos_dim", "grid"), [(1, None), (1, (1, 12)), (2, (3, 4)), (2, None)])
@pytest.mark.parametrize("kind", ["galerkin", "fourier"])
def test_coordinates_stand_beside_the_channels(kind, pos_dim, grid):
    module, whole = built({"kind": kind, "pos_dim": pos_dim}), tokens(12)
    height, width = grid or (1, 12)
    row, column = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    where = torch.stack(torch.meshgrid(row, column, indexing="ij"), -1).reshape(12, 2).double()[:, 2 - pos_dim :]
    where = where.expand(2, HEADS, 12, pos_dim)
    names = ("query", "key", "value")
    normed = [
        normal(x, module.norms[n], "layer") if n in module.norms else x for n, x in zip(names, whole, strict=True)
    ]
    q, k, v = (torch.cat([x, where], -1) for x in normed)
    out = q @ (k.transpose(2, 3) @ v) / 12
    out = out / (DIM + pos_dim) ** 0.5 if kind == "fourier" else out
    expected = torch.einsum("bhnd,hde->bhne", out, module.back.weight)
    torch.testing.assert_close(module(*whole, grid=grid), expected, rtol=0, atol=1e-6)  # linspace is in float32


def test_padding_shifts_no_coordinate():
    module, whole = built({"pos_dim": 1}), tokens(5)
    padded = [F.pad(x, (0, 0, 3, 2), value=torch.nan) for x in whole]
    keep = F.pad(torch.ones(1, 1, 1, 5, dtype=torch.bool), (3, 2))
    torch.testing.assert_close(module(*padded, attn_mask=keep)[:, :, 3:8], module(*whole), **EXACT)


def test_wrong_options():
    with pytest.raises(ValueError, match=r"kind: expected one of .*did you mean 'fourier'"):
        make(("galerkin-transformer", {"kind": "Fourier"}))
    with pytest.raises(ValueError, match="norm: expected one of layer, instance, got 'batch'"):
        make(("galerkin-transformer", {"norm": "batch"}))
    with pytest.raises(ValueError, match="pos_dim: expected 0, 1 or 2, got 3"):
        make(("galerkin-transformer", {"pos_dim": 3}))
    with pytest.raises(ValueError, match=r"grid: expected one row for pos_dim=1, got \(2, 3\)"):
        make(("galerkin-transformer", {"pos_dim": 1}))(*tokens(6), grid=(2, 3))
