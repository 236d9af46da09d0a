"""Zimerman et al., 2024: language models whose attention, and then all of whose arithmetic, is a polynomial."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="power-softmax",
    source=Source(
        "Zimerman et al.", 2024, "Power-Softmax: Towards Secure LLM Inference over Encrypted Data", "2410.09457"
    ),
    statement=(
        "Language models learn as well with an even power in the place of softmax's exponential, and the trained "
        "model can be made a polynomial, additions and multiplications alone, at nearly the same perplexity, which "
        "is what inference over encrypted data needs. Dividing by a mean instead of a sum keeps the range on which "
        "the reciprocal has to be approximated from growing with the length of the text."
    ),
    setting=(
        "A byte-level GPT of 4 blocks, width 64, on Python's documentation, contexts of 128 bytes; softmax against "
        "length-agnostic power-softmax with p = 2, 4 and 6 and eps = 0.01, same start and same batches. The polynomial "
        "is the p = 4 model in float64 with reciprocals by Goldschmidt, inverse square roots by Newton and SiLU by "
        "Chebyshev polynomials, each to 1e-4 on four times the range that 8 training texts show; its perplexity and "
        "the p = 4 model's are taken on the same validation bytes, and its operations are counted in the traced graph. "
        "The range of the denominator is the largest over the smallest median over texts and heads of the last row's "
        "denominator, for 64, 128, 256, 512 and 1024 bytes; the metric is the mean form's range over the sum form's."
    ),
    differences=(
        "The paper trains 32 layers and more than a billion parameters, and adds a loss that narrows ranges; its exact "
        "p and eps are not stated in what was at hand. Perplexity here is per byte. Nothing is encrypted: what is "
        "checked is that the arithmetic would allow it."
    ),
    checks=(
        Check("p2_perplexity_ratio", "<=", 1.05, "p = 2 learns as well as softmax"),
        Check("p4_perplexity_ratio", "<=", 1.05, "p = 4 learns as well as softmax"),
        Check("p6_perplexity_ratio", "<=", 1.05, "p = 6 learns as well as softmax"),
        Check("polynomial_perplexity_ratio", "<=", 1.02, "the polynomial is as good as the model that it stands for"),
        Check("denominator_range_ratio", "<=", 0.2, "dividing by the mean keeps the reciprocal's range short"),
        Check(
            "other_operations", "<=", 0, "only sums, products and moves touch what depends on the text", over="every"
        ),
    ),
    also={
        "softmax_perplexity": "perplexity per byte of the softmax model",
        "reciprocal_factors": "most factors that a reciprocal takes; each doubles the accuracy's digits",
        "silu_degree": "highest degree of a SiLU",
    },
    numbers={
        "depth": 4,
        "width": 64,
        "length": 128,
        "steps": 300,
        "batch_size": 12,
        "learning_rate": 3e-3,
        "warmup": 15,
        "eps": 0.01,
        "lengths": [64, 128, 256, 512, 1024],
        "tolerance": 1e-4,
        "margin": 4.0,
        "validation_texts": 64,
    },
    tiny={
        "depth": 1,
        "width": 32,
        "length": 16,
        "steps": 4,
        "batch_size": 2,
        "warmup": 2,
        "lengths": [8, 16],
        "validation_texts": 2,
    },
    seeds=(0, 1, 2),
    minutes=6,
)
