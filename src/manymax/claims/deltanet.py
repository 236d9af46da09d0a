"""Yang et al., 2024: the delta rule by chunks."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="deltanet",
    source=Source(
        "Yang et al.", 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", "2406.06484"
    ),
    statement=(
        "The delta rule can be computed by chunks, much faster than token by token; it solves associative recall, on "
        "which linear attention that only adds falls behind, and models language better than gated linear attention."
    ),
    setting=(
        "The same GPT on associative recall, 8 pairs in 64 tokens, each asked once, 400 steps of 64, where the same is "
        "a byte-level GPT of 2 blocks and width 64: softmax, linear (elu + 1), gated linear and delta. A byte-level "
        "GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, 300 steps of 16: gated linear "
        "against delta. Time: the delta rule forwards over 2048 tokens, token by token in plain PyTorch over chunks in "
        "plain PyTorch, interleaved."
    ),
    differences=(
        "The paper's recall task has up to 512 tokens and 64 pairs and its models up to 1.3 billion parameters; its "
        "speed is that of Triton kernels, up to 30 times the token by token kernel's."
    ),
    checks=(
        Check("delta_recall", ">=", 0.95, "the delta rule solves recall"),
        Check("linear_recall", "<=", 0.5, "linear attention that only adds does not"),
        Check("softmax_recall", ">=", 0.95, "softmax solves recall"),
        Check("ratio_to_gated_linear", "<", 1.0, "the delta rule learns text better than gated linear attention"),
        Check("chunk_speed_up", ">=", 5.0, "chunks are much faster than going token by token"),
    ),
    also={
        "gated_linear_recall": "share that gated linear attention recalls",
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
