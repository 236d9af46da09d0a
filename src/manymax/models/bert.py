"""BERT, as far as reading a text goes: a trained encoder from a folder of weights, and nothing but torch to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manymax.attention.dense.api import attention
from manymax.models.safetensors import read_safetensors
from manymax.models.wordpiece import WordPiece

# What a published name becomes here; layers stand in "encoder.layer.N".
NAMES = (
    (r"^bert\.", ""),
    (r"^embeddings\.word_embeddings\.", "words."),
    (r"^embeddings\.position_embeddings\.", "positions."),
    (r"^embeddings\.token_type_embeddings\.", "types."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.", "."),
    (r"\.attention\.output\.dense\.", ".mixed."),
    (r"\.attention\.output\.LayerNorm\.", ".attention_norm."),
    (r"\.intermediate\.dense\.", ".inner."),
    (r"\.output\.dense\.", ".outer."),
    (r"\.output\.LayerNorm\.", ".norm."),
)
UNUSED = re.compile(r"^(bert\.)?(embeddings\.position_ids$|pooler\.)|^cls\.")  # the pooled token, and pretraining's
EXPECTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


class Layer(nn.Module):
    """Attention and two maps with GELU between them, each added and then normalised."""

    def __init__(self, width: int, num_heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.attention_norm, self.norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return the next features, (B, N, width); seen is (B, 1, 1, N)."""
        query, key, value = (
            each(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        out: Tensor = attention(query, key, value, attn_mask=seen)
        x = self.attention_norm(x + self.mixed(out.transpose(1, 2).flatten(2)))
        normed: Tensor = self.norm(x + self.outer(F.gelu(self.inner(x))))
        return normed


class Bert(nn.Module):
    """The encoder of BERT: pieces of words in, a vector each out. Of one text: no second one, no pooled vector.

    Args:
        vocabulary: number of pieces.
        width: of a piece's vector.
        depth: layers.
        num_heads: heads of attention.
        hidden: width between the two maps of a layer.
        positions: pieces of a text at most.
        types: kinds of text; all pieces are of the first.
        eps: of the norms.

    Raises:
        ValueError: if the width is no multiple of the heads.

    Example:
        >>> import torch
        >>> from manymax.models.bert import Bert
        >>> model = Bert(vocabulary=100, width=8, depth=2, num_heads=2, hidden=16, positions=12)
        >>> model(torch.zeros(3, 5, dtype=torch.int64)).shape
        torch.Size([3, 5, 8])

    Source:
        Devlin et al., 2018, BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
        arXiv:1810.04805. Weights and their names: the files that Hugging Face's transformers writes.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        num_heads: int,
        hidden: int,
        positions: int = 512,
        types: int = 2,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads: expected a divisor of the width {width}, got {num_heads}")
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.types = nn.Embedding(types, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(Layer(width, num_heads, hidden, eps) for _ in range(depth))

    def forward(self, pieces: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return vectors (B, N, width).

        Args:
            pieces: int64 (B, N).
            mask: bool (B, N), True = there; what comes out where nothing is means nothing.
        """
        count, most = pieces.shape[1], self.positions.num_embeddings
        if count > most:
            raise ValueError(f"pieces: expected at most {most} a text, got {count}")
        mask = torch.ones_like(pieces, dtype=torch.bool) if mask is None else mask
        x: Tensor = self.norm(self.words(pieces) + self.types.weight[0] + self.positions.weight[:count])
        for layer in self.layers:
            x = layer(x, mask[:, None, None])
        return x


def load_bert(folder: str | Path) -> tuple[Bert, WordPiece]:
    """Load a BERT that was published as a folder, in evaluation mode, and what cuts texts for it.

    Args:
        folder: holds `config.json`, `model.safetensors`, `vocab.txt`, and, unless letters are made small,
            `tokenizer_config.json`.

    Raises:
        FileNotFoundError: if one of them is missing.
        ValueError: if the model is no BERT with GELU and absolute positions, or its weights are not those expected.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name, expected in EXPECTED.items():
        if config.get(name, expected) != expected:
            raise ValueError(f"folder: expected {name} {expected!r} in {folder / 'config.json'}, got {config[name]!r}")
    model = Bert(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        types=config["type_vocab_size"],
        eps=config["layer_norm_eps"],
    )
    try:
        model.load_state_dict(_renamed(read_safetensors(folder / "model.safetensors")))
    except RuntimeError as error:
        raise ValueError(f"folder: expected the weights of a BERT in {folder}; {error}") from error
    choices: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").exists():
        choices = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return model.eval(), WordPiece.of(folder / "vocab.txt", lower=choices.get("do_lower_case", True))


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, weight in weights.items():
        if not UNUSED.search(name):
            for pattern, ours in NAMES:
                name = re.sub(pattern, ours, name)  # noqa: PLW2901
            found[name] = weight
    return found


@torch.no_grad()
def token_vectors(
    model: Bert, cut: WordPiece, texts: Sequence[str], *, limit: int, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Return the vectors of texts' pieces, (texts, limit, width), 0 where there is none, and bool (texts, limit).

    Args:
        model: the encoder.
        cut: what makes pieces of texts.
        texts: any strings.
        limit: pieces of a text at most, with start and end.
        batch_size: texts at a time, those of about the same length together; it changes no result beyond rounding.
    """
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    width = model.words.embedding_dim
    vectors, mask = torch.zeros(len(texts), limit, width), torch.zeros(len(texts), limit, dtype=torch.bool)
    for start in range(0, len(texts), batch_size):
        chosen = order[start : start + batch_size]
        pieces, there = cut([texts[number] for number in chosen], limit=limit)
        count = pieces.shape[1]
        vectors[chosen, :count] = torch.where(there[..., None], model(pieces, there), 0)
        mask[chosen, :count] = there
    return vectors, mask
