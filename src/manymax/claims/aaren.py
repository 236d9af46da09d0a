"""Feng et al., 2024: attention with a learnt query is an RNN, as good as a transformer and of constant memory."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="aaren",
    source=Source("Feng et al.", 2024, "Attention as an RNN", "2405.13956"),
    statement=(
        "Softmax attention from a fixed query is a recurrence of constant memory, and computed in parallel as a prefix "
        "scan. Networks of it (Aaren) are comparable to transformers in reinforcement learning, events, forecasting "
        "and classification, while their memory in inference does not grow."
    ),
    setting=(
        "Exactness: the three forms of the scan against softmax with the query repeated, float32 against float64, 300 "
        "tokens. Learning: 2 causal blocks, width 64, 2 heads, tokens and learnt positions, `aaren` against `softmax` "
        "with equal parameters. Forecasting: sums of two random sines and autoregressive noise, 96 steps, values in 64 "
        "levels, loss of the next level. Digits: scikit-learn's images as 64 tokens of 17 levels, the class asked at "
        "the last. The metrics are ratios of validation losses. Memory: bytes of the state after 4096 tokens over "
        "those after 16."
    ),
    differences=(
        "The paper compares on 38 data sets of four kinds and reports each one's own measure; here two kinds that "
        "every machine has, and losses. Its Aaren stacks pass the learnt query on from layer to layer; here each layer "
        "has its own. The projection of tokens' queries, which Aaren does not read, is kept, so that parameters are "
        "equal."
    ),
    checks=(
        Check("scan_error", "<=", 1e-5, "the scan gives what softmax gives", over="every"),
        Check("forecast_loss_ratio", "<=", 1.05, "it forecasts as well as a transformer"),
        Check("digits_loss_ratio", "<=", 1.05, "it classifies as well as a transformer"),
        Check("state_growth", "<=", 1.0, "its state does not grow", over="every"),
        Check("cache_growth", ">=", 256.0, "a cache of keys and values does", over="every"),
    ),
    also={
        "transformer_forecast_loss": "loss of the transformer, forecasting, nats",
        "transformer_digits_loss": "loss of the transformer, digits, nats",
        "aaren_digits_accuracy": "share of digits that Aaren gets right",
        "transformer_digits_accuracy": "share of digits that the transformer gets right",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "heads": 2,
        "steps": 400,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "warmup": 30,
        "length": 96,
        "tested": 256,
        "error_length": 300,
    },
    tiny={
        "depth": 1,
        "width": 16,
        "heads": 1,
        "steps": 3,
        "batch_size": 4,
        "warmup": 1,
        "length": 12,
        "tested": 8,
        "error_length": 20,
    },
    seeds=(0, 1, 2),
    minutes=4,
)
