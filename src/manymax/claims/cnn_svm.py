"""Agarap, 2017: a support vector machine on top of a convolutional network."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="cnn-svm",
    source=Source(
        "Agarap",
        2017,
        "An Architecture Combining Convolutional Neural Network (CNN) and Support Vector Machine (SVM) for Image "
        "Classification",
        "1712.03541",
    ),
    statement=(
        "A convolutional network with a support vector machine in the place of softmax classifies almost as well: "
        "99.04% against 99.23% on MNIST, 90.72% against 91.86% on Fashion-MNIST."
    ),
    setting=(
        "The paper's network (two convolutions of 5 x 5, 32 and 64 channels, each with ReLU and pooling by 2, a "
        "hidden layer of 1024 with dropout 0.5) on scikit-learn's digits of 8 x 8 pixels, every fifth for testing: "
        "400 steps of 128, AdamW without decay, learning rate 1e-3. Softmax and the squared hinge of one machine a "
        "class with the authors' code's means and C = 1, same start, same batches. Differences are in points of "
        "accuracy."
    ),
    differences=(
        "The paper trains on MNIST and Fashion-MNIST, 28 x 28 pixels, for 10000 steps at a constant learning rate; "
        "here images have 64 pixels, convolutions are padded to keep their size, and the rate falls."
    ),
    checks=(
        Check("accuracy_distance", "<=", 1.5, "the two differ by at most 1.5 points"),
        Check("softmax_lead", ">=", -0.2, "softmax is not behind by more than 0.2 points"),
    ),
    also={
        "softmax_accuracy": "test accuracy of softmax, in points",
        "svm_accuracy": "test accuracy of the support vector machine, in points",
    },
    numbers={
        "hidden": 1024,
        "dropout": 0.5,
        "steps": 400,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "warmup": 10,
    },
    tiny={"hidden": 16, "steps": 4, "batch_size": 8, "warmup": 2},
    seeds=(0, 1, 2, 3, 4),
    minutes=0.5,
)
