"""Mongaras and Larson, 2025: softmax attention as a sum of recurrent networks, and what its denominator does."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="softmax-rnn",
    source=Source(
        "Mongaras and Larson",
        2025,
        "On the Expressiveness of Softmax Attention: A Recurrent Neural Network Perspective",
        "2507.23632",
    ),
    statement=(
        "The numerator of softmax is a sum of linear recurrences, one for each Taylor order; linear attention is the "
        "first. The denominator acts as a gate or norm, and a norm of the output in its place learns as well as "
        "softmax. More Taylor orders come closer to softmax."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, 2 heads, rotary positions, on Python's documentation, 150 steps of 8 "
        "contexts of 128 bytes, same start and same batches: softmax; exp over the number of keys and then RMSNorm "
        "(div S, norm), or a gate; Taylor orders 1 to 8 with that same norm; exp with neither norm nor denominator; "
        "and linear attention with elu + 1. Scores of exp without its sum are at most 5, as in the released code."
    ),
    differences=(
        "The paper trains Llama models of 300 million parameters and more for 100,000 steps and longer, with Taylor "
        "sums that are not divided at all; here they have the norm in the place of the denominator, whose limit is div "
        "S with norm, so that all orders are stable. Models are tiny and training is short."
    ),
    checks=(
        Check("divs_norm_loss_ratio", "<=", 1.01, "a norm in the place of the denominator learns as well as softmax"),
        Check("largest_rise", "<=", 1.0, "no Taylor order learns worse than a lower one"),
        Check("order_six_off", "<=", 0.01, "orders 6 and 8 are within 1 % of softmax"),
        Check("order_one_gap_ratio", ">", 3.0, "the gap of order 1 is more than three times that of order 6"),
        Check("plain_loss_ratio", ">", 1.0, "without norm and denominator it learns worse than both"),
    ),
    also={
        "softmax_loss": "validation loss of softmax, nats a byte",
        "order_one_loss_ratio": "loss of order 1 over that of softmax",
        "divs_gate_loss_ratio": "loss with a gate over that of softmax",
        "linear_loss_ratio": "loss of linear attention, elu + 1, over that of softmax",
        "recurrence_error": "largest difference of order 2 as a recurrence and over pairs at a random start, float32",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "heads": 2,
        "length": 128,
        "steps": 150,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "warmup": 20,
        "orders": [1, 2, 4, 6, 8],
    },
    tiny={"depth": 1, "width": 16, "heads": 2, "length": 8, "steps": 2, "batch_size": 2, "warmup": 1},
    seeds=(0, 1, 2),
    minutes=4,
)
