"""ArcFace and CosFace against their formulas, written out for one number after another."""

import math

import pytest
import torch
from head_cases import make

import manymax as mm


def cosines(x, rows):
    return [
        [
            sum(a * b for a, b in zip(h, w, strict=True)) / math.sqrt(sum(a * a for a in h) * sum(b * b for b in w))
            for w in rows.tolist()
        ]
        for h in x.tolist()
    ]


def losses(x, rows, target, scale, harder):
    found = []
    for row, y in zip(cosines(x, rows), target.tolist(), strict=True):
        terms = [math.exp(scale * (harder(c) if j == y else c)) for j, c in enumerate(row)]
        found.append(-math.log(terms[y] / sum(terms)))
    return torch.tensor(found, dtype=torch.float64)


def turned(margin):
    return lambda c: math.cos(math.acos(c) + margin)


def monotone(margin):
    return lambda c: turned(margin)(c) if math.acos(c) < math.pi - margin else c - margin * math.sin(margin)


@pytest.mark.parametrize(
    ("name", "options", "scale", "harder"),
    [
        ("arcface", {}, 64, turned(0.5)),
        ("arcface", {"margin": 1.2, "scale": 7.0}, 7, turned(1.2)),
        ("arcface", {"margin": 1.2, "scale": 7.0, "monotone": True}, 7, monotone(1.2)),
        ("cosface", {}, 64, lambda c: c - 0.35),
        ("cosface", {"margin": 0.9, "scale": 7.0}, 7, lambda c: c - 0.9),
        ("hyperspherical-embedding", {}, 20, lambda c: c),
        (
            "hyperspherical-embedding",
            {"margin": 0.2, "angular_margin": 0.4, "scale": 7.0},
            7,
            lambda c: turned(0.4)(c) - 0.2,
        ),
    ],
)
def test_the_loss_is_the_papers(name, options, scale, harder):
    head, x, target = make(name, options, shape=(40,), features=3, reduction="none")
    expected = losses(x, head.weight, target, scale, harder)
    assert (target[:, None] == torch.arange(7)).any(0).all()
    torch.testing.assert_close(head(x, target), expected)
    plain = losses(x, head.weight, target, scale, lambda c: c)  # the margin is the loss's alone
    torch.testing.assert_close(head.nll(x, target), plain)


@pytest.mark.parametrize(
    "name",
    ["arcface", "cosface", "hyperspherical-embedding", "madacos", "sphereface2", "equiangular-basis-vectors"],
)
def test_candidates_take_the_rows_place(name):
    head, x, target = make(name, shape=(12,))
    rows = torch.randn(9, 6, dtype=torch.float64)
    expected = head(x, target)
    torch.testing.assert_close(head(x, target, candidates=5 * head.weight.detach()), expected)
    found = head(x, target + 2, candidates=torch.cat([rows[:2], head.weight.detach()]))
    assert found > expected  # two rows more to win against
    assert head.logits(x, rows).shape == (12, 9)


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_without_margin_it_is_cross_entropy_of_cosines(name):
    head, x, target = make(name, {"margin": 0.0}, shape=(12,))
    torch.testing.assert_close(head(x, target), head.nll(x, target).mean())


def test_only_the_monotone_form_falls_with_the_angle_everywhere():
    theta = torch.linspace(0.01, math.pi - 0.01, 200, dtype=torch.float64)
    for monotone, falls in [(True, True), (False, False)]:
        head = mm.create_head("arcface", in_features=2, num_classes=2, margin=1.0, monotone=monotone)
        assert bool((head.harder(theta.cos()).diff() < 0).all()) == falls


@pytest.mark.parametrize("name", ["arcface", "hyperspherical-embedding"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_features_on_a_row_have_finite_gradients(name, sign):
    options = {"angular_margin": 0.5} if name != "arcface" else {}
    head = mm.create_head(name, in_features=4, num_classes=3, **options)
    x = (sign * head.weight.detach()).requires_grad_()
    head(x, torch.arange(3)).backward()
    assert x.grad.isfinite().all()
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("arcface", {"margin": -0.1}, r"margin: expected an angle in \[0, pi\), got -0.1"),
        ("arcface", {"margin": 3.2}, r"margin: expected an angle in \[0, pi\), got 3.2"),
        ("cosface", {"margin": 2.0}, r"margin: expected a number in \[0, 2\), got 2.0"),
        ("cosface", {"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
        ("hyperspherical-embedding", {"margin": -1.0}, "margin: expected at least 0, got -1.0"),
        ("hyperspherical-embedding", {"angular_margin": 4.0}, r"angular_margin: expected an angle in \[0, pi\), got 4"),
        ("cosface", {"bias": True}, "bias: expected False, a cosine has none, got True"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head(name, in_features=4, num_classes=3, **options)
