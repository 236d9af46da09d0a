"""Dukhan and Ablavatski, 2020: softmax in two passes over memory in the place of three."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="two-pass-softmax",
    source=Source("Dukhan and Ablavatski", 2020, "The Two-Pass Softmax Algorithm", "2001.04438"),
    statement=(
        "Exponentials kept as pairs of a mantissa and an exponent cannot overflow, so that softmax needs no pass for "
        "the maximum: two passes over memory in the place of three. On inputs that no cache holds this is up to 28 % "
        "faster with AVX-512, 18 % with AVX2, than the better of two three-pass forms."
    ),
    setting=(
        "Rows of 2^10 to 2^27 float32 scores, even between -1000 and 1000, with the output in memory that was used "
        "before. Three kernels of one C++ file, with the same exponential (polynomial of degree 5), steps, flags and "
        "threads: two passes; three passes that compute exponentials twice; three passes that store and scale them. "
        "The three take turns, the best of several rounds counts; processor time on one thread, as in the paper. The "
        "metric is the smallest ratio over the lengths whose input alone is more than 4 times the last-level cache. "
        "Errors are against float64 on rows of up to 65539 scores: all 1e4, all -1e4, both, one high, rising, even, "
        "near 1e4, normal."
    ),
    differences=(
        "The paper measures Skylake-X, Broadwell and Zen 2 with hand-written intrinsics and tuned unrolling of each "
        "pass; here all passes advance by 8 vectors (4 without AVX-512)."
    ),
    checks=(
        Check("ratio_out_of_cache", ">", 1.0, "the better three-pass kernel takes longer than two passes"),
        Check("largest_error", "<", 1e-6, "two passes are right for scores of up to 1e4", over="every"),
        Check("not_finite", "<=", 0, "no result of the three is infinite or NaN", over="every"),
    ),
    also={
        "ratio_in_cache": "the same ratio, median over inputs of up to a 16th of the last-level cache",
        "ratio_all_threads": "the smallest ratio out of cache on all threads, by the wall clock",
        "time_noise": "time of two passes over that of two passes again, out of cache",
        "gigabytes_per_second": "bytes of input and output over the time of two passes at the largest length, in 1e9",
        "three_pass_error": "largest error of the three-pass kernels",
    },
    numbers={
        "smallest": 10,
        "largest": 27,
        "spread": 1000.0,
        "rounds": 15,
        "seconds": 0.01,
        "last_level_cache": 0,  # what the machine says
    },
    tiny={"smallest": 8, "largest": 15, "rounds": 2, "seconds": 0.0001, "last_level_cache": 16384},
    seeds=(0, 1, 2),
    minutes=2,
)
