"""Yang et al., 2023: linear attention with a learnt decay of each channel."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="gated-linear-attention",
    source=Source(
        "Yang et al.", 2023, "Gated Linear Attention Transformers with Hardware-Efficient Training", "2312.06635"
    ),
    statement=(
        "Decays that depend on the token make linear attention competitive with softmax and better than fixed decays, "
        "and a model trained on short sequences works on longer ones."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, 300 steps of 16: "
        "softmax, retention (fixed decays) and gated linear attention. Length: the gated model's loss on contexts of "
        "512 bytes over that on 128."
    ),
    differences=(
        "The paper trains 340 million and 1.3 billion parameters on up to 100 billion tokens, and generalises from 2 "
        "thousand to 20 thousand tokens."
    ),
    checks=(
        Check("ratio_to_retention", "<", 1.0, "learnt decays learn text better than fixed ones"),
        Check("text_loss_ratio", "<=", 1.02, "gated linear attention learns text as well as softmax"),
        Check("length_ratio", "<=", 1.02, "the loss does not rise at four times the training length"),
    ),
    also={
        "softmax_text_loss": "validation loss of softmax, nats a byte",
        "softmax_length_ratio": "softmax's loss on contexts of four times the training length over that on the latter",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 300, "batch_size": 16},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
    },
    seeds=(0, 1, 2),
    minutes=1,
)
