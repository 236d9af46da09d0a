"""Gu et al., 2024: attention sinks come from softmax's normalisation, and go without it."""

from manymax.claims.claim import Check, Claim, Source

_SINKS = Check("softmax_sink", ">", 0.0, "softmax has sinks at all", over="every")

CLAIM = Claim(
    name="attention-sink-metric",
    source=Source("Gu et al.", 2024, "When Attention Sink Emerges in Language Models: An Empirical View", "2410.10781"),
    statement=(
        "Language models with softmax, even small ones, come to put much of their attention on the first token, which "
        "works as a bias on the keys. It follows from weights that have to sum to one: with a sigmoid and no "
        "normalisation there is no sink at the same loss, with a normalised sigmoid there is one again, and where a "
        "learnt key without a value is offered the sink moves there."
    ),
    setting=(
        "A byte-level GPT of 3 blocks, width 96, 3 heads a block, on Python's documentation, contexts of 64 bytes. "
        "Softmax, a sigmoid of its own for each score, that sigmoid divided by its row's sum, and softmax with one "
        "more key for each head that is learnt and has no value; same start and same batches. The metric is Sink with "
        "threshold 0.3 at the first of 64 tokens over 64 validation texts, of each weight's share of its row (for "
        "softmax that is the weight). Where no head of the sigmoid has a sink, one head in one text stands in for "
        "none."
    ),
    differences=(
        "The paper trains up to a billion parameters on 5 billion tokens; this sees about 2 million bytes, and text "
        "from the middle of files rather than documents with a start. As in the paper, weights that do not sum to one "
        "are compared by their share."
    ),
    checks=(
        Check("softmax_over_sigmoid", ">", 10.0, "softmax has ten times the sinks of the sigmoid", given=_SINKS),
        Check("sigmoid_loss_ratio", "<=", 1.03, "the sigmoid learns as well"),
        Check("normalised_over_sigmoid", ">", 10.0, "a normalised sigmoid has sinks again", given=_SINKS),
        Check("key_bias_over_softmax", "<", 0.3, "with a learnt key the first token is no sink any more", given=_SINKS),
    ),
    also={
        "sigmoid_sink": "sink metric of the sigmoid",
        "normalised_sink": "sink metric of the normalised sigmoid",
        "key_bias_sink": "sink metric at the first token with a learnt key",
        "softmax_loss": "validation loss of softmax, nats a byte",
    },
    numbers={
        "depth": 3,
        "width": 96,
        "length": 64,
        "steps": 2000,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "warmup": 50,
        "texts": 64,
        "epsilon": 0.3,
    },
    tiny={"depth": 1, "width": 32, "length": 8, "steps": 4, "batch_size": 2, "warmup": 2, "texts": 2},
    seeds=(0, 1, 2),
    minutes=10,
)
