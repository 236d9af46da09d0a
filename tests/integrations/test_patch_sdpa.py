"""Inside a block torch's attention is ours; around it, in other threads and after errors it is torch's."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as imported

import manymax as mm


def tensors(heads=4):
    query = torch.randn(2, 4, 9, 8)
    return query, torch.randn(2, heads, 9, 8), torch.randn(2, heads, 9, 8)


@pytest.mark.parametrize("call", [F.scaled_dot_product_attention, imported])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True, "scale": 0.7},
        {"attn_mask": torch.randn(9, 9)},
        {"attn_mask": torch.ones(9, 9).tril(2).bool()},
        {"enable_gqa": True},
    ],
    ids=["plain", "causal", "float mask", "bool mask", "gqa"],
)
def test_calls_are_routed_with_all_their_arguments(call, options):
    given = tensors(2 if "enable_gqa" in options else 4)
    with mm.patch_sdpa() as patched:
        softmax = call(*given, **options)
    with mm.patch_sdpa("softplus"):
        softplus = call(*given, **options)
    assert patched.calls == 1
    torch.testing.assert_close(softmax, call(*given, **options))
    torch.testing.assert_close(softplus, mm.attention(*given, **options, map="softplus"))
    assert not torch.allclose(softplus, softmax, atol=1e-3)


def test_dropout_and_positions_of_arguments():
    given = tensors()
    with mm.patch_sdpa():
        assert not F.scaled_dot_product_attention(*given, None, 1.0).any()
        causal = F.scaled_dot_product_attention(*given, None, 0.0, True)
    torch.testing.assert_close(causal, F.scaled_dot_product_attention(*given, is_causal=True))


def test_masks_of_the_lowest_number_hide_keys():
    given = tensors()
    visible = torch.ones(9, 9).tril().bool()
    with mm.patch_sdpa("sigmoid"):
        low = F.scaled_dot_product_attention(*given, torch.where(visible, 0.0, torch.finfo(torch.float32).min))
    torch.testing.assert_close(low, mm.attention(*given, visible, map="sigmoid"))


def test_blocks_nest_and_the_innermost_decides():
    given = tensors()
    with mm.patch_sdpa("sigmoid") as outer:
        with mm.patch_sdpa(backend="sdpa") as inner:  # which itself calls torch's function
            softmax = F.scaled_dot_product_attention(*given)
        sigmoid = F.scaled_dot_product_attention(*given)
    torch.testing.assert_close(softmax, F.scaled_dot_product_attention(*given))
    torch.testing.assert_close(sigmoid, mm.attention(*given, map="sigmoid"))
    assert (outer.calls, inner.calls) == (1, 1)


def test_an_error_leaves_nothing_behind():
    given = tensors()
    expected = F.scaled_dot_product_attention(*given)
    with pytest.raises(ValueError, match="key: expected"), mm.patch_sdpa("relu"):
        F.scaled_dot_product_attention(given[0], given[1][..., :3], given[2])
    assert torch.equal(F.scaled_dot_product_attention(*given), expected)
    with mm.patch_sdpa("relu") as patched:
        F.scaled_dot_product_attention(*given)
    assert patched.calls == 1


def test_other_threads_are_not_touched():
    given = tensors()
    found, entered, done = {}, threading.Event(), threading.Event()

    def hold():
        with mm.patch_sdpa("sigmoid"):
            entered.set()
            done.wait(10)
            found["inside"] = F.scaled_dot_product_attention(*given)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    found["outside"] = F.scaled_dot_product_attention(*given)
    done.set()
    thread.join()
    torch.testing.assert_close(found["inside"], mm.attention(*given, map="sigmoid"))
    torch.testing.assert_close(found["outside"], mm.attention(*given))


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_of_torch_is_routed(need_weights):
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    ours = mm.nn.MultiheadAttention(8, 2, batch_first=True, map="sparsemax")
    ours.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, 8)
    expected = ours(x, x, x, need_weights=need_weights)
    with mm.patch_sdpa("sparsemax"):
        trained = layer(x, x, x, need_weights=need_weights)
        with torch.no_grad():
            evaluated = layer.eval()(x, x, x, need_weights=need_weights)
    for found in (trained, evaluated):
        torch.testing.assert_close(found[0], expected[0])
        assert (found[1] is None) == (not need_weights)


def test_the_shortcut_of_transformer_encoder_is_routed():
    torch.manual_seed(1)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad(), mm.patch_sdpa("sigmoid") as patched:
        evaluated = encoder(x)
    with mm.patch_sdpa("sigmoid"):
        trained = encoder.train()(x)
    assert patched.calls == 2
    torch.testing.assert_close(evaluated, trained)


def test_gradients_flow():
    given = [x.requires_grad_() for x in tensors()]
    with mm.patch_sdpa("entmax15"):
        inside = torch.autograd.grad(F.scaled_dot_product_attention(*given).square().sum(), given)
    outside = torch.autograd.grad(mm.attention(*given, map="entmax15").square().sum(), given)
    for got, expected in zip(inside, outside, strict=True):
        torch.testing.assert_close(got, expected)


def test_compiled_models_are_routed():
    given = tensors()
    torch.compiler.reset()

    def model(*given):
        return 2 * F.scaled_dot_product_attention(*given)

    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(*given), model(*given))
    with mm.patch_sdpa("sigmoid"):
        torch.testing.assert_close(compiled(*given), 2 * mm.attention(*given, map="sigmoid"))


def test_unknown_maps_are_refused_at_once():
    with pytest.raises(ValueError, match="map: expected one of"):
        mm.patch_sdpa("sofmax")
