"""The term of orthogonal projection against the mean over pairs, pair by pair."""

import pytest
import torch
import torch.nn.functional as F
from head_cases import make

import manymax as mm
from manymax.heads.orthogonal_projection_loss import orthogonal_projection_loss

FORMS = ["paper", "signed", "absolute"]


def by_hand(x, target, gamma, form):
    same, different = [], []
    for i in range(len(x)):
        for j in range(len(x)):
            cosine = F.cosine_similarity(x[i], x[j], 0)
            if i != j and target[i] == target[j]:
                same.append(cosine)
            if target[i] != target[j]:
                different.append(cosine.abs() if form == "absolute" else cosine)
    s, d = (torch.stack(values).mean() if values else 0.0 for values in (same, different))
    return 1 - s + gamma * (abs(d) if form == "paper" else d)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("labels", [[0, 4, 4, 1, 0, 4, 1, 1], [3] * 8, list(range(8))])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_term_is_that_of_all_pairs(form, gamma, labels, chunk_size):
    x = torch.randn(8, 3, dtype=torch.float64).requires_grad_()
    target = torch.tensor(labels)
    expected = by_hand(x, target, gamma, form)
    found = orthogonal_projection_loss(x, target, gamma=gamma, form=form, chunk_size=chunk_size)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # 1e-6 is added to the numbers of pairs
    gradients = [torch.autograd.grad(each, x)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_forms_differ_where_classes_point_apart():
    x, target = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1])
    found = {form: float(orthogonal_projection_loss(x, target, gamma=0.5, form=form)) for form in FORMS}
    assert found == pytest.approx({"paper": 1.5, "signed": 0.5, "absolute": 1.5}, abs=1e-5)
    x = torch.cat([x, torch.tensor([[1.0, 0.0]])])  # means cancel, magnitudes do not
    target = torch.tensor([0, 0, 1])
    found = {form: float(orthogonal_projection_loss(x, target, gamma=0.5, form=form)) for form in FORMS}
    assert found == pytest.approx({"paper": 2.0, "signed": 2.0, "absolute": 2.5}, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_head_adds_the_term_to_cross_entropy(form):
    head, x, target = make(
        "orthogonal-projection-loss", {"form": form, "gamma": 0.8, "weight_of_term": 0.3}, shape=(3, 4)
    )
    target[0, 1] = -100
    kept = target != -100
    entropy = F.cross_entropy(F.linear(x[kept], head.weight, head.bias), target[kept])
    term = by_hand(x[kept], target[kept], 0.8, form)
    torch.testing.assert_close(head(x, target), entropy + 0.3 * term, rtol=1e-5, atol=1e-6)
    head.reduction = "none"
    torch.testing.assert_close(head(x, target).sum() / 11, entropy)


def test_defaults_are_the_papers():
    head, x, target = make("orthogonal-projection-loss", shape=(9,))
    expected = head.nll(x, target).mean() + by_hand(x, target, 0.5, "paper")
    torch.testing.assert_close(head(x, target), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": -1.0}, "gamma: expected at least 0, got -1.0"),
        ({"weight_of_term": -1.0}, "weight_of_term: expected at least 0, got -1.0"),
        ({"form": "code"}, "form: expected 'paper', 'signed' or 'absolute', got 'code'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("orthogonal-projection-loss", in_features=4, num_classes=3, **options)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"target: expected one class for each row of \(2, 4\), got \(3,\)"):
        orthogonal_projection_loss(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="form: expected 'paper', 'signed' or 'absolute', got 'code'"):
        orthogonal_projection_loss(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), form="code")
