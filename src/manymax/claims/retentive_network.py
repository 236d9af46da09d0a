"""Sun et al., 2023: retention, three forms of one rule."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="retentive-network",
    source=Source(
        "Sun et al.", 2023, "Retentive Network: A Successor to Transformer for Large Language Models", "2307.08621"
    ),
    statement=(
        "Retention has a parallel, a chunkwise and a recurrent form that agree, takes constant time a token in "
        "generation, and models language as well as softmax attention."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, 300 steps of 16: "
        "softmax against retention, both with rotary positions. Forms: float32, 300 tokens, the largest difference "
        "between outputs over their largest. Time: one generated token after 2048 and after 16384 tokens, interleaved."
    ),
    differences=(
        "The paper trains models of 1.3 to 6.7 billion parameters, and finds retention ahead from 2 billion on; here "
        "the model has 0.1 million."
    ),
    checks=(
        Check(
            "forms_difference", "<=", 1e-5, "parallel, chunkwise and recurrent form give the same outputs", over="every"
        ),
        Check("step_growth", "<=", 1.2, "a generated token takes as long after many tokens as after few"),
        Check("state_growth", "<=", 1.0, "the state does not grow", over="every"),
        Check("text_loss_ratio", "<=", 1.02, "retention learns text as well as softmax"),
    ),
    also={
        "softmax_text_loss": "validation loss of softmax, nats a byte",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 300, "batch_size": 16},
        "time": {"head_dim": 64, "heads": 4, "lengths": [2048, 16384], "rounds": 5, "seconds": 0.05},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "time": {"head_dim": 8, "heads": 1, "lengths": [16, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=1,
)
