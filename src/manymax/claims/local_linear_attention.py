"""Zuo et al., 2025: a linear fit around each query, between linear and softmax attention and better than both."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="local-linear-attention",
    source=Source(
        "Zuo et al.",
        2025,
        "Local Linear Attention: An Optimal Interpolation of Linear and Softmax Attention For Test-Time Regression",
        "2510.01450",
    ),
    statement=(
        "A local linear fit has less bias than softmax attention's local constant and, unlike linear attention's "
        "global map, adapts to what changes: it beats both in regression at test time and in context, and contains "
        "both as limits."
    ),
    setting=(
        "Streams of 512 pairs in 16 dimensions, in 8 segments with a centre and a linear map of their own, keys normal "
        "around the centre and then of length 4, noise 0.1; each value is predicted at its key from the pairs before, "
        "mean squared error from the 65th pair on. Softmax attention, local linear attention with the same weights, "
        "linear attention, and exact ridge regression on all pairs; the scale of scores, the ridge and the scale of "
        "linear attention are the best of a grid on other streams. `linear` is the better of the two linear ones. "
        "Limits: ridge 1e6 against softmax, bandwidth 1e6 against ridge regression with an intercept, conjugate "
        "gradients against a direct solve, all in float32, 256 tokens, queries and keys of 16 dimensions and a length "
        "of about 1."
    ),
    differences=(
        "The paper also trains layers on in-context regression and language; here, beside the checks, one GPT of 2 "
        "blocks with each of softmax and local linear attention learns `recall`, for a few hundred steps."
    ),
    checks=(
        Check("softmax_error_ratio", "<=", 0.8, "its error is smaller than that of the local constant"),
        Check("linear_error_ratio", "<=", 0.8, "its error is smaller than that of the better global map"),
        Check("ridge_limit_error", "<=", 1e-4, "a large ridge gives softmax attention", over="every"),
        Check("bandwidth_limit_error", "<=", 1e-4, "a large bandwidth gives ridge regression", over="every"),
        Check("solver_error", "<=", 1e-4, "conjugate gradients give what a direct solve gives", over="every"),
    ),
    also={
        "local_linear_error": "mean squared error of local linear attention, noise included",
        "long_keys_solver_error": "the solver's error with queries and keys of length about 4 instead of 1",
        "softmax_recall": "share of values recalled with softmax",
        "local_linear_recall": "share of values recalled with local linear attention",
    },
    numbers={
        "dims": 16,
        "segments": 8,
        "segment": 64,
        "streams": 4,
        "noise": 0.1,
        "error_length": 256,
        "recall": {
            "depth": 2,
            "width": 64,
            "heads": 2,
            "steps": 300,
            "batch_size": 32,
            "learning_rate": 3e-3,
            "warmup": 20,
        },
    },
    tiny={
        "dims": 4,
        "segments": 3,
        "segment": 32,
        "streams": 1,
        "error_length": 32,
        "recall": {
            "depth": 1,
            "width": 16,
            "heads": 1,
            "steps": 2,
            "batch_size": 2,
            "learning_rate": 3e-3,
            "warmup": 1,
        },
    },
    seeds=(0, 1, 2),
    minutes=4,
)
