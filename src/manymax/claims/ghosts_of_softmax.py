"""Sao, 2026: the complex zeros of softmax's partition function limit the steps that are safe."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="ghosts-of-softmax",
    source=Source(
        "Sao",
        2026,
        "Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy",
        "2603.13552",
    ),
    statement=(
        "Along a step the Taylor series of cross-entropy converges up to a radius that one Jacobian-vector product "
        "bounds. Steps shorter than the radius do not fail, longer ones may collapse the network; measured in radii, "
        "the step at which failure sets in hardly depends on the temperature. An optimiser that keeps its steps "
        "within the radius survives spikes of the learning rate that gradient clipping does not."
    ),
    setting=(
        "An MLP of 64, 128 and 10 units with ReLU on scikit-learn's digits. Spikes, as in the authors' code: 200 "
        "steps of Adam on batches of 64, the learning rate 1000 times as high from step 50 on, plain, with gradients "
        "cut at norm 1, and with the controller, whose radius is that of the whole training set; the metric is the "
        "test accuracy at the end over that before the spike, for the controller the worst of three learning rates, "
        "for the others that of the largest, 0.01 (from the smaller ones the authors see plain Adam recover). "
        "Failures: from checkpoints of training on full batches, one step along the negative gradient, Adam's step "
        "and a random direction, of lengths from 0.1 to 100 radii; a step fails if it more than doubles the loss. "
        "Temperatures: scores divided by 0.25 to 4 at one checkpoint; the length at which failure sets in along the "
        "negative gradient, in radii and as it is, and the ratio of the standard deviations of their logarithms."
    ),
    differences=(
        "The paper tests six architectures, transformers among them, and takes spikes up to 10,000 times the learning "
        "rate."
    ),
    checks=(
        Check("controller_accuracy_ratio", ">=", 0.95, "the controller survives the spike"),
        Check("plain_accuracy_ratio", "<", 0.5, "plain Adam does not"),
        Check("clipped_accuracy_ratio", "<", 0.5, "nor does Adam with clipped gradients"),
        Check("failures_within", "<=", 0, "no step of less than 0.9 radii fails", over="every"),
        Check("onset_spread_ratio", "<", 0.5, "in radii, failure sets in at nearly the same length"),
    ),
    also={
        "plain_accuracy_ratio_smallest": "the ratio of plain Adam at the smallest learning rate",
        "failures_beyond": "share of steps of more than one radius that fail",
        "first_failure": "shortest failing step in radii",
    },
    numbers={
        "hidden": 128,
        "learning_rates": [1e-4, 1e-3, 1e-2],
        "steps": 200,
        "spike": 50,
        "batch_size": 64,
        "factor": 1000,
        "checkpoints": [0, 25, 50, 100, 200],
        "lengths": 61,
        "temperatures": [0.25, 0.5, 1.0, 2.0, 4.0],
    },
    tiny={"hidden": 8, "learning_rates": [1e-2], "steps": 6, "spike": 2, "batch_size": 8, "checkpoints": [0, 2]},
    seeds=(0, 1, 2),
    minutes=0.5,
)
