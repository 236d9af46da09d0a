"""SOFT against its formula with an exact inverse, and Newton's iteration."""

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, HEADS, make, tokens

from manymax.attention.linear.newton import newton_inverse, safe_size

EXACT = {"rtol": 0, "atol": 1e-7}  # inverses of matrices with condition numbers up to 1e4


def gaussian(x, y):
    return torch.exp(-0.5 * (x[:, :, :, None] - y[:, :, None]).square().sum(-1))


def built(options):
    module = make(("soft", options))
    torch.manual_seed(0)
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    return module


def attend(module, query, key, value, raw, grid):
    """The definition, given what landmarks are made of."""
    marks = F.gelu(F.layer_norm(raw, (DIM,), module.norm.weight, module.norm.bias))
    inner = gaussian(marks, marks)
    if module.symmetric:
        scale = torch.diag_embed(inner.sum(-1) ** -0.5)
        inverse = scale @ torch.linalg.inv(inner) @ scale
    else:
        inverse = torch.linalg.inv(inner + 0.01 * torch.eye(inner.shape[-1]))
    out = gaussian(query, marks) @ inverse @ gaussian(marks, key) @ value
    return out if module.local is None else out + module.local(value, grid)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_a_sequence_with_means_of_queries(symmetric, tied):
    options = {"num_landmarks": 3, "symmetric": symmetric, "tied": tied, "local": 3 * tied, "iterations": 60}
    module, (query, key, value) = built(options), tokens(9)
    q, k = query * DIM**-0.25, key * DIM**-0.25
    if tied:
        q = k = (q + k) / 2
    raw = q.unflatten(2, (3, 3)).mean(3)
    torch.testing.assert_close(module(query, key, value), attend(module, q, k, value, raw, None), **EXACT)


def test_a_grid_with_means_of_rectangles():
    module, (query, _, value) = built({"num_landmarks": 5, "iterations": 60}), tokens(12)
    q = query * DIM**-0.25
    image = q.unflatten(2, (2, 6))
    raw = torch.stack([image[:, :, r, 3 * c : 3 * c + 3].mean(2) for r in range(2) for c in range(2)], 2)
    expected = attend(module, q, q, value, raw, (2, 6))
    torch.testing.assert_close(module(query, query, value, grid=(2, 6)), expected, **EXACT)


@pytest.mark.parametrize(("grid", "rows"), [((4, 6), 2), (None, 1), ((3, 8), 2)])
def test_landmarks_of_a_convolution(grid, rows):
    module, (query, _, value) = built({"ratio": 2, "iterations": 60}), tokens(24)
    q = query * DIM**-0.25
    height, width = grid or (1, 24)
    image = F.pad(q.unflatten(2, (height, width)), (0, 0, 0, 0, 0, 2 * rows - height))
    marks = []
    for r in range(rows):
        for c in range(width // 2):
            part = image[:, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
            marks.append(torch.einsum("bhyxd,edyx->bhe", part, module.sample.weight))
    expected = attend(module, q, q, value, torch.stack(marks, 2), grid)
    torch.testing.assert_close(module(query, query, value, grid=grid), expected, **EXACT)


def test_with_ratio_one_every_token_is_a_landmark():
    module, (query, _, value) = built({"ratio": 1, "local": 0}), tokens(6)
    raw = query * DIM**-0.25 @ module.sample.weight[:, :, 0, 0].T + module.sample.bias
    marks = F.gelu(F.layer_norm(raw, (DIM,), module.norm.weight, module.norm.bias))
    torch.testing.assert_close(module(query, query, value), gaussian(marks, marks) @ value, **EXACT)


def kernels(count, spread, dtype=torch.float64):
    x = spread * torch.randn(5, 2, count, DIM, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return gaussian(x, x)


def test_newton_finds_the_inverse_and_its_gradient():
    matrix = (kernels(12, 1.0) + 0.01 * torch.eye(12)).requires_grad_()
    size = 1.8 / matrix.detach().sum(-1).amax(-1) ** 2
    found, expected = newton_inverse(matrix, size, 40), torch.linalg.inv(matrix)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), matrix)[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


def test_step_sizes_that_are_safe():
    matrix = kernels(12, 0.5)
    size = safe_size(matrix)
    first = torch.eye(12) - size[..., None, None] * matrix @ matrix
    plain = 2 / matrix.sum(-1).amax(-1) ** 2
    assert (first.abs().sum(-2).amax(-1) <= 1.01).all()
    assert (size < plain).any()
    torch.testing.assert_close(torch.log2(plain / size).frac(), torch.zeros_like(size), **EXACT)


def test_the_kernel_is_better_known_with_more_landmarks():
    query, _, _ = tokens(64)
    q = query * DIM**-0.25
    eye = torch.eye(64, dtype=torch.float64).expand(2, HEADS, 64, 64)
    errors = []
    for landmarks in (4, 16, 64):
        module = make(("soft", {"num_landmarks": landmarks, "local": 0, "iterations": 60}))
        errors.append(float((module(query, query, eye) - gaussian(q, q)).detach().norm()))
    assert errors == sorted(errors, reverse=True)


def test_wrong_options():
    for name in ("num_landmarks", "ratio", "iterations"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            make(("soft", {name: 0}))
    query, key, value = tokens(7)
    with pytest.raises(ValueError, match="key: expected one for each of 5 queries"):
        make(("soft", {}))(query[:, :, :5], key, value)
