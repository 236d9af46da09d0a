"""Wen et al., 2021: one binary problem a class verifies unknown identities better than softmax."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="sphereface2",
    source=Source(
        "Wen et al.", 2021, "SphereFace2: Binary Classification is All You Need for Deep Face Recognition", "2108.01513"
    ),
    statement=(
        "Training one binary problem a class, without softmax's competition between classes, matches how pairs are "
        "verified later: it verifies identities that were not trained better than softmax, CosFace and ArcFace do, and "
        "suffers less from wrong labels."
    ),
    setting=(
        "Digits: a small convolutional network with 32 features learns scikit-learn's digits 0 to 4; all pairs of the "
        "images of 5 to 9 are verified. Identities: a perceptron learns 100 of 200 synthetic identities, points of 8 "
        "numbers with 20 noisy examples each, bent by a random network together with 8 numbers that say nothing; pairs "
        "of the other 100 are verified; then again with 20 % of the training labels wrong. Softmax, CosFace (margin "
        "0.35, scale 64), ArcFace (0.5, 64) and SphereFace2 (kind C, margin 0.4, scale 40, balance 0.7, t 3), their "
        "defaults, same start, same batches. The rate is the share of pairs of one identity, in percent, whose cosine "
        "exceeds that which one of 100 other pairs exceeds. Bias: the loss of zero features for 2, 10 and 1000 "
        "classes, with b lower or higher by 0.5 than where it starts."
    ),
    differences=(
        "The paper trains networks of 20 to 64 layers on half a million to millions of faces, tunes margins, and "
        "verifies at much lower rates of false acceptance. Here nothing is tuned for any head, and there are 5 and 100 "
        "classes instead of 10,000."
    ),
    checks=(
        Check("digits_gain_over_softmax", ">", 0.0, "it verifies new digits better than softmax, in points"),
        Check("digits_gain_over_cosface", ">=", -1.0, "and not worse than CosFace by a point"),
        Check("identities_gain_over_softmax", ">", 0.0, "it verifies new identities better than softmax"),
        Check("identities_gain_over_cosface", ">=", -1.0, "and not worse than CosFace by a point"),
        Check("noisy_gain_over_arcface", ">", 0.0, "with 20 % wrong labels it verifies better than ArcFace"),
        Check("bias_excess", ">", 0.0, "b starts where the loss at right angles is least", over="every"),
    ),
    also={
        "digits_rate": "rate on new digits, SphereFace2",
        "digits_arcface_rate": "rate on new digits, ArcFace",
        "identities_rate": "rate on new identities, SphereFace2",
        "identities_arcface_rate": "rate on new identities, ArcFace",
        "noisy_rate": "rate on new identities after wrong labels, SphereFace2",
    },
    numbers={
        "identities": {"count": 200, "examples": 20, "width": 64, "latent": 8, "spread": 0.3},
        "noise": 0.2,
        "false_accept_rate": 0.01,
        "bias_classes": [2, 10, 1000],
        "channels": 16,
        "hidden": [256],
        "dim": 32,
        "steps": 300,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "warmup": 30,
    },
    tiny={
        "identities": {"count": 8, "examples": 4, "width": 8, "latent": 2, "spread": 0.3},
        "channels": 2,
        "hidden": [8],
        "dim": 4,
        "steps": 2,
        "batch_size": 4,
        "warmup": 1,
    },
    seeds=(0, 1, 2, 3, 4),
    minutes=1,
)
