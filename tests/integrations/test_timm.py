"""timm's models with a map: softmax gives what they give, another map what the formula says."""

import pytest
import timm
import torch
from torch import nn

import manymax as mm
from manymax.integrations.timm import attention, replace_attention

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
SWIN = {
    "img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4),
    "num_classes": 5,
}  # fmt: skip


def vit(**options):
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, **options}).eval()


def swin():
    torch.manual_seed(1)
    model = timm.create_model("swin_tiny_patch4_window7_224", **SWIN).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias_table"):
            nn.init.normal_(parameter)
    return model


def images(size=16):
    return torch.randn(2, 3, size, size)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"class_token": False, "global_pool": "avg"}], ids=str)
def test_softmax_is_timms_own_and_weights_load_unchanged(options):
    x = images()
    timms, ours = vit(**options), vit(attn_layer=attention(), **options)
    nn.init.zeros_(ours.head.weight)
    ours.load_state_dict(timms.state_dict(), strict=True)
    torch.testing.assert_close(ours(x), timms(x), rtol=1e-4, atol=1e-5)
    assert issubclass(type(ours.blocks[0].attn), timm.layers.Attention)


def test_a_map_takes_softmaxs_place():
    x = torch.randn(2, 17, 16)
    layer = vit(attn_layer=attention("sparsemax")).blocks[0].attn
    query, key, value = layer.qkv(x).reshape(2, 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
    expected = layer.proj((mm.sparsemax(query @ key.mT * 8**-0.5) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-6)


def test_options_reach_the_map_and_learnt_ones_are_each_layers_own():
    x = images()
    start = nn.Parameter(torch.tensor(2.0))
    model = vit(attn_layer=attention("softmax", temperature=start))
    model(x).square().sum().backward()
    learnt = [block.attn.map.temperature for block in model.blocks]
    assert learnt[0].grad is not None
    assert learnt[0] is not learnt[1]
    hot = vit(attn_layer=attention("softmax", temperature=2.0))
    torch.testing.assert_close(model(x), hot(x))
    assert not torch.allclose(hot(x), vit()(x))


def test_rotary_models():
    options = {
        "img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5,
    }  # fmt: skip
    torch.manual_seed(1)
    model = timm.create_model("eva02_tiny_patch14_224", **options).eval()
    nn.init.normal_(model.head.weight)
    x = images()
    expected = model(x)
    assert len(replace_attention(model)) == 2
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    replace_attention(model, "sigmoid")
    assert not torch.allclose(model(x), expected, atol=1e-3)
    assert issubclass(attention("relu", rope=True), timm.layers.AttentionRope)


def test_windows_of_swin_with_bias_and_shift():
    x = images(32)
    model = swin()
    keys = model.state_dict().keys()
    expected = model(x)
    assert replace_attention(model) == [f"layers.{i}.blocks.{j}.attn" for i in (0, 1) for j in (0, 1)]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert model.state_dict().keys() == keys
    assert model.layers[0].blocks[1].shift_size != (0, 0)
    replace_attention(model, "relu")
    assert not torch.allclose(model(x), expected, atol=1e-3)


def test_training_learns():
    model = vit(attn_layer=attention("entmax15")).train()
    x, labels = images(), torch.tensor([1, 3])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="sparsmax"):
        attention("sparsmax")
    with pytest.raises(TypeError, match="no option 'alfa'"):
        attention("entmax", alfa=1.2)
    with pytest.raises(ValueError, match="model: expected attention layers"):
        replace_attention(nn.Linear(2, 2))


def test_layers_that_call_no_attention_of_torchs_are_refused():
    class Own(nn.Module):
        fused_attn = False

        def forward(self, x):
            return x.softmax(-1)

    layer = nn.Sequential(Own())
    replace_attention(layer, "relu")
    with pytest.raises(ValueError, match="Own does not call torch's attention"):
        layer(images())
