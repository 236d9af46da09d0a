"""Yang et al., 2024: the delta rule with a gate."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="gated-deltanet",
    source=Source("Yang et al.", 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule", "2412.06464"),
    statement=(
        "A gate that forgets and the delta rule that replaces complement each other: gated DeltaNet models language "
        "better than Mamba-2 and better than DeltaNet, and recalls better than Mamba-2."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, 300 steps of 16: "
        "Mamba-2, delta and gated delta. Recall: the same GPT on associative recall, 8 pairs in 64 tokens, each asked "
        "once, 400 steps of 64."
    ),
    differences=(
        "The paper trains 400 million and 1.3 billion parameters on up to 100 billion tokens, and tests recall with "
        "needles in long contexts."
    ),
    checks=(
        Check("ratio_to_mamba2", "<", 1.0, "gated delta learns text better than Mamba-2"),
        Check("ratio_to_delta", "<", 1.0, "gated delta learns text better than delta"),
        Check("recall_gain_over_mamba2", ">", 0.0, "gated delta recalls more than Mamba-2"),
    ),
    also={
        "gated_delta_recall": "share that gated delta recalls",
        "delta_recall": "share that delta recalls",
        "mamba2_recall": "share that Mamba-2 recalls",
        "gated_delta_text_loss": "validation loss of gated delta, nats a byte",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 300, "batch_size": 16},
        "recall": {"pairs": 8, "length": 64, "steps": 400, "batch_size": 64},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "recall": {"pairs": 2, "length": 16, "steps": 4, "batch_size": 2},
    },
    seeds=(0, 1, 2),
    minutes=5,
)
