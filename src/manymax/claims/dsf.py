"""Sieber et al., 2024: attention, state spaces and gated networks as one linear system that varies in time."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="dsf",
    source=Source(
        "Sieber et al.",
        2024,
        "Understanding the differences in Foundation Models: Attention, State Space Models, and Recurrent Neural "
        "Networks",
        "2405.15731",
    ),
    statement=(
        "Attention, selective state spaces and gated recurrent networks are one linear system that varies in time, and "
        "differ in few choices. Linear attention approaches softmax in recall as its state grows, and a normaliser "
        "that is a learnt function of the input improves it."
    ),
    setting=(
        "Exactness: the scan of the system against its lower triangular matrix, and both against the mechanism, "
        "float32, 64 tokens, for `linear`, `retention`, `gated-linear`, `mamba2`, `gated-delta`, `dsf`, a selective "
        "state space, a gated network and Taylor order 2 of softmax. Recall: a GPT of one block, width 64, one head, "
        "on 4 pairs in 64 tokens; queries and keys are mapped to n = 16, 32, 64 and 128 numbers and pass a convolution "
        "over 4 tokens, for softmax (n = 64), linear attention (elu + 1), normalised attention (`dsf`, exp) and "
        "`mamba2`."
    ),
    differences=(
        "The paper trains two layers of width 64 to 512 on sequences up to 512 with up to 64 pairs, and language "
        "models of 70 million parameters. It has no convolution in attention; one block would not recall without."
    ),
    checks=(
        Check("form_error", "<", 1e-5, "scan and matrix form agree", over="every"),
        Check("smallest_step", ">=", 0.0, "linear attention recalls no less with a larger state"),
        Check("gap_left", "<=", 0.0, "its gap to softmax at n = 128 is at most half of that at n = 16"),
        Check("normalised_gain", ">=", 0.0, "normalised attention recalls as much at every n"),
    ),
    also={
        "softmax_recall": "share of values recalled, softmax",
        "linear_recall_small": "share of values recalled, linear attention, smallest n",
        "linear_recall_large": "share of values recalled, linear attention, largest n",
        "normalised_recall_small": "share of values recalled, normalised attention, smallest n",
        "mamba2_recall_small": "share of values recalled, Mamba-2, smallest n",
        "mechanism_error": "largest relative error of the system against the mechanism it was read from",
    },
    numbers={
        "depth": 1,
        "width": 64,
        "heads": 1,
        "states": [16, 32, 64, 128],
        "pairs": 4,
        "length": 64,
        "steps": 250,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "warmup": 25,
        "error_length": 64,
    },
    tiny={
        "width": 16,
        "states": [4, 8],
        "pairs": 2,
        "length": 8,
        "steps": 2,
        "batch_size": 2,
        "warmup": 1,
        "error_length": 8,
    },
    seeds=(0, 1, 2),
    minutes=4,
)
