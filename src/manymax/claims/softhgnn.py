"""Lei et al., 2025: soft hyperedges beside attention."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="softhgnn",
    source=Source(
        "Lei et al.", 2025, "SoftHGNN: Soft Hypergraph Neural Networks for General Visual Recognition", "2505.15325"
    ),
    statement=(
        "Tokens that meet in a few soft sets, each token by a weight, find what more than two have in common; a block "
        "of them improves recognition at little cost, and with many sets, of which the best are selected, a term in "
        "the loss keeps all in use."
    ),
    setting=(
        "A ViT of 3 blocks, width 64, on scikit-learn's digits (64 patches of one pixel) whose last block has 16 soft "
        "sets in the place of softmax, against one with softmax in all blocks and an MLP so much wider that both have "
        "as many parameters; same batches, accuracy in points. The same with 2 blocks on sets of 12 tokens with one of "
        "10 values each, in half of which one value comes three times (the task triples, where counting different "
        "values or equal pairs does not help). Selection: digits with 8 fixed sets and the best 16 of 64, with the "
        "balancing term times 1 and times 0; the entropy of how often each of the 64 is selected for the images held "
        "out. Rank: of the participation times its transpose, the largest of 64 images. Operations: those of matrix "
        "products, n = 1024, 2 heads of width 32, the mechanisms without their projections."
    ),
    differences=(
        "The paper adds such blocks to networks for classification, counting crowds and detection on five data sets. "
        "There queries, keys and values are the block's input; here they are projections of it. Our balancing term "
        "has a gradient, the authors' has none."
    ),
    checks=(
        Check("points_of_sets", ">", 0.0, "soft sets are better than as many parameters of attention"),
        Check("triples_points_of_sets", ">", 0.0, "and so they are where three tokens have something in common"),
        Check("flop_ratio", "<", 0.2, "they take a fraction of attention's operations", over="every"),
        Check("usage_entropy_ratio", ">", 1.0, "the term evens which sets are selected"),
        Check(
            "participation_rank", "<=", 16, "tokens mix through no more dimensions than there are sets", over="every"
        ),
    ),
    also={
        "attention_accuracy": "accuracy of attention in points",
        "points_of_sets_alone": "points by which soft sets in all blocks, with more parameters, are above attention",
        "triples_attention_accuracy": "accuracy of attention on triples in points",
        "triples_points_of_sets_alone": "points by which soft sets in all blocks are above attention on triples",
        "parameters_ratio": "parameters with soft sets over those with attention alone",
        "balanced_usage_entropy": "entropy of the selections with the term, nats; ln 64 = 4.16 is even",
    },
    numbers={
        "depth": 3,
        "width": 64,
        "patch": 1,
        "edges": 16,
        "learning_rate": 3e-3,
        "warmup": 20,
        "steps": 120,
        "batch_size": 32,
        "probed": 64,
        "triples": {
            "tokens": 12,
            "values": 10,
            "depth": 2,
            "learning_rate": 1e-3,
            "steps": 1500,
            "batch_size": 64,
        },
        "selected": {"num_edges": 8, "num_dynamic": 64, "top_k": 16},
        "flops": {"tokens": 1024, "heads": 2, "width": 32, "edges": 16},
    },
    tiny={
        "depth": 2,
        "width": 32,
        "patch": 2,
        "edges": 4,
        "warmup": 2,
        "steps": 4,
        "batch_size": 4,
        "probed": 4,
        "triples": {"tokens": 8, "values": 6, "depth": 1, "learning_rate": 1e-3, "steps": 4, "batch_size": 4},
        "selected": {"num_edges": 1, "num_dynamic": 6, "top_k": 2},
        "flops": {"tokens": 64, "heads": 1, "width": 4, "edges": 3},
    },
    seeds=(0, 1, 2),
    minutes=6,
)
