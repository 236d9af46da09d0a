import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.softcon import label_similarity


def batch(count=5, width=4, labels=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(count, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    return x, y, (torch.rand(count, labels, generator=generator) < 0.4).double()


def create(**options):
    return mm.create_head("softcon", in_features=4, num_classes=6, **options).double()


@pytest.mark.parametrize("similarity", ["cosine", "jaccard"])
def test_similarities_are_those_of_sets(similarity):
    _, _, labels = batch(8)
    labels[2] = 0
    found = label_similarity(3 * labels, labels, similarity)
    sets = [set(row.nonzero()[:, 0].tolist()) for row in labels]
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            size = math.sqrt(len(a) * len(b)) if similarity == "cosine" else len(a | b)
            assert math.isclose(found[i, j].item(), len(a & b) / size if size else 0.0)


@pytest.mark.parametrize("instance", [0.0, 0.7])
@pytest.mark.parametrize("similarity", ["cosine", "jaccard"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_loss_of_two_views(instance, similarity, chunk_size):
    x, y, labels = batch()
    head = create(temperature=0.4, similarity=similarity, instance=instance, chunk_size=chunk_size)
    scores = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / 0.4
    wanted = label_similarity(labels, labels, similarity)
    expected = F.binary_cross_entropy(scores.sigmoid(), wanted) + instance * F.cross_entropy(scores, torch.arange(5))
    loss = head(x, labels, candidates=y)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, (x, y)), torch.autograd.grad(expected, (x, y)))
    each = create(temperature=0.4, similarity=similarity, instance=instance, reduction="none")
    many = each(x.view(5, 1, 4), labels.view(5, 1, 6), candidates=y)
    assert many.shape == (5, 1)
    torch.testing.assert_close(many.mean(), expected)


def test_other_candidates_and_their_labels():
    x, _, labels = batch()
    y, _, others = batch(9, seed=1)
    scores = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / 0.2
    expected = F.binary_cross_entropy(scores.sigmoid(), label_similarity(labels, others))
    torch.testing.assert_close(create()(x, labels, candidates=y, candidate_labels=others), expected)


def test_without_candidates_the_rows_are_labels():
    x, _, labels = batch()
    head = create()
    scores = head.logits(x)
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(head(x, labels), F.binary_cross_entropy(scores.sigmoid(), label_similarity(labels, eye)))
    classes = torch.tensor([0, 5, 2, 2, 1])
    torch.testing.assert_close(head(x, classes), head(x, eye[classes]))
    head.instance = 0.5
    expected = head(x, classes)
    head.instance = 0.0
    torch.testing.assert_close(expected, head(x, classes) + 0.5 * F.cross_entropy(scores, classes))


def test_losses_of_two_calls_do_not_share_labels():
    x, y, labels = batch()
    head = create(reduction="none")
    alone = torch.autograd.grad(head(x, labels, candidates=y).sum(), x)[0]
    first = head(x, labels, candidates=y)
    head(x, 1 - labels, candidates=y)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), x)[0], alone)


def test_bad_options_and_calls():
    for options, words in [
        ({"temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ({"similarity": "dice"}, "similarity: expected 'cosine' or 'jaccard', got 'dice'"),
        ({"instance": -1.0}, "instance: expected at least 0, got -1.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            create(**options)
    x, y, labels = batch()
    with pytest.raises(ValueError, match=r"candidate_labels: expected \(5, 6\), got \(4, 6\)"):
        create()(x, labels, candidates=y, candidate_labels=labels[1:])
    with pytest.raises(ValueError, match=r"candidate_labels: expected \(4, 6\), got \(5, 6\)"):
        create()(x, labels, candidates=y[1:])
    with pytest.raises(ValueError, match=r"target: expected labels \(..., 6\), got torch.int64"):
        create()(x, torch.arange(5), candidates=y, candidate_labels=labels)
    with pytest.raises(ValueError, match="instance: expected 0 where no candidate"):
        create(instance=1.0)(x, labels)
    with pytest.raises(ValueError, match=r"target: expected torch\.int64"):
        create()(x, labels[1:], candidates=y, candidate_labels=labels)
