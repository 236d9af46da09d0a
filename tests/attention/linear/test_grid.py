"""What mechanisms for images share."""

import pytest
import torch
from mechanism_cases import CASES, DIM, HEADS, make, tokens

from manymax.attention.linear.grid import GridConvolution, OnGrid, places, turn
from manymax.attention.registry import mechanism_class

EXACT = {"rtol": 0, "atol": 1e-10}
IMAGES = {label: case for label, case in CASES.items() if issubclass(mechanism_class(case[0]), OnGrid)}


# With "pos_dim" and "num_landmarks" a grid's sides matter, whether or not there is something in each place.
def each(cases):
    return pytest.mark.parametrize("case", list(cases.values()), ids=list(cases))


@each(IMAGES)
def test_a_sequence_is_a_grid_of_one_row(case):
    module, whole = make(case), tokens(6)
    torch.testing.assert_close(module(*whole, grid=(1, 6)), module(*whole), **EXACT)


@each({label: case for label, case in IMAGES.items() if not {"pos_dim", "num_landmarks"} & set(case[1])})
def test_padding_in_a_grid_takes_no_part(case):
    module, (query, key, value) = make(case), tokens(12)
    keep = torch.ones(3, 4, dtype=torch.bool)
    keep[2], keep[:, 3] = False, False
    keep = keep.flatten()
    inner = (x[:, :, keep].clone() for x in (query, key, value))
    expected = module(*inner, grid=(2, 3))
    for x in (query, key, value):
        x[:, :, ~keep] = torch.nan
    out = module(query, key, value, grid=(3, 4), attn_mask=keep[None, None, None])
    torch.testing.assert_close(out[:, :, keep], expected, **EXACT)


@each(IMAGES)
def test_a_grid_that_does_not_fit(case):
    module, whole = make(case), tokens(6, batch=1)
    for grid in ((2, 4), (-2, -3), (6, 0)):
        with pytest.raises(ValueError, match=r"grid: expected \(height, width\) of the query"):
            module(*whole, grid=grid)
    with pytest.raises(ValueError, match="grid: expected None beside is_causal, which"):
        module(*whole, grid=(2, 3), is_causal=True)
    with pytest.raises(ValueError, match="grid: expected None beside cu_seqlens, which"):
        module(*whole, grid=(2, 3), cu_seqlens=torch.tensor([0, 6]))


@pytest.mark.parametrize("grid", [None, (3, 4), (4, 3), (12, 1)])
def test_a_convolution_over_the_grid_is_the_sum_over_neighbours(grid):
    module = GridConvolution(HEADS, DIM, 5).double()
    torch.nn.init.normal_(module.bias)
    _, _, x = tokens(12)
    width = (grid or (1, 12))[1]
    expected = module.bias[:, None].expand(2, -1, 12, -1).clone()
    for i in range(12):
        for j in range(12):
            down, right = j // width - i // width, j % width - i % width
            if max(abs(down), abs(right)) <= 2:
                expected[:, :, i] += module.weight[:, :, 2 + down, 2 + right] * x[:, :, j]
    torch.testing.assert_close(module(x, grid), expected, **EXACT)


def test_the_causal_convolution_is_the_kernel_without_its_right_half():
    module, cut = GridConvolution(HEADS, DIM, 5).double(), GridConvolution(HEADS, DIM, 5).double()
    cut.load_state_dict(module.state_dict())
    with torch.no_grad():
        cut.weight[:, :, 2, 3:] = 0
    _, _, x = tokens(9)
    out, _ = module.causal(x, None, None)
    torch.testing.assert_close(out, cut(x, None), **EXACT)


def test_products_of_turned_features_depend_on_distances_alone():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)
    spots = places((7, 9), torch.zeros(1, 1, 63, 8))
    queries, keys = (turn(x.expand(1, 1, 63, 8), spots) for x in (query, key))
    products = (queries @ keys.transpose(2, 3)).reshape(7, 9, 7, 9)
    assert products[0, 0, 2, 3] == pytest.approx(float(products[4, 5, 6, 8]), abs=1e-12)
    assert abs(products[0, 0, 2, 3] - products[0, 0, 3, 2]) > 1e-3
    assert abs(products[0, 0, 2, 0] - products[0, 0, 0, 0]) > 1e-3
    assert abs(products[0, 0, 0, 2] - products[0, 0, 0, 0]) > 1e-3


def test_the_wavelengths_are_those_of_the_authors():
    x = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    x[..., 0::2] = 1
    turned = turn(x, torch.tensor([[[2, 3]]]))[0, 0, 0]
    angles = torch.tensor(
        [2.0, 2e-4, 3.0, 3e-4], dtype=torch.float64
    )  # two pairs turn by the row, two by the column, at rates 1 and 1 / 10000
    expected = torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(turned[:8].reshape(4, 2), expected, **EXACT)
    assert turned[8] == 1
    turned = turn(x, torch.tensor([[[2]]]))[0, 0, 0, :8].reshape(4, 2)
    angles = 2.0 * 10000.0 ** -torch.linspace(0, 1, 4, dtype=torch.float64)  # all pairs turn by the place
    torch.testing.assert_close(turned, torch.stack([angles.cos(), angles.sin()], 1), **EXACT)


def test_an_even_kernel():
    with pytest.raises(ValueError, match="local: expected an odd number of at least 1, got 4"):
        GridConvolution(HEADS, DIM, 4)
