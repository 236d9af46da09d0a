"""Meng et al., 2025: linear attention in which a query's norm makes its weights uneven."""

from manymax.claims.claim import Check, Claim, Source

_TEXT = Check("text_relu_gap", ">", 0.0, "linear attention with ReLU learns text worse than softmax")
_DIGITS = Check("digits_relu_gap", ">", 0.0, "linear attention with ReLU learns digits worse than softmax")

CLAIM = Claim(
    name="nalaformer",
    source=Source("Meng et al.", 2025, "NaLaFormer: Norm-Aware Linear Attention for Transformer Models", "2506.21137"),
    statement=(
        "In softmax attention a longer query has less even weights; dividing by the sum takes that from linear "
        "attention, and features that are never negative lose what negative channels say. Powers of the query's "
        "direction that grow with its norm, with signs kept apart, give both back, and most of the quality."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, and a ViT of 2 "
        "blocks, width 64, on scikit-learn's digits (64 patches of one pixel), with softmax, linear attention (ReLU, "
        "and elu + 1), MALA and NaLaFormer, the last two with rotary features and without convolution, norm and gate; "
        "same start, same batches. The metric is the loss less softmax's over that of ReLU less softmax's. Weights: 64 "
        "queries of random directions, 64 standard normal keys of width 32; norms 0.25, 0.5, 1, 2, 4 and 8; for each "
        "query Spearman's correlation of the entropy of its weights with its norm, and the mean of that. Time: the "
        "forward pass with all parts, one head of width 32, one thread, n = 2048 to 16384."
    ),
    differences=(
        "The paper trains on ImageNet, COCO, ADE20K, super-resolution and language, where the networks have a "
        "convolution, a norm and a gate in every attention. Here weights alone differ."
    ),
    checks=(
        Check("rank_correlation", "<", -0.9, "weights are less even, the longer the query", over="every"),
        Check("relu_entropy_change", "<", 1e-5, "with ReLU the norm changes nothing", over="every"),
        Check("text_gap_ratio", "<", 0.7, "NaLaFormer leaves less than 0.7 of ReLU's gap on text", given=_TEXT),
        Check("digits_gap_ratio", "<", 0.7, "NaLaFormer leaves less than 0.7 of ReLU's gap on digits", given=_DIGITS),
        Check("time_slope", "<=", 1.2, "its time grows about linearly with the tokens"),
    ),
    also={
        "entropy_fall": "nats by which the mean entropy falls from the smallest norm to the largest",
        "text_gap_ratio_of_mala": "the share of ReLU's gap on text that MALA leaves",
        "text_gap_ratio_of_elu": "the share of ReLU's gap on text that elu + 1 leaves",
        "digits_gap_ratio_of_mala": "the share of ReLU's gap on digits that MALA leaves",
        "digits_gap_ratio_of_elu": "the share of ReLU's gap on digits that elu + 1 leaves",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 150, "batch_size": 8},
        "digits": {"steps": 120, "batch_size": 32},
        "weights": {"tokens": 64, "width": 32, "scales": [0.25, 0.5, 1, 2, 4, 8]},
        "time": {"width": 32, "lengths": [2048, 4096, 8192, 16384], "rounds": 5, "seconds": 0.02},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "digits": {"steps": 4, "batch_size": 4},
        "weights": {"tokens": 8, "width": 16, "scales": [0.5, 1, 2]},
        "time": {"width": 4, "lengths": [16, 32, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=4,
)
