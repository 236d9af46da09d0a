"""A convolutional network on digits, with softmax or a support vector machine on top (Agarap, 2017)."""

from __future__ import annotations

import torch
from torch import nn

from manymax.claims.claim import Metrics, Numbers, Progress, Untestable
from manymax.claims.experiments.tables import Classifier, Table, digits
from manymax.claims.experiments.training import part, train
from manymax.heads.registry import create_head

OPTIONS = {"softmax": {"bias": True}, "cnn-svm": {"bias": True, "averaged": True}}


def network(hidden: int, dropout: float) -> nn.Sequential:
    """Return the paper's network for images (1, 8, 8), with the padding that keeps their size, up to its head."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


def accuracy(name: str, table: Table, seed: int, numbers: Numbers, progress: Progress) -> float:
    """Return the test accuracy of the network with a head, in points."""
    torch.manual_seed(seed)
    body = network(numbers["hidden"], numbers["dropout"])
    head = create_head(name, in_features=numbers["hidden"], num_classes=10, **OPTIONS[name])
    model = Classifier(body, head)
    train(model, table, seed, numbers, progress)
    return 100 * model.accuracy(*table.held_out())


def run(seed: int, numbers: Numbers, progress: Progress) -> Metrics:
    """Train both from the same start on the same batches."""
    try:
        table = digits(flat=False)
    except ImportError as error:
        names = ("accuracy_distance", "softmax_lead", "softmax_accuracy", "svm_accuracy")
        return dict.fromkeys(names, Untestable(str(error)))
    softmax, svm = (
        accuracy(name, table, seed, numbers, part(progress, name, index, 2)) for index, name in enumerate(OPTIONS)
    )
    return {
        "accuracy_distance": abs(softmax - svm),
        "softmax_lead": softmax - svm,
        "softmax_accuracy": softmax,
        "svm_accuracy": svm,
    }
