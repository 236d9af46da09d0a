"""Wang et al., 2025: attention as regression at test time, and what linear attention leaves out."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="test-time-regression",
    source=Source(
        "Wang et al.",
        2025,
        "Test-time regression: a unifying framework for designing sequence models with associative memory",
        "2501.12352",
    ),
    statement=(
        "Sequence layers are regressions of values on keys, solved more or less well. Linear attention fails because "
        "it ignores how keys correlate; exact least squares does not. Softmax attention is a local constant fit, which "
        "explains why queries and keys should be normalised, and a local linear fit generalises it."
    ),
    setting=(
        "Covariance: values are a linear map of 512 keys in 16 dimensions, noise 0.1, keys' covariance of condition "
        "number 100 and, apart, 16 orthonormal keys; error of the map at fresh queries, linear attention scaled by the "
        "inverse of the keys' mean variance. Recall: a GPT of one block, width 64, 2 heads, task `recall`, exact "
        "regression and linear attention, both with keys from a convolution over 3 tokens. Local fits: a smooth "
        "function of two dimensions on 200 points in a square, at its edges, weights of softmax over keys on a sphere, "
        "local linear against local constant, scale and ridge of each the best of a grid on other points. "
        "Normalisation: values depend on the keys' direction alone, the keys' lengths are log-normal, sigma 1; softmax "
        "attention with and without keys and queries of length 1, scale the best of a grid on other points."
    ),
    differences=(
        "The paper trains the exact layer and its baselines on recall of longer sequences with more keys; its higher "
        "orders are derived and shown on a toy, as here. Bandwidths are chosen, not learnt."
    ),
    checks=(
        Check("correlated_error_ratio", ">=", 10, "linear attention errs far more where keys correlate"),
        Check("orthonormal_error_change", "<=", 0.1, "but not where keys are orthonormal", over="every"),
        Check("solve_error", "<=", 1e-5, "recurrences give what direct solves give", over="every"),
        Check("recall", ">=", 0.99, "one layer of exact regression recalls"),
        Check("recall_gain", ">", 0.0, "and recalls more than linear attention"),
        Check("local_error_ratio", "<", 1.0, "a local line errs less than a local constant at the edge"),
        Check("norm_error_ratio", "<", 1.0, "keys of length 1 err less than keys of many lengths"),
    ),
    also={"linear_recall": "share of values that linear attention recalls"},
    numbers={
        "dims": 16,
        "keys": 512,
        "condition": 100.0,
        "noise": 0.1,
        "points": 200,
        "repeats": 20,
        "depth": 1,
        "width": 64,
        "heads": 2,
        "steps": 400,
        "batch_size": 64,
        "learning_rate": 1e-2,
        "warmup": 20,
    },
    tiny={
        "dims": 4,
        "keys": 32,
        "points": 30,
        "repeats": 2,
        "width": 16,
        "heads": 1,
        "steps": 2,
        "batch_size": 4,
        "warmup": 1,
    },
    seeds=(0, 1, 2),
    minutes=5,
)
