"""Fan et al., 2025: linear attention that knows how large a query is."""

from manymax.claims.claim import Check, Claim, Source

_TEXT = Check("text_linear_gap", ">", 0.0, "plain linear attention learns text worse than softmax")
_DIGITS = Check("digits_linear_gap", ">", 0.0, "plain linear attention learns digits worse than softmax")

CLAIM = Claim(
    name="mala",
    source=Source("Fan et al.", 2025, "Rectifying Magnitude Neglect in Linear Attention", "2507.00698"),
    statement=(
        "Linear attention that divides by the sum of its weights cannot tell a large query from a small one of the "
        "same direction, and its weights stay flat. A factor and a shift in the place of the division (MALA) bring "
        "the dependence back, and with it most of what softmax learns better, in linear time."
    ),
    setting=(
        "A byte-level GPT of 2 blocks, width 64, on Python's documentation, contexts of 128 bytes, and a ViT of 2 "
        "blocks, width 64, on scikit-learn's digits (64 patches of one pixel), with softmax, linear attention (elu + "
        "1, divided by the sum) and MALA with rotary features, without its convolution and gate; same start, same "
        "batches. The metric is MALA's loss less softmax's over linear attention's less softmax's. Weights: 64 "
        "standard normal queries and keys of width 32, queries multiplied by 1, 2, 4, 8 and 16; for each scale the "
        "mean over rows of the standard deviation of a row's weights, and the smallest ratio of one scale to the one "
        "before. For ReLU features the largest change of any row. Time: the forward pass of MALA with all parts, one "
        "head of width 32, one thread, n = 2048 to 16384."
    ),
    differences=(
        "The paper trains on ImageNet, COCO, ADE20K, language and speech with models up to 100 million parameters; the "
        "networks there have a convolution, a gate and rotary positions in all of their attentions, softmax too."
    ),
    checks=(
        Check("mala_spread_growth", ">", 1.0, "MALA's weights are less even for larger queries", over="every"),
        Check("softmax_spread_growth", ">", 1.0, "so are softmax's", over="every"),
        Check("relu_spread_change", "<", 1e-5, "those of ReLU features over their sum do not change", over="every"),
        Check("row_sum_error", "<=", 1e-4, "MALA's weights sum to 1", over="every"),
        Check("text_gap_ratio", "<", 0.7, "MALA leaves less than 0.7 of the gap on text", given=_TEXT),
        Check("digits_gap_ratio", "<", 0.7, "MALA leaves less than 0.7 of the gap on digits", given=_DIGITS),
        Check("time_slope", "<=", 1.2, "MALA's time grows about linearly with the tokens"),
    ),
    also={
        "softmax_text_loss": "validation loss of softmax on text, nats a byte",
        "softmax_digits_loss": "validation loss of softmax on digits, nats",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "text": {"length": 128, "steps": 250, "batch_size": 8},
        "digits": {"steps": 150, "batch_size": 32},
        "weights": {"tokens": 64, "width": 32, "scales": [1, 2, 4, 8, 16]},
        "time": {"width": 32, "lengths": [2048, 4096, 8192, 16384], "rounds": 5, "seconds": 0.02},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "text": {"length": 16, "steps": 4, "batch_size": 2},
        "digits": {"steps": 4, "batch_size": 4},
        "weights": {"tokens": 8, "width": 16, "scales": [1, 2, 4]},
        "time": {"width": 4, "lengths": [16, 32, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=2,
)
