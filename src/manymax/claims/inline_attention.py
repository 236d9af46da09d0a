"""Han et al., 2024: linear attention in which different queries have different weights."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="inline-attention",
    source=Source("Han et al.", 2024, "Bridging the Divide: Reconsidering Softmax and Linear Attention", "2412.06590"),
    statement=(
        "Linear attention gives queries of one direction the same weights, which softmax does not, and it looks less "
        "at what is near. Normalised by a subtraction, and with a convolution whose kernel depends on the image, "
        "linear attention (InLine) is better than softmax in vision transformers, at a fraction of the operations."
    ),
    setting=(
        "A ViT of 2 blocks, width 64, on scikit-learn's digits (64 patches of one pixel), with softmax, linear "
        "attention (ReLU over the sum), InLine, and InLine without its convolution; same start, same batches; accuracy "
        "in points. Weights: 64 standard normal queries and keys of width 32; the largest change of a weight if all "
        "queries are doubled (`mm.injectivity_gap`); the linear form in float32 against all pairs in float64; and how "
        "much the trained models' queries give to pixels beside them (`mm.local_mass`, 64 images). Operations: those "
        "of matrix products that PyTorch counts, n = 4096, width 32, without the convolution."
    ),
    differences=(
        "The paper trains DeiT, PVT, Swin and CSwin on ImageNet. There the kernel is made of the block's input, here "
        "of its values; there is no class token here."
    ),
    checks=(
        Check("relu_change", "<", 1e-6, "linear attention gives a doubled query the same weights", over="every"),
        Check("inline_change", ">", 1e-3, "InLine gives it other weights", over="every"),
        Check("points_above_softmax", ">=", -0.5, "InLine learns digits as well as softmax"),
        Check("points_above_linear", ">=", 1.0, "and better than linear attention"),
        Check("form_difference", "<=", 1e-5, "the linear form is that of all pairs", over="every"),
        Check("flop_ratio", "<", 0.05, "it takes a fraction of softmax's operations", over="every"),
    ),
    also={
        "points_of_local": "points by which the convolution makes InLine better",
        "softmax_accuracy": "accuracy of softmax in points",
        "near_mass_of_softmax": "share of softmax's weight on a pixel itself and the 8 around it, once trained",
        "near_mass_of_linear": "the same of linear attention; even weights have 0.12",
        "near_mass_of_inline": "the same of InLine without its convolution, of absolute weights",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
        "steps": 300,
        "batch_size": 32,
        "probed": 64,
        "weights": {"tokens": 64, "width": 32},
        "flops": {"tokens": 4096, "width": 32},
    },
    tiny={
        "depth": 1,
        "width": 32,
        "warmup": 2,
        "steps": 4,
        "batch_size": 4,
        "probed": 4,
        "weights": {"tokens": 8, "width": 4},
        "flops": {"tokens": 64, "width": 4},
    },
    seeds=(0, 1, 2),
    minutes=3,
)
