"""Models of transformers, through their attention interface, against eager attention with all its weights."""

import pytest
import torch

import manymax as mm

transformers = pytest.importorskip("transformers")

from manymax.diagnose import hugging, seams  # noqa: E402

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def make(name, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name.partition('For')[0].removesuffix('Model')}Config")(**options)
    model = getattr(transformers, name)(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def llama(**options):
    return make("LlamaForCausalLM", **SMALL, vocab_size=40, num_key_value_heads=2, **options)


MODELS = {
    "llama": lambda: (llama(), {}),
    "bert": lambda: (make("BertModel", **SMALL, vocab_size=40), {}),
    "gpt-oss": lambda: (
        make(
            "GptOssForCausalLM",
            **SMALL,
            vocab_size=40,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=2,
            num_experts_per_tok=1,
            sliding_window=7,
        ),
        {},
    ),
    "gemma2": lambda: (
        make(
            "Gemma2ForCausalLM", **SMALL, vocab_size=40, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=3.0
        ),
        {},
    ),
    "t5": lambda: (
        make(
            "T5ForConditionalGeneration",
            d_model=32,
            d_ff=48,
            d_kv=8,
            num_layers=2,
            num_heads=4,
            vocab_size=40,
            decoder_start_token_id=0,
        ),
        {"labels": torch.randint(40, (2, 9))},
    ),
}


def batch(side):
    torch.manual_seed(1)
    keep = torch.ones(2, 24, dtype=torch.int64)
    keep[1, slice(0, 6) if side == "left" else slice(18, 24)] = 0
    return {"input_ids": torch.randint(3, 40, (2, 24)), "attention_mask": keep}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_eagers_and_the_sink_is_its_weights(name, side):
    model, extra = MODELS[name]()
    given = batch(side) | extra
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model(**given, output_attentions=True)
        with seams.listening(model, lambda name, query, key, value, tiles: list(tiles)):
            ours = model(**given)
    keep = given["attention_mask"].bool()
    if name == "t5":
        torch.testing.assert_close(ours.logits, eager.logits, rtol=1e-4, atol=1e-4)
        weights = eager.encoder_attentions
    else:
        torch.testing.assert_close(ours[0][keep], eager[0][keep], rtol=1e-4, atol=1e-4)
        weights = eager.attentions
    found = mm.diagnose.run(model, [given])
    assert model.config._attn_implementation == "eager"
    for layer, matrix in zip(found.layers, weights, strict=False):
        means = []
        for sample, row in zip(matrix.double(), keep, strict=True):
            part = sample[:, row][:, :, row]
            means.append(part[:, :, 0].mean(-1))
        assert layer.heads["first_weight"] == pytest.approx(torch.stack(means).mean(0).tolist(), rel=1e-3, abs=1e-5)


def test_a_causal_models_loss_leaves_padding_out():
    model = llama()
    given = batch("right")
    found = mm.diagnose.run(model, [given])
    with torch.no_grad():
        labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        loss = model(**given, labels=labels).loss
    assert found.logits["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert (found.tokens, found.samples) == (42, 2)


def test_the_implementation_comes_back_after_an_error():
    model = llama()
    before = model.config._attn_implementation
    with pytest.raises(IndexError):
        mm.diagnose.run(model, [torch.full((1, 4), 99)])
    assert model.config._attn_implementation == before
    assert hugging.NAME not in transformers.AttentionInterface._global_mapping


def test_images_and_names_of_layers():
    model = make("ViTForImageClassification", **SMALL, image_size=8, patch_size=2, num_channels=1)
    found = mm.diagnose.run(model, [(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 1]))])
    assert found.tokens == 3 * 17
    assert found.logits is not None
    assert [place.name.split(".")[-1] for place in found.residual] == ["0", "1"]
    assert len(found.layers) == 2
