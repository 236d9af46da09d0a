"""De Brébisson and Vincent, 2016: the Z-loss, whose training costs the same for any number of classes."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="z-loss-spherical",
    source=Source(
        "de Brébisson and Vincent",
        2016,
        "The Z-loss: a shift and scale invariant classification loss belonging to the Spherical Family",
        "1604.08859",
    ),
    statement=(
        "The Z-loss of a word's score, standardised over all words, does not change when all scores are moved or "
        "scaled alike. It sees of the scores the target's, their sum and the sum of their squares, so that the exact "
        "step of SGD, its gradients included, costs the same for any number of words: on the One Billion Word data 40 "
        "times less than with log-softmax. With a and b tuned for it the Z-loss ranks the next word among the first k "
        "more often than log-softmax does."
    ),
    setting=(
        "The next word of Python's documentation, 2,375 words, from the three before it, by embeddings, a layer of 64 "
        "and the output layer; 2,000 steps of 64 words. Adam trains all but the output layer, which takes plain steps "
        "of SGD: by backpropagation with log-softmax at four learning rates, by the exact update with the Z-loss at "
        "five pairs of a and b and two rates. For each k the setting that is best on one half of the held-out topics "
        "is compared on the other. Times are the best of several rounds of a step, forward, backward and update, on "
        "one thread, with 64 words of 64 features, and 2,000 or 200,000 classes; log-softmax is PyTorch's "
        "cross_entropy of the product. The update is compared with the naive one in float32 after 200 steps, relative "
        "to the largest weight; the invariance of float32 losses over four shifts and scales, relative to the loss."
    ),
    differences=(
        "The paper trains on Penn Treebank and One Billion Word with up to 793,471 words and larger networks, on GPUs, "
        "and tunes more finely. Its hierarchical softmax is not timed here."
    ),
    checks=(
        Check("invariance_error", "<=", 1e-5, "moving and scaling the scores changes no loss", over="every"),
        Check("update_error", "<=", 1e-4, "the exact update is that of naive SGD", over="every"),
        Check("layer_time_ratio", "<", 1.5, "with 100 times the classes a step of the layer takes no longer"),
        Check("softmax_time_ratio", ">", 20, "a step with log-softmax takes much longer"),
        Check("top5_difference", ">=", 0, "the Z-loss has the next word among the first 5 at least as often"),
        Check("top10_difference", ">=", 0, "among the first 10"),
        Check("top20_difference", ">=", 0, "among the first 20"),
    ),
    also={
        "top1_difference": "the Z-loss's accuracy less log-softmax's",
        "softmax_top1": "accuracy with log-softmax",
        "softmax_top5": "among the first 5 with log-softmax",
        "softmax_top10": "among the first 10",
        "softmax_top20": "among the first 20",
        "z_top1": "accuracy with the Z-loss",
        "z_top5": "among the first 5 with the Z-loss",
        "z_top10": "among the first 10",
        "z_top20": "among the first 20",
        "speedup_over_softmax": "time of a step with log-softmax over the layer's, 200,000 classes",
        "speedup_over_naive": "time of a step with the Z-loss of all scores over the layer's, 200,000 classes",
    },
    numbers={
        "words": 200_000,
        "asked": 100_000,
        "context": 3,
        "embedded": 24,
        "width": 64,
        "steps": 2000,
        "batch_size": 64,
        "learning_rate": 5e-3,
        "softmax_rates": [1.0, 2.0, 4.0, 8.0],
        "z_rates": [10.0, 40.0],
        "settings": [[0.1, 10.0], [0.1, 30.0], [0.3, 10.0], [0.3, 30.0], [1.0, 5.0]],
        "updates": 200,
        "updated_classes": 2000,
        "few": 2000,
        "many": 200_000,
        "timed_tokens": 64,
        "rounds": 7,
        "turn": 0.05,
    },
    tiny={
        "words": 3000,
        "asked": 200,
        "embedded": 4,
        "width": 8,
        "steps": 3,
        "batch_size": 4,
        "softmax_rates": [1.0],
        "z_rates": [10.0],
        "settings": [[0.1, 10.0], [1.0, 5.0]],
        "updates": 5,
        "updated_classes": 50,
        "few": 20,
        "many": 2000,
        "timed_tokens": 4,
        "rounds": 1,
        "turn": 0.001,
    },
    seeds=(0, 1, 2),
    minutes=2,
)
