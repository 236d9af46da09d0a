"""Sander et al., 2021: attention made doubly stochastic by Sinkhorn's iterations."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="sinkformers",
    source=Source("Sander et al.", 2021, "Sinkformers: Transformers with Doubly Stochastic Attention", "2110.11773"),
    statement=(
        "The columns of softmax attention come closer to summing to 1 as training goes on, as if it strove to be "
        "doubly stochastic; making it so by Sinkhorn's iterations improves accuracy, most on the classification of 3-D "
        "shapes."
    ),
    setting=(
        "Eight kinds of surfaces (sphere, cube, cylinder, cone, torus, double cone, tetrahedron, helix), 64 random "
        "points each, stretched by up to 1.5 along each axis, rotated at random, with noise of 0.1. A set transformer "
        "without positions: two blocks of attention, width 64, 4 heads, then the mean. Softmax against 5 iterations "
        "of Sinkhorn, same start and same batches; accuracy on 1024 clouds. Sums of rows and columns: 21 iterations on "
        "the trained Sinkformer's scores, the worst over all rows and columns. Column sums of softmax: their standard "
        "deviation over test clouds, heads and layers after training over that before."
    ),
    differences=(
        "The paper classifies ModelNet40 (40 kinds, up to 5000 points) with induced points and pooling by attention, "
        "translates, and classifies images and texts; here shapes are synthetic and the clouds small."
    ),
    checks=(
        Check("accuracy_gain", ">", 0.0, "Sinkhorn is more accurate than softmax on shapes"),
        Check("row_error", "<=", 1e-2, "rows sum to 1 after 21 iterations", over="every"),
        Check("column_error", "<=", 1e-2, "columns sum to 1 after 21 iterations", over="every"),
        Check("softmax_difference", "<=", 1e-6, "one iteration is softmax", over="every"),
        Check("column_spread_ratio", "<", 1.0, "training brings softmax's column sums closer together"),
    ),
    also={
        "softmax_accuracy": "accuracy of softmax",
        "sinkhorn_accuracy": "accuracy of Sinkhorn",
        "column_spread_before": "standard deviation of softmax's column sums before training",
        "digits_column_spread_ratio": "the same ratio for a ViT of 2 blocks on scikit-learn's digits",
    },
    numbers={
        "points": 64,
        "noise": 0.1,
        "width": 64,
        "heads": 4,
        "depth": 2,
        "iterations": 5,
        "steps": 400,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "warmup": 20,
        "tested": 1024,
    },
    tiny={"points": 8, "width": 16, "heads": 2, "depth": 1, "steps": 4, "batch_size": 4, "warmup": 2, "tested": 16},
    seeds=(0, 1, 2, 3, 4),
    minutes=5,
)
