"""Zhu et al., 2023: a softmax of cosines whose scale and margin follow the batch needs no tuning."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="madacos",
    source=Source(
        "Zhu et al.",
        2023,
        "Coarse-to-Fine: Learning Compact Discriminative Representation for Single-Stage Image Retrieval",
        "2308.04008",
    ),
    statement=(
        "A softmax of cosines whose scale and margin are set in each batch from its median example retrieves as well "
        "as the best fixed scale and margin, which have to be searched for; both rise as training goes on, so that "
        "supervision stays strong."
    ),
    setting=(
        "scikit-learn's digits: 0 to 4 train a small convolutional network with 32 features; among the images of 5 to "
        "9 each looks for its class by cosine, and mean average precision is taken in percent. MadaCos with alpha 0.1 "
        "against CosFace with every scale of 16, 32 and 64 and margin of 0, 0.2 and 0.35, of which the best counts, "
        "and against normalised softmax at a temperature of 0.05; ArcFace and softmax beside them; same start, same "
        "batches. Trends are Spearman's correlations of scale and margin with the step, over all batches."
    ),
    differences=(
        "The paper trains ResNet-50 and 101 on landmarks and retrieves from Revisited Oxford and Paris; its second "
        "stage, with local descriptors, is left out. With five classes the scale seldom leaves its least value early."
    ),
    checks=(
        Check("points_of_grid", ">=", -1.0, "untuned it is at most a point below the best of the grid"),
        Check("points_of_normalised", ">", 0.0, "it retrieves better than normalised softmax"),
        Check("scale_trend", ">", 0.8, "the scale rises"),
        Check("margin_trend", ">", 0.8, "the margin rises"),
    ),
    also={
        "map": "mean average precision of MadaCos in percent",
        "arcface_map": "that of ArcFace, margin 0.5 and scale 64",
        "softmax_map": "that of softmax",
        "last_scale": "scale of the last batch",
        "last_margin": "margin of the last batch",
    },
    numbers={
        "scales": [16, 32, 64],
        "margins": [0.0, 0.2, 0.35],
        "channels": 16,
        "dim": 32,
        "steps": 200,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "warmup": 20,
    },
    tiny={"scales": [16], "margins": [0.2], "channels": 2, "dim": 4, "steps": 3, "batch_size": 8, "warmup": 1},
    seeds=(0, 1, 2, 3, 4),
    minutes=1.5,
)
