"""Zheng, 2025: linear attention that a module of convolutions concentrates, in turn with softmax in windows."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="l2vit",
    source=Source("Zheng", 2025, "The Linear Attention Resurrection in Vision Transformer", "2501.16182"),
    statement=(
        "Linear attention spreads its weights where softmax concentrates them. Depthwise convolutions after it (local "
        "concentration) make up for that, a lower bound of the denominator keeps it stable, and in turn with softmax "
        "in windows it gives vision transformers as good as those of softmax, in linear time."
    ),
    setting=(
        "Scikit-learn's digits, stretched to 16 x 16 pixels, each a token. Models are built like the paper's, in two "
        "stages of 2 blocks, 256 tokens of width 32 and 64 of width 64, with a stem and positions by convolutions, and "
        "attention over the whole image in all blocks: softmax; linear attention (ReLU over the sum, a learnt "
        "temperature); the same with denominators of at least 100; the same without, with the module of 7 x 7 "
        "convolutions. Then L2ViT, by turns softmax in windows of 7 x 7 and linear attention with bound and module. "
        "Same batches, accuracy in points. Concentration: the mean over all rows of weights of the trained models for "
        "64 images. Spikes: steps whose gradient's norm, before it is cut, is above 3 times the median of the 20 "
        "before or not finite; the metric is plain division's less the bound's. Time: the forward pass without the "
        "module, one head of width 32, one thread, n = 4096 to 32768."
    ),
    differences=(
        "The paper trains four stages of 12 to 24 blocks in all, up to 1024 wide, on ImageNet. Here softmax, too, is "
        "in a model of this build, whose convolutions give it some of what the module gives to linear attention."
    ),
    checks=(
        Check("entropy_ratio", ">", 1.0, "rows of linear attention have a higher entropy than softmax's"),
        Check("points_of_module", ">=", 1.0, "the module makes linear attention better by a point"),
        Check("points_above_softmax", ">=", -0.5, "L2ViT learns digits as well as softmax"),
        Check("spikes_of_plain_division", ">=", 0, "plain division has at least as many spikes as with the bound"),
        Check("slope_distance", "<=", 0.15, "time grows linearly with the tokens"),
    ),
    also={
        "softmax_accuracy": "accuracy of softmax in points",
        "spikes_with_bound": "steps with a spike of linear attention with the bound",
        "points_of_bound": "points by which the bound makes linear attention better",
        "near_mass_of_softmax": "share of softmax's weight on a token itself and the 8 around it",
        "near_mass_of_linear": "the same of linear attention; even weights have 0.03 and 0.12 in the two stages",
    },
    numbers={
        "side": 16,
        "patch": 1,
        "depths": [2, 2],
        "widths": [32, 64],
        "window": 7,
        "local": 7,
        "learning_rate": 3e-3,
        "warmup": 20,
        "steps": 120,
        "batch_size": 32,
        "probed": 64,
        "time": {"width": 32, "lengths": [4096, 8192, 16384, 32768], "rounds": 5, "seconds": 0.02},
    },
    tiny={
        "side": 6,
        "depths": [2],
        "widths": [8],
        "window": 3,
        "local": 3,
        "warmup": 2,
        "steps": 4,
        "batch_size": 4,
        "probed": 4,
        "time": {"width": 4, "lengths": [16, 32, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=4,
)
