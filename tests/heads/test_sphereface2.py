"""SphereFace2 against its formula, and where its bias starts."""

import math

import pytest
import torch
import torch.nn.functional as F
from head_cases import make

import manymax as mm

KINDS = [("C", 0.4), ("A", 0.5), ("M", 1.7)]


def g(z, t):
    return 2 * ((z + 1) / 2) ** t - 1


def positive(theta, kind, m, t):
    if kind == "C":
        return g(math.cos(theta), t) - m
    return g(math.cos(min(math.pi, theta + m if kind == "A" else theta * m)), t)


def by_hand(thetas, target, b, *, kind, margin, t=3.0, r=40.0, balance=0.7):
    losses = []
    for row, y in zip(thetas.tolist(), target.tolist(), strict=True):
        loss = balance / r * math.log1p(math.exp(-r * positive(row[y], kind, margin, t) - b))
        for j, theta in enumerate(row):
            if j != y:
                q = g(math.cos(theta), t) + (margin if kind == "C" else 0)
                loss += (1 - balance) / r * math.log1p(math.exp(r * q + b))
        losses.append(loss)
    return torch.tensor(losses, dtype=torch.float64)


def angles(head, x):
    return (F.normalize(x, dim=-1) @ F.normalize(head.weight.detach(), dim=-1).T).acos()


@pytest.mark.parametrize(("kind", "margin"), KINDS)
@pytest.mark.parametrize(
    ("options", "named"), [({}, {}), ({"t": 2.5, "scale": 12.0, "balance": 0.4}, {"t": 2.5, "r": 12.0, "balance": 0.4})]
)
def test_the_loss_is_the_papers(kind, margin, options, named):
    head, x, target = make(
        "sphereface2", {"kind": kind, "margin": margin, **options}, shape=(40,), features=3, reduction="none"
    )
    expected = by_hand(angles(head, x), target, head.b.item(), kind=kind, margin=margin, **named)
    torch.testing.assert_close(head(x, target), expected)
    spread = options.get("scale", 40.0) * g(angles(head, x).cos(), options.get("t", 3.0)) + head.b
    torch.testing.assert_close(head.logits(x), spread)  # without the margin


@pytest.mark.parametrize(("kind", "margin"), KINDS)
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 1000])
def test_the_bias_starts_where_the_loss_at_right_angles_is_least(kind, margin, classes):
    head = mm.create_head("sphereface2", in_features=4, num_classes=classes, kind=kind, margin=margin).double()
    theta = torch.full((1, classes), math.pi / 2, dtype=torch.float64)

    def loss(shift):
        return float(by_hand(theta, torch.tensor([1]), head.b.item() + shift, kind=kind, margin=margin))

    assert loss(0) < min(loss(-0.5), loss(0.5))
    assert abs(loss(1e-3) - loss(-1e-3)) < 1e-6 * loss(0) + 1e-12  # flat there, as at a minimum
    x = torch.zeros(1, 4, dtype=torch.float64)
    torch.testing.assert_close(head(x, torch.tensor([1])).item(), loss(0))


@pytest.mark.parametrize(("kind", "margin"), KINDS)
def test_gradients_straight_through_are_those_of_the_cosine(kind, margin):
    heads = [
        make("sphereface2", {"kind": kind, "margin": margin, "straight_through": straight}, shape=(9,))
        for straight in (False, True)
    ]
    (own, x, target), (straight, _, _) = heads
    torch.testing.assert_close(own(x, target), straight(x, target))
    x.requires_grad_()
    straight(x, target).backward()
    cosine = F.normalize(x, dim=-1) @ F.normalize(straight.weight, dim=-1).T
    with torch.no_grad():
        p = torch.tensor(
            [[positive(float(c.acos()), kind, margin, 3) for c in row] for row in cosine], dtype=torch.float64
        )
        q = g(cosine, 3) + (margin if kind == "C" else 0)
        hit = F.one_hot(target, 7).double()
        logits = 40 * (hit * p + (1 - hit) * q) + straight.b
        slope = (0.3 * (1 - hit) * logits.sigmoid() - 0.7 * hit * (-logits).sigmoid()) / 9
    (expected,) = torch.autograd.grad((slope * cosine).sum(), x)
    torch.testing.assert_close(x.grad, expected)
    torch.testing.assert_close(straight.b.grad, slope.sum() / 40)


@pytest.mark.parametrize("kind", ["A", "M"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_features_on_a_row_have_finite_gradients(kind, sign):
    head = mm.create_head("sphereface2", in_features=4, num_classes=3, kind=kind, margin=1.5, t=0.5)
    x = (sign * head.weight.detach()).requires_grad_()
    head(x, torch.arange(3)).backward()
    assert x.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "B"}, "kind: expected 'C', 'A' or 'M', got 'B'"),
        ({"margin": -0.1}, "margin: expected at least 0 for kind 'C', got -0.1"),
        ({"kind": "M"}, "margin: expected at least 1 for kind 'M', got 0.4"),
        ({"balance": 1.0}, r"balance: expected a number in \(0, 1\), got 1.0"),
        ({"t": 0.0}, "t: expected a number above 0, got 0.0"),
        ({"num_classes": 1}, "num_classes: expected at least 2, got 1"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("sphereface2", **({"in_features": 4, "num_classes": 3} | options))
