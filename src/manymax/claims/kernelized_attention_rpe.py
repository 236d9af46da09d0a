"""Luo et al., 2021: kernelized attention with relative positions by FFT."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="kernelized-attention-rpe",
    source=Source(
        "Luo et al.",
        2021,
        "Stable, Fast and Accurate: Kernelized Attention with Relative Positional Encoding",
        "2106.12566",
    ),
    statement=(
        "A learnt weight of each distance fits into attention with random features exactly, in n log n, since it is a "
        "Toeplitz matrix that a fast Fourier transform multiplies. With queries and keys of length 1 training from "
        "scratch is stable, and the result better than random features without distances."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 96 bytes, 100 steps, at three "
        "learning rates: random features with neither length 1 nor distances, but rotary positions (PRF), the same "
        "with both (NPRF with RPE), and softmax with rotary positions; same start, same batches. Perplexities are of "
        "the best rate; a run diverged if its loss is above that of even odds, ln 256, or not a number. FFT: 1024 "
        "standard normal tokens of width 32, weights of distances exp of normal numbers, float32 against all pairs in "
        "float64, all seeing all and causal, the larger of both. Operations: those that PyTorch runs, n = 512 to 8192, "
        "2.5 n log2 n for a real transform; all seeing all."
    ),
    differences=(
        "The paper trains translation, language and vision models with thousands of steps, and its positions without "
        "RPE are absolute. Our causal form halves the tokens again and again, so that no rounding reaches an earlier "
        "token, in n log² n; its slope is reported beside."
    ),
    checks=(
        Check("transform_error", "<=", 1e-4, "the transform is exact but for rounding", over="every"),
        Check("operations_slope", "<=", 1.15, "operations grow about linearly with the tokens", over="every"),
        Check("perplexity_ratio", "<", 1.0, "NPRF with RPE learns text better than PRF"),
        Check("more_diverged", "<=", 0, "it diverges at no more learning rates"),
    ),
    also={
        "prf_diverged": "learning rates at which PRF diverged",
        "softmax_perplexity_ratio": "perplexity over that of softmax",
        "causal_operations_slope": "the slope of operations of the causal form",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "length": 96,
        "rates": [1e-3, 1e-2, 1e-1],
        "warmup": 10,
        "steps": 100,
        "batch_size": 8,
        "forms": {"tokens": 1024, "width": 32},
        "operations": {"width": 8, "lengths": [512, 1024, 2048, 4096, 8192]},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "length": 12,
        "rates": [1e-3],
        "warmup": 2,
        "steps": 4,
        "batch_size": 2,
        "forms": {"tokens": 70, "width": 4},
        "operations": {"width": 2, "lengths": [32, 64, 128]},
    },
    seeds=(0, 1, 2),
    minutes=2,
)
