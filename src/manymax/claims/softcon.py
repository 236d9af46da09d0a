"""Wang, Albrecht & Zhu, 2024: pairs that belong together as much as their labels overlap."""

from manymax.claims.claim import Check, Claim, Source

CLAIM = Claim(
    name="softcon",
    source=Source(
        "Wang, Albrecht & Zhu",
        2024,
        "Multi-Label Guided Soft Contrastive Learning for Efficient Earth Observation Pretraining",
        "2405.20462",
    ),
    statement=(
        "Scenes with several labels are neither simply alike nor simply different: pulling them together as much as "
        "their labels overlap pretrains better features for many tasks than contrasting each scene with all others."
    ),
    setting=(
        "Collages of 2 x 2 of scikit-learn's digits, 16 x 16 pixels, labelled with the digits that are in them. A CNN "
        "of two convolutions, with a norm over the batch behind the projection, learns from two views of each (rolled "
        "by up to one pixel, brightness, noise): InfoNCE (temperature 0.07) against soft contrastive (cosine of "
        "labels, temperature 0.2), same start and batches. Then a linear probe by ridge regression on the features "
        "before the projection, from 1000 collages; mean average precision over the ten labels on collages of "
        "held-out digits, in points."
    ),
    differences=(
        "The paper pretrains on 780 000 satellite scenes with labels from land cover maps, and goes on from the "
        "weights of models of natural images. Its exact similarity and temperature were not at hand. Without "
        "the norm behind the projection the soft loss started from cosines near 1 and stayed there, 18 points behind "
        "InfoNCE with the one seed that was looked at; the norm was added for that, to both."
    ),
    checks=(Check("map_gain", ">", 1.0, "the probe gains more than a point of mean average precision"),),
    also={
        "infonce_map": "mean average precision after InfoNCE, points",
        "both_map_gain": "what the sum of both losses gains over InfoNCE",
        "untrained_map": "mean average precision of the features before training, points",
    },
    numbers={
        "channels": 16,
        "width": 32,
        "collages": {"train": 3000, "probe": 1000, "test": 1000},
        "steps": 250,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "warmup": 20,
    },
    tiny={
        "channels": 2,
        "width": 4,
        "collages": {"train": 24, "probe": 40, "test": 60},
        "steps": 3,
        "batch_size": 8,
        "warmup": 2,
    },
    seeds=(0, 1, 2),
    minutes=0.5,
)
