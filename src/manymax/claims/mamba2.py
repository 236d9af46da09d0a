"""Dao and Gu, 2024: state space duality."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="mamba2",
    source=Source(
        "Dao and Gu",
        2024,
        "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality",
        "2405.21060",
    ),
    statement=(
        "A selective state space with a scalar decay is a masked attention and can be computed by chunks as matrix "
        "products, faster than a scan; a larger state recalls more, and language is modelled as well as by softmax."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, 300 steps of 16: "
        "softmax against Mamba-2. Recall: the same GPT on associative recall, 8 pairs in 64 tokens, each asked once, "
        "400 steps of 64, with 8, 4 and 2 heads, whose states are 8 x 8, 16 x 16 and 32 x 32 a head. Time: forwards "
        "over 2048 tokens, token by token over chunks, both in plain PyTorch, interleaved."
    ),
    differences=(
        "The paper's models have up to 2.7 billion parameters, its recall task up to 256 pairs, its states up to 256 "
        "rows, and its speed is that of Triton kernels against Mamba's scan, 2 to 8 times."
    ),
    checks=(
        Check("recall_gain_of_size", ">", 0.0, "the largest state recalls more than the smallest"),
        Check("text_loss_ratio", "<=", 1.02, "Mamba-2 learns text as well as softmax"),
        Check("chunk_speed_up", ">=", 2.0, "chunks are faster than a scan token by token"),
        Check("forms_difference", "<=", 1e-5, "attention masked by decays is the same function", over="every"),
    ),
    also={
        "smallest_state_recall": "share that states of 8 x 8 recall",
        "largest_state_recall": "share that states of 32 x 32 recall",
        "softmax_text_loss": "validation loss of softmax, nats a byte",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 300, "batch_size": 16},
        "recall": {"pairs": 8, "length": 64, "steps": 400, "batch_size": 64},
        "time": {"head_dim": 64, "heads": 4, "lengths": [2048, 16384], "rounds": 5, "seconds": 0.05},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "recall": {"pairs": 2, "length": 16, "steps": 4, "batch_size": 2},
        "time": {"head_dim": 8, "heads": 1, "lengths": [16, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=3,
)
