import pytest
import torch
from head_cases import make

import manymax as mm


def by_hand(scores, target, p):
    """Loops over tokens and classes with Python's numbers."""
    return [
        sum(max(0.0, 1 - (1 if k == y else -1) * z) ** p for k, z in enumerate(row))
        for row, y in zip(scores.tolist(), target.tolist(), strict=True)
    ]


@pytest.mark.parametrize("p", [1, 2])
def test_the_sum_is_the_papers_loss(p):
    head, x, target = make("cnn-svm", {"p": p, "C": 0.7}, shape=(9,), reduction="sum")
    expected = 0.5 * float(head.weight.detach().square().sum()) + 0.7 * sum(by_hand(head.logits(x), target, p))
    assert float(head(x, target).detach()) == pytest.approx(expected)


def test_averaged_is_the_authors_code():
    head, x, target = make("cnn-svm", {"averaged": True, "C": 3.0}, shape=(9,))
    expected = float(head.weight.detach().square().mean()) + 3.0 * sum(by_hand(head.logits(x), target, 2)) / (9 * 7)
    assert float(head(x, target).detach()) == pytest.approx(expected)


def test_crammer_singer_looks_at_the_worst_other_class():
    head, _, _ = make("cnn-svm", {"multiclass": "crammer-singer", "p": 1, "reduction": "none"})
    scores = torch.tensor([[2.0, 0.5, 1.5], [4.0, 1.0, 2.0]])
    assert head.losses(scores, torch.tensor([0, 0])).tolist() == [0.5, 0.0]
    assert head.losses(scores, torch.tensor([1, 2])).tolist() == [2.5, 3.0]
    alone = mm.create_head("cnn-svm", in_features=2, num_classes=1, multiclass="crammer-singer", reduction="none")
    assert alone(torch.ones(1, 2), torch.tensor([0])) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"C": -1.0}, "C: expected at least 0"),
        ({"p": 3}, "p: expected 1 or 2"),
        ({"multiclass": "one-vs-one"}, "multiclass: expected"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("cnn-svm", in_features=2, num_classes=3, **options)
