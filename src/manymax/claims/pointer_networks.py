"""Vinyals et al., 2015: answers that are places in the input."""

from manymax.claims.claim import Check, Claim, Source

FURTHER = (5, 15, 25)

CLAIM = Claim(
    name="pointer-networks",
    source=Source("Vinyals et al.", 2015, "Pointer Networks", "1506.03134"),
    statement=(
        "Attention whose weights are the answer learns convex hulls, triangulations and short tours from examples "
        "alone, better than networks with a fixed dictionary of outputs, and goes on to more points than it has "
        "seen."
    ),
    setting=(
        "Points of the unit square, two LSTMs of width 128, the first half each way, additive scores, batches of "
        "128, AdamW without decay, gradients cut at 1, beams of 3. Hulls of 5 to 10 points, counter-clockwise from "
        "the lowest number, 2000 steps, against the same network with attention and a dictionary of 10 places and "
        "an end, same batches; 200 sets of points for testing. Coverage is the mean area of the answer over the "
        "hull's, 0 for an answer that crosses itself; exact answers are hulls. Shortest tours of 5 points, all "
        "orders tried, 3000 steps. Delaunay triangles of 5 points, 700 steps."
    ),
    differences=(
        "The paper trains on a million examples with up to 50 points by stochastic gradient descent and states of "
        "256 or 512, and reads the points one way; its coverage leaves out answers that cross themselves. Here a "
        "point of a hull or a tour cannot be chosen twice, nor while training. The exact ratio counts the "
        "dictionary's exact answers as at least one."
    ),
    checks=(
        Check("coverage", ">=", 0.95, "hulls of 10 points are covered"),
        Check("coverage_double", ">=", 0.9, "so are those of 20, twice as many as seen"),
        Check("exact_ratio", ">", 2.0, "more than twice as many answers are exact as with a dictionary"),
        Check("words_refuse", ">=", 1.0, "pointing goes on to 11 points, the dictionary cannot", over="every"),
        Check("tour_ratio", "<=", 1.05, "tours of 5 points are within 5% of the shortest"),
    ),
    also={
        "exact": "share of exact hulls of 10 points",
        "words_coverage": "coverage of the dictionary at 10 points",
        "words_exact": "share of exact hulls with the dictionary",
        "triangles": "share of the Delaunay triangles of 5 points that are answered",
        **{f"coverage_{n}": f"coverage of hulls of {n} points" for n in FURTHER},
    },
    numbers={
        "width": 128,
        "beams": 3,
        "tested": 200,
        "further": list(FURTHER),
        "hull": {
            "points": {"least": 5, "most": 10},
            "steps": 2000,
            "batch_size": 128,
            "learning_rate": 4e-3,
            "warmup": 50,
        },
        "tour": {
            "points": {"least": 5, "most": 5},
            "steps": 3000,
            "batch_size": 128,
            "learning_rate": 4e-3,
            "warmup": 50,
        },
        "delaunay": {
            "points": {"least": 5, "most": 5},
            "steps": 700,
            "batch_size": 128,
            "learning_rate": 4e-3,
            "warmup": 50,
        },
    },
    tiny={
        "width": 8,
        "beams": 2,
        "tested": 4,
        "hull": {
            "points": {"least": 5, "most": 6},
            "steps": 3,
            "batch_size": 4,
            "learning_rate": 4e-3,
            "warmup": 1,
        },
        "tour": {
            "points": {"least": 4, "most": 4},
            "steps": 3,
            "batch_size": 4,
            "learning_rate": 4e-3,
            "warmup": 1,
        },
        "delaunay": {
            "points": {"least": 5, "most": 5},
            "steps": 3,
            "batch_size": 4,
            "learning_rate": 4e-3,
            "warmup": 1,
        },
    },
    seeds=(0, 1, 2),
    minutes=7,
)
