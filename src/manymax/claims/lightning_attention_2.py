"""Qin et al., 2024: linear attention with decay by chunks, at constant speed whatever the length."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="lightning-attention-2",
    source=Source(
        "Qin et al.",
        2024,
        "Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large Language Models",
        "2401.04658",
    ),
    statement=(
        "Pairs within chunks and a state across chunks compute causal linear attention with decay exactly, forward and "
        "backward, in time and memory linear in the length: the first form whose speed does not depend on it, while "
        "the quadratic form slows down and cumulative sums need memory for a state a token."
    ),
    setting=(
        "`mm.linear_attention` with the slopes of `lightning-attention-2`, 2 heads of 64, standard normal queries, "
        "keys and values over 8. Errors: chunked against quadratic form in float32, outputs and all gradients, 1024 "
        "tokens, largest difference over the largest number. Times: forward and backward, one head, processor time of "
        "one thread, best of interleaved rounds. Memory: bytes that automatic differentiation keeps of one forward "
        "pass, chunked form over cumulative sums (a state a token), 4096 tokens."
    ),
    differences=(
        "The paper times Triton kernels on A100 within models of 0.4 to 3 billion parameters, up to 92k tokens; here a "
        "CPU runs the library's own forms, and memory is counted from what is kept for the backward pass, not measured "
        "at its peak."
    ),
    checks=(
        Check("error", "<=", 1e-5, "chunks give what all pairs give, gradients included", over="every"),
        Check("time_per_token_ratio", "<=", 1.2, "a token at 16384 takes no longer than at 2048"),
        Check("quadratic_time_ratio", ">=", 5, "all pairs take longer than chunks at 8192 tokens"),
        Check("memory_ratio", "<=", 0.2, "chunks keep less than cumulative sums", over="every"),
    ),
    also={
        "cumulative_time_ratio": "time of cumulative sums over that of chunks, 4096 tokens",
        "cumulative_error": "error of cumulative sums against the quadratic form, 1024 tokens",
    },
    numbers={
        "heads": 2,
        "width": 64,
        "error_length": 1024,
        "short": 2048,
        "long": 16384,
        "quadratic": 8192,
        "memory_length": 4096,
        "rounds": 5,
        "seconds": 0.2,
    },
    tiny={
        "width": 8,
        "error_length": 64,
        "short": 16,
        "long": 64,
        "quadratic": 64,
        "memory_length": 128,
        "rounds": 1,
        "seconds": 0.001,
    },
    seeds=(0, 1, 2),
    minutes=1,
)
