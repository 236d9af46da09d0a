"""An et al., 2025: outliers are softmax's way to scale a head by its context; an explicit scale removes them."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="systematic-outliers",
    source=Source("An et al.", 2025, "Systematic Outliers in Large Language Models", "2502.06415"),
    statement=(
        "Outliers in activations, weights and attention are one thing: how softmax, whose weights have to sum to one, "
        "scales a head's output by its context. An explicit scale for each token and head removes them, speeds up "
        "convergence and makes compression cheaper."
    ),
    setting=(
        "A byte-level GPT of 3 blocks, width 96, 3 heads a block, on Python's documentation, contexts of 64 bytes; "
        "softmax against softmax whose output is multiplied, for each token and head, by 2 sigmoid(W x + b) of what "
        "the layer reads, with W and b starting at zero; same start and same batches. Activations are what blocks "
        "hand on, over 64 validation texts; the sink is Sink with threshold 0.3 at the first token. W8A8 rounds the "
        "weights and inputs of all linear layers of the blocks to 8 bits with one scale a tensor; the metric is the "
        "ratio of the rises in validation loss."
    ),
    differences=(
        "The paper trains GPT-2 of 124 million parameters on 50 billion tokens and looks at language models of up to "
        "70 billion, where outliers are hundreds of times the mean; a model this small may have none to remove."
    ),
    checks=(
        Check("outlier_ratio", "<", 0.5, "the largest activation over the mean is less than half"),
        Check("sink_difference", "<", 0.0, "there are fewer sinks"),
        Check("loss_ratio", "<=", 1.0, "it learns at least as fast"),
        Check("quantisation_ratio", "<", 0.7, "8 bits cost less"),
    ),
    also={
        "softmax_largest_over_mean": "largest activation of softmax over the mean",
        "softmax_kurtosis": "largest kurtosis between blocks of softmax",
        "scaled_kurtosis": "largest kurtosis between blocks with the scale",
        "softmax_sink": "sink metric of softmax",
        "softmax_quantisation": "rise of softmax's loss by 8 bits, nats",
    },
    numbers={
        "depth": 3,
        "width": 96,
        "length": 64,
        "steps": 2000,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "warmup": 50,
        "texts": 64,
    },
    tiny={"depth": 1, "width": 32, "length": 8, "steps": 4, "batch_size": 2, "warmup": 2, "texts": 2},
    seeds=(0, 1, 2),
    minutes=6,
)
