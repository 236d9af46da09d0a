"""What claims of embeddings measure, against counting one by one, and the losses that they compare with."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from manymax.claims.experiments import embeddings, given, madacos, sphereface2
from manymax.claims.experiments.hyperspherical_embedding import Contrastive, Triplet
from manymax.claims.experiments.orthogonal_projection_loss import angles, attacked_accuracy
from manymax.heads.registry import create_head

FEATURES = F.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(3)), dim=1)
LABELS = torch.tensor([0, 1, 0, 2, 2, 1, 0, 2, 3])


def test_precision_is_the_mean_over_ranks_of_hits():
    found = []
    for i in range(9):
        others = sorted((j for j in range(9) if j != i), key=lambda j: -float(FEATURES[i] @ FEATURES[j]))
        hits = [LABELS[j] == LABELS[i] for j in others]
        precision = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
        if precision:
            found.append(sum(precision) / len(precision))
    assert len(found) == 8
    assert embeddings.mean_average_precision(FEATURES, LABELS) == pytest.approx(sum(found) / 8)
    assert embeddings.mean_average_precision(torch.eye(3)[LABELS.clamp_max(2)], LABELS.clamp_max(2)) == 1


def test_accepted_pairs_are_counted_above_the_others():
    same, others = [], []
    for i, j in itertools.combinations(range(9), 2):
        (same if LABELS[i] == LABELS[j] else others).append(float(FEATURES[i] @ FEATURES[j]))
    found = []
    for wrong, threshold in enumerate(sorted(others, reverse=True)):
        assert sum(other > threshold for other in others) == wrong
        found.append(sum(cosine > threshold for cosine in same) / len(same))
        rate = (wrong + 0.5) / len(others)
        assert embeddings.true_accept_rate(FEATURES, LABELS, rate) == pytest.approx(found[-1])
    assert len(set(found)) > 3
    assert embeddings.true_accept_rate(FEATURES, LABELS, 1.0) == pytest.approx(found[-1])


def test_few_examples_suffice_for_classes_that_are_apart_and_not_for_one():
    labels = torch.arange(12) % 3
    generator = torch.Generator().manual_seed(0)
    for shots in (1, 3):
        assert embeddings.few_shot_accuracy(torch.eye(3)[labels], labels, shots, 4, generator) == 1
    same = embeddings.few_shot_accuracy(torch.ones(12, 3), labels, 2, 4, generator)
    assert same == pytest.approx(1 / 3)  # the first of equal classes is chosen


def test_some_classes_are_renumbered_in_their_order():
    inputs, labels = embeddings.only((FEATURES, LABELS), [2, 0])
    assert labels.tolist() == [1, 1, 0, 0, 1, 0]
    assert torch.equal(inputs, FEATURES[[0, 2, 3, 4, 6, 7]])


def test_wrong_labels_are_of_another_class_and_as_many_as_asked():
    labels = torch.arange(4000) % 5
    wrong = embeddings.mislabelled(labels, 0.2, 5, torch.Generator().manual_seed(0))
    changed = wrong != labels
    assert 0.18 < float(changed.double().mean()) < 0.22
    assert wrong[changed].bincount().min() > 100
    assert wrong.max() == 4


def test_identities_are_nearer_to_themselves_than_to_others():
    inputs, labels = embeddings.identities(5, 6, width=16, latent=6, spread=0.01, seed=1)
    assert inputs.shape == (30, 16)
    assert labels.tolist() == [i for i in range(5) for _ in range(6)]
    again, _ = embeddings.identities(5, 6, width=16, latent=6, spread=0.01, seed=1)
    other, _ = embeddings.identities(5, 6, width=16, latent=6, spread=0.01, seed=2)
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)
    within = inputs.view(5, 6, 16).var(1).mean()
    assert within < 0.8 * inputs.var(0).mean()


def test_a_network_starts_the_same_whatever_the_head():
    task = given.Given((FEATURES, LABELS), (FEATURES, LABELS))
    numbers = {"steps": 2, "batch_size": 4, "learning_rate": 0.0, "warmup": 1}
    first, second = (
        embeddings.learn(
            lambda: given.perceptron(4, [5], 3),
            lambda name=name: create_head(name, in_features=3, num_classes=4),
            task,
            0,
            numbers,
            lambda share, doing: None,
        )
        for name in ("softmax", "cosface")
    )
    torch.testing.assert_close(first.network.state_dict(), second.network.state_dict())
    assert task.num_classes == 4
    expected = (first.head.predict(first.network(FEATURES)) == LABELS).double().mean()
    assert first.accuracy(task.validation) == float(expected)


def test_triplets_are_those_of_three_loops():
    x = 3 * FEATURES
    found = []
    for a, p, n in itertools.product(range(9), repeat=3):
        if a != p and LABELS[a] == LABELS[p] and LABELS[a] != LABELS[n]:
            excess = (FEATURES[a] - FEATURES[p]).square().sum() - (FEATURES[a] - FEATURES[n]).square().sum() + 0.3
            if excess > 0:
                found.append(float(excess))
    assert float(Triplet(0.3)(x, LABELS)) == pytest.approx(sum(found) / len(found))


def test_contrasts_are_those_of_two_loops():
    same, other = [], []
    for i, j in itertools.permutations(range(9), 2):
        distance = float((FEATURES[i] - FEATURES[j]).norm())
        if LABELS[i] == LABELS[j]:
            same.append(distance**2)
        else:
            other.append(max(0, 1.2 - distance) ** 2)
    expected = sum(same) / len(same) + sum(other) / len(other)
    assert float(Contrastive(1.2)(3 * FEATURES, LABELS)) == pytest.approx(expected, rel=1e-5)


def test_a_trend_shares_ranks_among_ties():
    assert madacos.trend([1.0, 2.0, 5.0]) == pytest.approx(1)
    assert madacos.trend([3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert madacos.trend([4.0, 4.0, 4.0]) == 0
    assert madacos.trend([1.0, 1.0, 2.0, 3.0]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))  # ranks 1.5, 1.5, 3, 4


def test_the_bias_of_sphereface2_is_a_minimum_that_is_left_as_it_was():
    assert all(sphereface2.bias_excess(classes) > 0 for classes in (2, 10, 1000))


def test_angles_and_attack():
    head = create_head("softmax", in_features=4, num_classes=4)
    torch.nn.init.eye_(head.weight)
    model = embeddings.Embedder(torch.nn.Identity(), head)
    inputs, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 2])
    inter, intra = angles(model, (inputs, labels))
    assert (inter, intra) == pytest.approx((2 / 10, 1.0))  # of 12 ordered pairs 2 are of a class, and 2 others at 1
    assert angles(model, (inputs, torch.zeros(4)))[1] == pytest.approx(4 / 12)
    assert attacked_accuracy(model, (inputs, labels), 0.0) == 0.75
    assert attacked_accuracy(model, (inputs, labels), 0.6) == 0.0
