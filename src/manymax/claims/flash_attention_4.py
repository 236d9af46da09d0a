"""Zadouri et al., 2026: polynomial exponentials and rescaling only where the maximum has grown much."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="flash-attention-4",
    source=Source(
        "Zadouri et al.",
        2026,
        "FlashAttention-4: Algorithm and Kernel Pipelining Co-Design for Asymmetric Hardware Scaling",
        "2603.05451",
    ),
    statement=(
        "In attention by tiles, 2^x by a polynomial of degree 3 or 5 with the integer part added to the exponent is as "
        "good as the hardware's, and rows need to be rescaled only where their largest score has passed the reference "
        "by more than log2(256) = 8 powers of two: the result is the same, since the final division uses the same "
        "reference, and most rescalings are saved. On a B200 the kernel is up to 1.3 times as fast as cuDNN's."
    ),
    setting=(
        "This library's C++ attention in tiles of 96 queries by 128 keys (float32) or 256 (bfloat16), with and without "
        "the two tricks; all exponentials by the polynomial, degree 5 in float32 and 3 in bfloat16. Counts and errors: "
        "standard normal inputs, 4096 tokens, head width 64, every token sees all; and queries, keys and values of a "
        "byte-level GPT trained on Python's documentation (2 blocks, width 64, contexts of 512), at 2048 tokens of "
        "held-out text, causal. A plain rescaling is a tile that raises a row's largest score, the row's first tile "
        "left out. Output errors are the largest against float64, over those of the same kernel without tricks. Times: "
        "the random inputs, one thread, processor time, kernels in turn, the best of several rounds; the larger ratio "
        "of the two dtypes. Errors of the exponential: the polynomial's own on [0, 1), in float64."
    ),
    differences=(
        "Nothing of the paper's pipelining (tensor memory, pairs of thread blocks) exists on a CPU; the tricks' cost "
        "and counts carry over, the speed-up does not. The plain kernel here is not slower for exponentials, which "
        "are polynomials too, and rescales at no cost in the product's last step. Computed in float32 the polynomial "
        "of degree 5 has rounding added to its own error of 8.5e-8; that error is reported beside."
    ),
    checks=(
        Check("rescale_ratio_random", "<", 0.2, "few plain rescalings are left on random inputs", over="every"),
        Check("rescale_ratio_trained", "<", 0.2, "few plain rescalings are left on trained inputs", over="every"),
        Check("output_error_ratio", "<=", 2.0, "in bfloat16 the error is at most twice the plain one", over="every"),
        Check("exp_error_degree_3", "<=", 1e-4, "the polynomial of degree 3 is that good", over="every"),
        Check("exp_error_degree_5", "<=", 1e-7, "the polynomial of degree 5 is that good", over="every"),
        Check("time_ratio", "<=", 1.05, "the tricks cost no more than 5 % of the time at 4096 tokens"),
    ),
    also={
        "exp_error_degree_3_float32": "relative error of 2^x on [-126, 8] as the kernel computes it, degree 3",
        "exp_error_degree_5_float32": "the same, degree 5",
        "rises_per_row_random": "plain rescalings a row, random inputs",
        "rises_per_row_trained": "plain rescalings a row, trained inputs",
        "output_error_ratio_float32": "the largest error in float32 over the plain kernel's",
        "time_ratio_bfloat16": "time with the tricks over that without, bfloat16",
        "time_ratio_float32": "the same, float32",
        "time_ratio_quarter_bfloat16": "the same with a quarter of the exponentials by the polynomial, bfloat16",
        "time_ratio_quarter_float32": "the same, float32",
        "time_noise_bfloat16": "time without the tricks over itself, in the same rounds, bfloat16",
        "time_noise_float32": "the same, float32",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "length": 512,
        "steps": 200,
        "batch_size": 4,
        "learning_rate": 6e-3,
        "warmup": 20,
        "trained_length": 2048,
        "texts": 2,
        "random_length": 4096,
        "heads": 2,
        "head_dim": 64,
        "rounds": 25,
        "seconds": 0.05,
    },
    tiny={
        "depth": 1,
        "width": 32,
        "length": 16,
        "steps": 4,
        "batch_size": 2,
        "warmup": 2,
        "trained_length": 600,
        "texts": 1,
        "random_length": 600,
        "heads": 1,
        "head_dim": 8,
        "rounds": 1,
        "seconds": 0.0001,
    },
    seeds=(0, 1, 2),
    minutes=2,
)
