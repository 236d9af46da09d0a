"""Deng et al., 2026: chunks of tokens choose between softmax attention and a gated delta state."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="nats-l",
    source=Source(
        "Deng et al.",
        2026,
        "Neural Attention Search Linear: Towards Adaptive Token-Level Hybrid Attention Models",
        "2602.03681",
    ),
    statement=(
        "Let each chunk of tokens be kept for softmax attention or written to a Gated DeltaNet state, by a choice that "
        "is learnt with the rest: quality stays close to softmax attention while most tokens need no cache."
    ),
    setting=(
        "A GPT of 2 blocks, width 64, 2 heads, on task `recall`: 4 pairs among 32 tokens, vocabulary 64. Softmax with "
        "rotary positions, `gated-delta`, one block of each, and `nats-l` with chunks of 16, same start and same "
        "batches, each at the better of two learning rates. The kept share is that of tokens in complete chunks that "
        "heads keep, over both layers, on validation sequences."
    ),
    differences=(
        "The paper trains 340 and 760 million parameters on language with chunks of 64; here recall alone, on "
        "sequences of two chunks, since softmax does not learn to recall from 64 tokens within minutes. The choice "
        "reads the mean value of a chunk and its gradient stops at the choice's own weights."
    ),
    checks=(
        Check("recall_ratio", ">=", 0.95, "it recalls nearly as much as softmax"),
        Check("kept_share", "<=", 0.5, "it keeps no more than half of the tokens"),
        Check("gain_over_delta", ">", 0.05, "it recalls more than the delta state alone, by 5 points"),
    ),
    also={
        "softmax_recall": "share of values recalled, softmax",
        "delta_recall": "share of values recalled, Gated DeltaNet",
        "interleaved_recall": "share of values recalled, one block of each",
        "hybrid_recall": "share of values recalled, NAtS-L",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "heads": 2,
        "block_size": 16,
        "vocabulary": 64,
        "pairs": 4,
        "length": 32,
        "steps": 350,
        "batch_size": 32,
        "learning_rates": [3e-3, 1e-2],
        "warmup": 30,
        "tested": 256,
    },
    tiny={
        "width": 16,
        "heads": 1,
        "block_size": 4,
        "vocabulary": 16,
        "pairs": 2,
        "length": 16,
        "steps": 2,
        "batch_size": 2,
        "warmup": 1,
        "tested": 4,
    },
    seeds=(0, 1, 2),
    minutes=6,
)
