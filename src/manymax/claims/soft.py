"""Lu et al., 2022: attention with a Gaussian kernel through landmarks."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="soft",
    source=Source("Lu et al.", 2022, "Softmax-free Linear Transformers", "2207.03341"),
    statement=(
        "Without softmax, a Gaussian kernel of tokens that are queries and keys at once is symmetric, and can be "
        "approximated through a few landmarks with an inverse that Newton's iteration finds: attention in linear time "
        "and memory, with a better trade of accuracy and cost than approximations of softmax."
    ),
    setting=(
        "A ViT of 2 blocks, width 64, on scikit-learn's digits (64 patches of one pixel) with softmax and with SOFT of "
        "16 landmarks, same start, same batches, accuracy in points. For 16 images and both layers of the trained "
        "network: the inverse after 20 iterations in float32 against the pseudo-inverse of the landmarks' kernel + "
        "0.01 I in float64, relative in the Frobenius norm; its gradient against that of PyTorch's inverse; and the "
        "relative error of the kernel of all tokens through 4, 9, 16, 36 and 64 landmarks, of which the metric is the "
        "largest ratio of one number's error to the one before. Time: the forward pass, one head of width 32, 49 "
        "landmarks, one thread, n = 1024 to 16384, and PyTorch's softmax attention at the same."
    ),
    differences=(
        "The paper trains pyramids on ImageNet, COCO and ADE20K, with landmarks of a convolution and one linear map "
        "for queries and keys; here landmarks are means, and the mean of query and key is the token."
    ),
    checks=(
        Check("soft_time_slope", "<=", 1.3, "SOFT's time grows about linearly with the tokens"),
        Check("softmax_time_slope", ">=", 1.7, "softmax's grows about with their square"),
        Check("inverse_error", "<", 1e-3, "20 iterations find the inverse", over="every"),
        Check("error_growth", "<", 1.0, "more landmarks always give a better kernel", over="every"),
        Check("points_below_softmax", "<=", 1.0, "SOFT learns digits as well as softmax but for a point"),
        Check("backward_difference", "<", 1e-3, "the gradient is that of the inverse", over="every"),
    ),
    also={
        "softmax_accuracy": "accuracy of softmax in points",
        "error_of_most": "relative error of the kernel through the most landmarks",
    },
    numbers={
        "depth": 2,
        "width": 64,
        "landmarks": 16,
        "learning_rate": 3e-3,
        "warmup": 20,
        "steps": 200,
        "batch_size": 32,
        "probed": 16,
        "counts": [4, 9, 16, 36, 64],
        "time": {
            "width": 32,
            "landmarks": 49,
            "lengths": [1024, 2048, 4096, 8192, 16384],
            "rounds": 3,
            "seconds": 0.01,
        },
    },
    tiny={
        "depth": 1,
        "width": 32,
        "landmarks": 4,
        "warmup": 2,
        "steps": 4,
        "batch_size": 4,
        "probed": 4,
        "counts": [4, 16],
        "time": {"width": 4, "landmarks": 4, "lengths": [16, 32, 64], "rounds": 2, "seconds": 0.001},
    },
    seeds=(0, 1, 2),
    minutes=1,
)
