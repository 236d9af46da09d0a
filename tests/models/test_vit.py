import pytest
import torch

from manymax.models.vit import ViT


def small(image=(2, 6, 8), **options):
    torch.manual_seed(0)
    return ViT(image, 5, **({"depth": 2, "width": 16, "num_heads": 2} | options))


def test_patches_are_squares_row_by_row():
    images = torch.randn(3, 2, 6, 8)
    patches = small().patches(images)
    assert patches.shape == (3, 12, 8)
    for row in range(3):
        for column in range(4):
            square = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 4 * row + column], square.flatten(1))


@pytest.mark.parametrize("attention", ["sigmoid", "sparsemax", "sinkhorn", "normalized"])
@pytest.mark.parametrize("head", ["softmax", "stablemax"])
def test_one_seed_gives_all_candidates_the_same_weights_and_first_function(attention, head, awake):
    model, reference = small(attention=attention, head=head), small()
    shared = reference.state_dict()
    own = {name: value for name, value in model.state_dict().items() if ".mechanism." not in name}
    assert own.keys() == shared.keys()
    assert all(torch.equal(value, own[name]) for name, value in shared.items())
    images = torch.randn(2, 2, 6, 8)
    assert torch.equal(model.logits(images), reference.logits(images))
    assert not torch.equal(awake(model).logits(images), awake(reference).logits(images))


class Gridded(torch.nn.Module):
    seen = None

    def __init__(self, head_dim, num_heads):
        super().__init__()

    def forward(self, query, key, value, *, attn_mask=None, is_causal=False, grid=None):
        Gridded.seen = grid, is_causal, value.shape
        return value


class Plain(Gridded):
    def forward(self, query, key, value, *, attn_mask=None, is_causal=False):
        return super().forward(query, key, value, is_causal=is_causal)


def test_grid_goes_to_those_that_take_it():
    images = torch.randn(1, 2, 6, 8)
    small(attention=Gridded).logits(images)
    assert Gridded.seen == ((3, 4), False, (1, 2, 12, 8))
    small(attention=Plain).logits(images)
    assert Gridded.seen == (None, False, (1, 2, 12, 8))


def test_positions_make_the_place_of_a_patch_count(awake):
    model, images = awake(small()), torch.randn(1, 2, 6, 8)
    moved = images.flip(3)
    assert not torch.allclose(model.logits(images), model.logits(moved))
    with torch.no_grad():
        model.positions.zero_()
    swapped = torch.cat([images[..., 2:4], images[..., :2], images[..., 4:]], -1)
    torch.testing.assert_close(model.logits(images), model.logits(swapped))


def test_features_are_the_mean_over_patches_and_gradients_reach_every_parameter(awake):
    model, images = awake(small(num_kv_heads=1, patch=1)), torch.randn(3, 2, 6, 8)
    out = []
    model.norm.register_forward_hook(lambda module, inputs, output: out.append(output))
    torch.testing.assert_close(model.features(images), out[0].mean(1))
    assert out[0].shape == (3, 48, 16)
    loss = model(images, torch.tensor([0, 4, 2]))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model.logits(images), torch.tensor([0, 4, 2])))
    loss.backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in model.parameters())


@pytest.mark.parametrize("patch", [0, 4, 3])
def test_a_patch_that_does_not_fit(patch):
    with pytest.raises(ValueError, match=f"patch: expected a divisor of the image's sides 6 and 8, got {patch}"):
        small(patch=patch)


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"images: expected \(batch, 2, 6, 8\), got \(1, 2, 8, 6\)"):
        small().logits(torch.zeros(1, 2, 8, 6))
