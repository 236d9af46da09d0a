"""Richter and Wattenhofer, 2020: attention weights that are normalised but not probabilities."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="normalized-attention-pooling",
    source=Source("Richter and Wattenhofer", 2020, "Normalized Attention Without Probability Cage", "2005.09561"),
    statement=(
        "Softmax keeps attention's output inside the convex hull of the values, and at the start nearly at their mean, "
        "so that attention contributes less the longer the sequence. Weights with mean and spread normalised leave the "
        "hull, contribute alike at every length, and train well over a far wider range of learning rates and sizes."
    ),
    setting=(
        "The authors' task of cases: 64 tokens of 100; if token 64 is there, point to the least token, else if token "
        "50 is there, to the first place, else to the largest. Two blocks; learning rates 0.3^1, 0.3^3, 0.3^5 and "
        "0.3^7 by width and heads (16, 1), (16, 4) and (32, 4), 600 steps of 16 sequences, Adam, falling linearly; "
        "BERT's block with softmax, its warm-up over a tenth of the steps and its clipping, against the authors' block "
        "with normalised weights (NAP). A run counts if its test accuracy exceeds 90 %; the metric is the share of "
        "NAP's runs over that of BERT's. Hull: all outputs of each trained network's heads for 2 sequences, in "
        "float64; an output is outside if a hyperplane separates it from the values. Slope: of log variance of the "
        "attention sublayer's output before the residual, over that of its input, in log n for n = 16 to 1024, "
        "untrained, width 64, 4 heads."
    ),
    differences=(
        "The paper trains widths 8 to 1024 and ten learning rates on 128 tokens with five seeds, 3200 steps of 32 "
        "sequences, and varies seven more hyper-parameters: 25,000 runs, here 72."
    ),
    checks=(
        Check("robust_share_ratio", ">=", 1.3, "NAP trains in more of the grid than softmax"),
        Check("softmax_outside_hull", "<=", 0, "softmax's outputs stay in the hull of the values", over="every"),
        Check("nap_outside_hull", ">", 0.3, "NAP's outputs leave the hull"),
        Check("softmax_slope", "<", -0.5, "what softmax contributes shrinks with the length"),
        Check("nap_slope_size", "<=", 0.1, "what NAP contributes does not depend on the length"),
    ),
    also={
        "nap_share": "share of NAP's runs above 90 %",
        "softmax_share": "share of BERT's runs above 90 %",
        "nap_accuracy": "NAP's accuracy, mean over the grid",
        "softmax_accuracy": "BERT's accuracy, mean over the grid",
    },
    numbers={
        "length": 64,
        "exponents": [1, 3, 5, 7],
        "sizes": [[16, 1], [16, 4], [32, 4]],
        "steps": 600,
        "batch_size": 16,
        "tested": 1000,
        "slope_lengths": [16, 64, 256, 1024],
        "slope_width": 64,
    },
    tiny={
        "length": 8,
        "exponents": [3],
        "sizes": [[8, 2]],
        "steps": 3,
        "batch_size": 4,
        "tested": 20,
        "slope_lengths": [4, 8],
        "slope_width": 8,
    },
    seeds=(0, 1, 2),
    minutes=6,
)
