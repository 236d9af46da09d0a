"""InLine attention against its weights, pair by pair."""

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, make, tokens

from manymax.attention.linear.features import FEATURES

EXACT = {"rtol": 0, "atol": 1e-10}


def weights(query, key, features):
    products = features(query) @ features(key).transpose(2, 3)
    n = key.shape[2]
    return DIM**-0.5 / n * (products - products.sum(-1, keepdim=True) / n) + 1 / n


@pytest.mark.parametrize("name", ["identity", "relu", "exp", "leaky_relu"])
def test_the_output_is_that_of_the_weights_which_sum_to_one(name):
    query, key, value = tokens(9)
    rows = weights(query[:, :, :7], key, FEATURES[name])
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), **EXACT)
    module = make(("inline-attention", {"feature_map": name, "local": 0}))
    torch.testing.assert_close(module(query[:, :, :7], key, value), rows @ value, **EXACT)


@pytest.mark.parametrize(("grid", "size"), [(None, 3), ((3, 4), 3), ((4, 3), 5)])
def test_the_kernel_of_an_image_is_made_of_its_mean(grid, size):
    module, (query, key, value) = make(("inline-attention", {"local": size})), tokens(12)
    made = module.local
    mean = value.mean(2)
    hidden = F.gelu(torch.einsum("bhd,hde->bhe", mean, made.hidden.weight) + made.hidden.bias[:, 0])
    kernel = torch.einsum("bhd,hde->bhe", hidden, made.kernel.weight) + made.kernel.bias[:, 0]
    kernel = kernel.unflatten(-1, (DIM, size, size))
    expected = weights(query, key, FEATURES["identity"]) @ value
    width = (grid or (1, 12))[1]
    half = size // 2
    for i in range(12):
        for j in range(12):
            down, right = j // width - i // width, j % width - i % width
            if max(abs(down), abs(right)) <= half:
                expected[:, :, i] += kernel[..., half + down, half + right] * value[:, :, j]
    torch.testing.assert_close(module(query, key, value, grid=grid), expected, **EXACT)


def test_two_queries_of_one_direction_have_different_weights():
    query, key, _ = tokens(9)
    eye = torch.eye(9, dtype=torch.float64).expand(2, 4, 9, 9)
    module = make(("inline-attention", {"local": 0}))
    assert (module(query, key, eye) - module(2 * query, key, eye)).abs().max() > 1e-3
    linear = make(("linear-relu", {}))
    torch.testing.assert_close(linear(query, key, eye), linear(2 * query, key, eye), **EXACT)


def test_an_unknown_feature_map():
    with pytest.raises(ValueError, match=r"feature_map: expected one of .*did you mean 'leaky_relu'"):
        make(("inline-attention", {"feature_map": "leakyrelu"}))
    with pytest.raises(ValueError, match="local: expected an odd number"):
        make(("inline-attention", {"local": 2}))
