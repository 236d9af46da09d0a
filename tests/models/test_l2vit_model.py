import math

import pytest
import torch
import torch.nn.functional as F

from manymax.attention.dense.module import DenseAttention
from manymax.attention.linear.l2vit import L2ViT as LinearAttention
from manymax.data.registry import create_task
from manymax.models.l2vit import Join, L2ViT
from manymax.models.parts import sublayers
from manymax.models.registry import create_model
from manymax.models.windows import WindowAttention, window_attention

SMALL = {"patch": 1, "depths": (3, 2), "widths": (16, 24), "window": 3, "local": 3}


def small(image=(2, 5, 7), **options):
    torch.manual_seed(0)
    return L2ViT(image, 5, **(SMALL | options))


def awake(model):
    """Give weight to what writes to the residual stream."""
    torch.manual_seed(7)
    for stage in model.stages:
        for block in stage:
            for layer in (block.attention.output, block.mlp[2]):
                torch.nn.init.normal_(layer.weight, std=0.3)
    return model


@pytest.mark.parametrize(("grid", "side"), [((4, 6), 2), ((5, 7), 3), ((3, 2), 7), ((1, 5), 2), ((4, 4), 1)])
def test_windows_by_loops(grid, side):
    torch.manual_seed(1)
    height, width = grid
    query, value = torch.randn(2, 2, 4, height * width, 6, dtype=torch.float64).unbind()
    key = torch.randn(2, 2, height * width, 6, dtype=torch.float64)
    value = value[:, :2]
    expected = torch.zeros_like(query)
    for i in range(height * width):
        seen = [
            row * width + column
            for row in range(height)
            for column in range(width)
            if row // side == i // width // side and column // side == i % width // side
        ]
        for head in range(4):
            scores = torch.einsum("bd,bkd->bk", query[:, head, i], key[:, head // 2, seen]) / 6**0.5
            shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
            expected[:, head, i] = torch.einsum("bk,bkd->bd", shares, value[:, head // 2, seen])
    found = window_attention(query, key, value, grid=grid, side=side)
    torch.testing.assert_close(found, expected)


def test_gradients_of_windows_that_reach_beyond_the_grid():
    query, key, value = torch.randn(3, 1, 1, 6, 2, dtype=torch.float64, requires_grad=True).unbind()
    inputs = [x.detach().requires_grad_() for x in (query, key, value)]
    assert torch.autograd.gradcheck(lambda *x: window_attention(*x, grid=(2, 3), side=2), inputs)


def test_near_and_far_take_turns_in_each_stage():
    kinds = [[type(block.attention).__name__ for block in stage] for stage in small().stages]
    near, far = "WindowAttention", "Attention"
    assert kinds == [[near, far, near], [near, far]]
    assert [[block.concentrate is not None for block in stage] for stage in small().stages] == [
        [False, True, False],
        [False, True],
    ]
    assert all(isinstance(each.mechanism, LinearAttention) for each in sublayers(small()))
    assert [each.mechanism.head_dim for each in sublayers(small())] == [16, 24]
    everywhere = small(window=0, local=0, attention="softmax")
    assert len(sublayers(everywhere)) == 5
    assert all(isinstance(each.mechanism, DenseAttention) for each in sublayers(everywhere))
    assert not any("concentrate" in name for name, _ in everywhere.named_parameters())


def by_formula(block, x, height, width):
    """One block on an image (B, C, H, W), from its parameters and torch's own convolutions."""

    def depthwise(image, convolution):
        weight = convolution.weight[0][:, None]
        return F.conv2d(image, weight, convolution.bias[0], padding=weight.shape[-1] // 2, groups=len(weight))

    def tokens(image):
        return image.flatten(2).mT

    def image(tokens):
        return tokens.mT.reshape(len(tokens), -1, height, width)

    x = x + depthwise(x, block.position)
    normal = F.layer_norm(tokens(x), x.shape[1:2], block.attention_norm.weight, block.attention_norm.bias)
    query, key, value = (normal @ block.attention.query_key_value.weight.T).chunk(3, -1)
    if isinstance(block.attention, WindowAttention):
        mixed = window_attention(query[:, None], key[:, None], value[:, None], grid=(height, width), side=3)[:, 0]
    else:
        products = query.relu() @ key.relu().mT
        least = block.attention.mechanism.least
        mixed = block.attention.mechanism.temperature[0] * (products @ value) / products.sum(-1, True).clamp(min=least)
    x = x + image(mixed @ block.attention.output.weight.T)
    if block.concentrate is not None:
        module = block.concentrate
        inner = image(F.layer_norm(tokens(x), x.shape[1:2], module.layer_norm.weight, module.layer_norm.bias))
        inner = F.gelu(depthwise(inner, module.first))
        inner = (inner - inner.mean((0, 2, 3), True)) / (inner.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        norm = module.batch_norm
        inner = inner * norm.weight[:, None, None] + norm.bias[:, None, None]
        x = x + depthwise(inner, module.second)
    normal = F.layer_norm(tokens(x), x.shape[1:2], block.mlp_norm.weight, block.mlp_norm.bias)
    return x + image(F.gelu(normal @ block.mlp[0].weight.T) @ block.mlp[2].weight.T)


def test_a_whole_model_is_its_formula():
    model = awake(small(attention=lambda **sizes: LinearAttention(**sizes, least=20.0))).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 3 and "output" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(3, 2, 5, 7, dtype=torch.float64)
    first, norm, _, second, last = model.downsample[0]
    x = F.conv2d(images, first.weight, first.bias, padding=1)
    x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True).relu()
    x = F.conv2d(x, second.weight, second.bias, padding=1)
    x = F.batch_norm(x, None, None, last.weight, last.bias, training=True)
    for block in model.stages[0]:
        x = by_formula(block, x, 5, 7)
    join = model.downsample[1]
    x = F.layer_norm(x.permute(0, 2, 3, 1), (16,), join.norm.weight, join.norm.bias).permute(0, 3, 1, 2)
    padded = torch.zeros(3, 16, 6, 8, dtype=torch.float64)
    padded[:, :, :5, :7] = x
    x = F.conv2d(padded, join.convolution.weight, join.convolution.bias, stride=2)
    for block in model.stages[1]:
        x = by_formula(block, x, 3, 4)
    expected = F.layer_norm(x.flatten(2).mT, (24,), model.norm.weight, model.norm.bias).mean(1)
    torch.testing.assert_close(model.features(images), expected)
    loss = model(images, torch.tensor([0, 4, 2]))
    torch.testing.assert_close(loss, F.cross_entropy(model.logits(images), torch.tensor([0, 4, 2])))


@pytest.mark.parametrize(("patch", "grids"), [(1, [(9, 6), (5, 3)]), (2, [(5, 3), (3, 2)]), (4, [(3, 2), (2, 1)])])
def test_shapes_of_stages_of_images_of_odd_sides(patch, grids):
    model, seen = small((1, 9, 6), patch=patch), []
    for stage in model.stages:
        stage[0].register_forward_pre_hook(lambda module, inputs: seen.append((inputs[1], inputs[0].shape)))
    assert model.logits(torch.randn(2, 1, 9, 6)).shape == (2, 5)
    assert seen == [(grid, (2, math.prod(grid), width)) for grid, width in zip(grids, (16, 24), strict=True)]


def test_zeros_fill_up_odd_sides_after_the_norm():
    join = Join(3, 4)
    torch.nn.init.normal_(join.norm.bias)
    x = torch.randn(1, 3, 3, 1)
    normal = join.norm(x[0, :, 2, 0])
    expected = join.convolution.weight[:, :, 0, 0] @ normal + join.convolution.bias
    torch.testing.assert_close(join(x)[0, :, 1, 0], expected)
    assert join(x).shape == (1, 4, 2, 1)


def test_gradients_reach_every_parameter():
    model = awake(small())
    loss = model(torch.randn(4, 2, 5, 7), torch.tensor([0, 4, 2, 1]))
    loss.backward()
    idle = [name for name, parameter in model.named_parameters() if not bool((parameter.grad != 0).any())]
    assert idle == []


def test_the_default_has_four_stages():
    model = L2ViT((3, 64, 64), 4)
    assert [size.width for size in model.sizes] == [32, 64, 128, 256]
    assert [size.num_heads for size in model.sizes] == [1, 2, 4, 8]
    assert all(size.hidden == 4 * size.width and size.depth == 2 for size in model.sizes)
    assert model.features(torch.zeros(2, 3, 64, 64)).shape == (2, 256)
    side = model.stages[0][0].attention.side
    assert (side, model.stages[0][1].concentrate.first.size) == (7, 7)


@pytest.mark.parametrize("attention", ["softmax", "soft", "retention"])  # one without a grid, with one, with layers
def test_other_mechanisms_take_the_place_of_linear_attention(attention):
    model, reference = small(attention=attention), small()
    own = {name: value for name, value in model.state_dict().items() if ".mechanism." not in name}
    shared = {name: value for name, value in reference.state_dict().items() if ".mechanism." not in name}
    assert own.keys() == shared.keys()
    assert all(torch.equal(value, own[name]) for name, value in shared.items())
    images = torch.randn(2, 2, 5, 7)
    assert torch.equal(model.logits(images), reference.logits(images))
    assert not torch.equal(awake(model).logits(images), awake(reference).logits(images))


class Gridded(torch.nn.Module):
    seen: list = []  # noqa: RUF012

    def __init__(self, head_dim, num_heads):
        super().__init__()

    def forward(self, query, key, value, *, attn_mask=None, is_causal=False, grid=None):
        Gridded.seen.append(grid)
        return value


def test_mechanisms_for_images_are_told_the_grid_of_their_stage():
    Gridded.seen.clear()
    small(attention=Gridded).logits(torch.randn(1, 2, 5, 7))
    assert Gridded.seen == [(5, 7), (3, 4)]


def test_it_reads_the_tasks_of_vit():
    task = create_task("digits")
    model = create_model(task, family="l2vit", depths=(2,), widths=(32,), attention="softmax")
    assert isinstance(model, L2ViT)
    assert model.patch == 2
    assert model.logits(task.held_out()[0][:3]).shape == (3, 10)
    with pytest.raises(TypeError, match=r"l2vit has no option 'depth'; it has depths, .*; did you mean 'depths'"):
        create_model(task, family="l2vit", depth=2)
    with pytest.raises(ValueError, match="family: expected one of gpt, which read recall, got 'l2vit'"):
        create_model(create_task("recall"), family="l2vit")
    assert type(create_model(task, family="vit")) is type(create_model(task))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": 3}, "patch: expected one of 1, 2, 4, got 3"),
        ({"depths": (2,)}, r"widths: expected one for each of 1 stages, at least 1, got \[16, 24\]"),
        ({"depths": (), "widths": ()}, "widths: expected one for each of 0 stages, at least 1"),
        ({"depths": (1, 1)}, r"depths: expected a stage with a second block, .*got \(1, 1\)"),
        ({"depths": (0, 2)}, "depth: expected at least 1, got 0"),
        ({"window": -1}, "window: expected at least 0, got -1"),
        ({"local": -3}, "local: expected 0 or an odd number, got -3"),
        ({"local": 4}, "local: expected an odd number of at least 1, got 4"),
        ({"widths": (48, 100)}, "num_heads: expected a divisor of the width 100, got 3"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"images: expected \(batch, 2, 5, 7\), got \(1, 2, 7, 5\)"):
        small().logits(torch.zeros(1, 2, 7, 5))
