"""Qin et al., 2024: TransNormerLLM's successor, whose speed in training does not depend on the length."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="lightning-attention",
    source=Source(
        "Qin et al.",
        2024,
        "Various Lengths, Constant Speed: Efficient Language Modeling with Lightning Attention",
        "2405.17381",
    ),
    statement=(
        "Linear attention with decay by tiles trains at the same tokens a second whatever the length under fixed "
        "memory, and a language model built on it (TNL) is on par with softmax transformers."
    ),
    setting=(
        "Speed: forward of one head of 64 in float32, 1024 and 16384 tokens, processor time of one thread, best of "
        "interleaved rounds, tiles against causal softmax by `mm.attention`. Exactness: chunked, recurrent and "
        "quadratic form, 512 tokens, 2 heads, float32 against float64, outputs and all gradients. Memory: bytes that "
        "automatic differentiation keeps a token. Learning: a byte-level GPT of 2 blocks, width 64, 2 heads, on "
        "Python's documentation, `lightning-attention` with each layer's slopes against softmax, same start and same "
        "batches."
    ),
    differences=(
        "The paper trains models of 44 million to 15 billion parameters on up to 300 billion tokens; here both models "
        "have the library's blocks (RMSNorm, SwiGLU, rotary positions in every layer), where the paper's have "
        "SimpleRMSNorm, an MLP without activation and LRPE in the first layer alone. The gate adds a few parameters."
    ),
    checks=(
        Check("speed_ratio", ">=", 0.8, "tiles handle as many tokens a second at 16384 as at 1024"),
        Check("softmax_speed_ratio", "<=", 0.3, "softmax handles fewer"),
        Check("error", "<=", 1e-4, "chunked, recurrent and masked form agree, gradients included", over="every"),
        Check("loss_ratio", "<=", 1.03, "the language model learns as well as with softmax"),
        Check("memory_per_token_change", "<=", 0.05, "memory a token does not depend on the length", over="every"),
    ),
    also={"softmax_loss": "validation loss of softmax, nats a byte"},
    numbers={
        "depth": 2,
        "width": 64,
        "heads": 2,
        "length": 128,
        "steps": 600,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup": 30,
        "error_length": 512,
        "short": 1024,
        "long": 16384,
        "head_width": 64,
        "rounds": 3,
        "seconds": 0.2,
    },
    tiny={
        "depth": 1,
        "width": 32,
        "heads": 1,
        "length": 16,
        "steps": 3,
        "batch_size": 2,
        "warmup": 1,
        "error_length": 32,
        "short": 64,
        "long": 128,
        "head_width": 8,
        "rounds": 1,
        "seconds": 0.001,
    },
    seeds=(0, 1, 2),
    minutes=1,
)
