"""Pereira et al., 2021: normalised softmax embeds classes that were not trained better than losses of pairs."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="hyperspherical-embedding",
    source=Source("Pereira et al.", 2021, "Hyperspherical embedding for novel class classification", "2102.03243"),
    statement=(
        "Features that are trained with softmax over cosines lie on a sphere on which classes that were never trained "
        "can be told apart by the mean of a few examples of each: better than with features from losses of pairs, and "
        "without the cost of comparing pairs."
    ),
    setting=(
        "scikit-learn's digits: 6 of the 10, drawn at random, train a small convolutional network with 32 features; "
        "the other 4 are classified by the nearest mean of 1 or 5 examples of each, 100 drawings, mean over both and "
        "over 2 choices of digits a seed. Normalised softmax with a temperature of 0.05 against all triplets of a "
        "batch (margin 0.2 of squared distances, mean over those not yet apart) and all pairs (margin 1), same start, "
        "same batches of 128. Cosines: those between examples and class rows that softmax computes a batch, over those "
        "between one example and another that triplets compute."
    ),
    differences=(
        "The paper's images are larger (MNIST, Fashion-MNIST, CIFAR-10 and 100, Omniglot), and it does not say which "
        "scale it takes; ours is that of Zhai and Wu (2018). It counts pairs over the whole data set, of which a batch "
        "here sees a part, so that the ratio of cosines is less in softmax's favour."
    ),
    checks=(
        Check("novel_gain", ">", 0.0, "new classes are told apart better than after triplets, in points"),
        Check("cosines_ratio", "<", 0.1, "it computes less than a tenth of the cosines", over="every"),
    ),
    also={
        "novel_accuracy": "accuracy on new classes in percent, normalised softmax",
        "triplet_accuracy": "accuracy on new classes in percent, triplets",
        "contrastive_accuracy": "accuracy on new classes in percent, pairs",
    },
    numbers={
        "classes": 6,
        "splits": 2,
        "shots": [1, 5],
        "episodes": 100,
        "channels": 16,
        "dim": 32,
        "triplet_margin": 0.2,
        "contrastive_margin": 1.0,
        "steps": 150,
        "batch_size": 128,
        "learning_rate": 3e-3,
        "warmup": 15,
    },
    tiny={"splits": 1, "episodes": 2, "channels": 2, "dim": 4, "steps": 3, "batch_size": 16, "warmup": 1},
    seeds=(0, 1, 2, 3, 4),
    minutes=0.5,
)
