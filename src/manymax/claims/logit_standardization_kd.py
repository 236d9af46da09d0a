"""Sun et al., 2024: a student need not have logits as large as its teacher's."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="logit-standardization-kd",
    source=Source("Sun et al.", 2024, "Logit Standardization in Knowledge Distillation", "2403.01427"),
    statement=(
        "With one temperature for both, distillation asks a small student for logits as large as its teacher's. Where "
        "both sides' logits become standard scores first, only their relations are learnt, the student's own scale is "
        "free, and it becomes more accurate; plain distillation can even prefer a student that is wrong."
    ),
    setting=(
        "Scikit-learn's digits with noise; the teacher is a CNN of two convolutions that is trained first, the student "
        "has one hidden layer of 8. Distillation at temperature 2 (cross-entropy 0.1, divergence 9), without and with "
        "standard scores, and the same of the divergence in two parts; same start and batches, 5 seeds; accuracy on "
        "held-out digits with noise in points. Invariance: the loss of 256 students scaled by 0.5 to 5 and shifted. "
        "Scale: how far the ratio of the standard deviations of student and teacher logits is from 1, in logarithms. "
        "Toy: a teacher's logits, a student close to them whose largest is another class, and one with twice the "
        "teacher's logits."
    ),
    differences=(
        "The paper distils deep networks on CIFAR-100 and ImageNet for hundreds of epochs; here both are tiny and "
        "trained for seconds."
    ),
    checks=(
        Check("accuracy_gain", ">", 0.0, "standard scores make the student more accurate"),
        Check("invariance", "<", 1e-6, "the loss does not change with the student's scale or shift", over="every"),
        Check("scale_freedom", ">", 0.0, "the student's scale is farther from the teacher's than without"),
        Check("toy_inversion", ">", 0.0, "plain distillation prefers the wrong student", over="every"),
        Check("toy_standardized", "<", 0.0, "standard scores prefer the right one", over="every"),
    ),
    also={
        "teacher_accuracy": "accuracy of the teacher, points",
        "kd_accuracy": "accuracy of the student without standard scores, points",
        "dkd_accuracy_gain": "what standard scores add to the divergence in two parts, points",
    },
    numbers={
        "channels": 16,
        "hidden": 8,
        "noise": 0.3,
        "tau": 2.0,
        "teacher": {"steps": 300},
        "steps": 400,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
    },
    tiny={"channels": 2, "hidden": 2, "teacher": {"steps": 4}, "steps": 4, "batch_size": 4, "warmup": 2},
    seeds=(0, 1, 2, 3, 4),
    minutes=0.5,
)
