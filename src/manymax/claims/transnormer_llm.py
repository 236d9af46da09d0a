"""Qin et al., 2023: a linear-attention language model that beats softmax, and inference that does not overflow."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="transnormer-llm",
    source=Source("Qin et al.", 2023, "Scaling TransNormer to 175 Billion Parameters", "2307.14995"),
    statement=(
        "A language model of linear attention with decay, learnt rotations in the first layer and a gate is as good as "
        "softmax models or better, and decodes at constant time a token. Its inference is robust: the state is "
        "multiplied by the decay, where the direct form with powers of the decay at absolute positions overflows."
    ),
    setting=(
        "Learning: two byte-level language models of 2 blocks, width 64, 2 heads, on Python's documentation, 600 steps "
        "of 8 contexts of 128 bytes, same batches; perplexity a byte. One is TransNormerLLM (SimpleRMSNorm, gated "
        "linear attention with each layer's decay and rotations in the first, SGLU), the other a transformer (RMSNorm, "
        "softmax with rotary positions, SwiGLU); hidden widths of 139 and 160 make the parameters equal but for 0.1%. "
        "The decay is the paper's formula; with two heads a state keeps e^-2 or less of itself. "
        "Exactness: the mechanism's recurrent form against its quadratic form, float32, 1024 tokens. Overflow: numbers "
        "that are not finite in what key · decay^(-t) holds for 4096 tokens, float32. Decoding: processor time of one "
        "`step` of one thread, batch 1, after 16 and after 4096 tokens, interleaved."
    ),
    differences=(
        "The paper trains 385 million to 7 billion parameters on a corpus of its own, and runs up to 175 billion. "
        "Here what writes to the residual stream starts at zero in both models, as in this library's GPT. Speed and "
        "memory against other kernels are not measured: the paper's are those of CUDA."
    ),
    checks=(
        Check("perplexity_ratio", "<=", 1.03, "it learns text as well as softmax"),
        Check("error", "<=", 1e-5, "token by token it gives what all pairs give", over="every"),
        Check("overflowed", ">", 0, "powers of the decay at absolute positions overflow", over="every"),
        Check("decode_time_ratio", "<=", 1.1, "a token takes no longer after 4096 than after 16"),
    ),
    also={
        "softmax_perplexity": "perplexity of softmax, a byte",
        "released_perplexity_ratio": "perplexity over that of softmax with the decay of the released code",
        "parameter_ratio": "parameters over those of softmax",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "heads": 2,
        "hidden": 160,
        "length": 128,
        "steps": 600,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup": 30,
        "error_length": 1024,
        "overflow_length": 4096,
        "short": 16,
        "long": 4096,
        "head_width": 64,
        "rounds": 20,
        "seconds": 0.02,
    },
    tiny={
        "depth": 1,
        "width": 32,
        "heads": 1,
        "hidden": 32,
        "length": 16,
        "steps": 3,
        "batch_size": 2,
        "warmup": 1,
        "error_length": 32,
        "overflow_length": 1024,
        "short": 2,
        "long": 8,
        "head_width": 8,
        "rounds": 2,
        "seconds": 0.001,
    },
    seeds=(0, 1, 2),
    minutes=2,
)
