import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm


def pairs(count=6, others=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (count, others))
    return x.requires_grad_(), y.requires_grad_()


def cosines(x, y):
    return F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T


def create(name, width=5, **options):
    return mm.create_head(name, in_features=width, num_classes=4, **options).double()


def gradients_agree(loss, expected, leaves):
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_infonce_is_cross_entropy_of_cosines(reduction):
    x, y = pairs(6, 9)
    head = create("infonce", temperature=0.2, reduction=reduction)
    target = torch.tensor([8, 0, 3, 3, 1, 2])
    expected = F.cross_entropy(cosines(x, y) / 0.2, target, reduction=reduction)
    gradients_agree(head(x, target, candidates=y), expected, (x, y))


def test_clip_is_the_mean_of_both_directions():
    x, y = pairs()
    head = create("clip", temperature=0.3)
    with torch.no_grad():
        head.logit_scale.add_(0.2)
    scores = head.logit_scale.exp() * cosines(x, y)
    own = torch.tensor([2, 0, 1, 5, 4, 3])
    back = own.argsort()
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, back)) / 2
    gradients_agree(head(x, own, candidates=y), expected, (x, y, head.logit_scale))
    assert math.isclose(head.logit_scale.item(), 0.2 - math.log(0.3), rel_tol=1e-6)


def test_clip_with_classes_that_tokens_share_and_ignored_tokens():
    x, _ = pairs()
    head = create("clip", temperature=0.3, reduction="none")
    target = torch.tensor([1, 1, -100, 0, 1, 3])
    kept = [0, 1, 3, 4, 5]
    scores = (cosines(x, head.weight) / 0.3).tolist()
    losses = head(x, target).tolist()
    for i in kept:
        column = [math.exp(scores[k][target[i]]) for k in kept]
        row = [math.exp(s) for s in scores[i]]
        own = math.exp(scores[i][target[i]])
        assert math.isclose(losses[i], -(math.log(own / sum(row)) + math.log(own / sum(column))) / 2, rel_tol=1e-6)
    assert losses[2] == 0


def siglip_loss(scores, positive):
    """The double sum over pairs, with Python's numbers."""
    total = 0.0
    for i, row in enumerate(scores.tolist()):
        for j, score in enumerate(row):
            total += math.log1p(math.exp(-score if positive[i] == j else score))
    return total / len(scores)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_siglip_is_the_double_sum(chunk_size):
    x, y = pairs(6, 9)
    head = create("siglip", scale=3.0, logit_bias=-2.0, chunk_size=chunk_size)
    target = torch.tensor([8, 0, 3, 4, 1, 2])
    scores = head.logit_scale.exp() * cosines(x, y) + head.logit_bias
    signs = -torch.ones(6, 9, dtype=torch.float64).scatter(1, target[:, None], -1.0)
    expected = -F.logsigmoid(signs * scores).sum() / 6
    loss = head(x, target, candidates=y)
    assert math.isclose(loss.item(), siglip_loss(scores.detach(), target.tolist()), rel_tol=1e-12)
    gradients_agree(loss, expected, (x, y, head.logit_scale, head.logit_bias))
    assert math.isclose(head.logit_scale.exp().item(), 3.0, rel_tol=1e-6)
    torch.testing.assert_close(head.logits(x, y), scores)


def test_siglip_with_soft_labels():
    x, y = pairs(4, 7)
    head = create("siglip", scale=3.0, logit_bias=-1.0)
    target = torch.rand(4, 7)
    scores = head.logits(x, y)
    expected = -(target * F.logsigmoid(scores) + (1 - target) * F.logsigmoid(-scores)).sum() / 4
    gradients_agree(head(x, target, candidates=y), expected, (x, y, head.logit_scale, head.logit_bias))
    sharp = F.one_hot(torch.tensor([0, 6, 2, 1]), 7).double()
    torch.testing.assert_close(head(x, sharp, candidates=y), head(x, sharp.argmax(-1), candidates=y))


def test_siglip_starts_low_with_a_bias_far_below_zero():
    x, y = pairs(64, 64, 32)
    low, plain = (create("siglip", 32, logit_bias=b)(x, torch.arange(64), candidates=y) for b in (-10.0, 0.0))
    assert low < 0.2 * plain


@pytest.mark.parametrize("keep", ["hard", "easy"])
def test_siglip_keeps_the_hardest_or_the_easiest_negatives(keep):
    x, y = pairs(5, 8)
    head = create("siglip", negatives=3, keep=keep, scale=2.0, logit_bias=-1.0)
    target = torch.tensor([7, 0, 2, 4, 1])
    losses = []
    for row, own in zip(head.logits(x, y), target.tolist(), strict=True):
        others = sorted((row[j] for j in range(8) if j != own), reverse=keep == "hard")[:3]
        losses.append(-F.logsigmoid(row[own]) - sum(F.logsigmoid(-other) for other in others))
    gradients_agree(head(x, target, candidates=y), sum(losses) / 5, (x, y))


def test_siglip_keeps_random_negatives_each_as_often():
    x, y = pairs(3, 5)
    head = create("siglip", negatives=2, keep="random", reduction="sum", scale=1.0, logit_bias=0.0)
    target = torch.tensor([4, 0, 2])
    scores = head.logits(x, y).detach()
    own = F.softplus(-scores.gather(1, target[:, None])).sum()
    every = F.softplus(scores).sum() - F.softplus(scores.gather(1, target[:, None])).sum()
    torch.manual_seed(0)
    found = torch.stack([head(x, target, candidates=y).detach() for _ in range(4000)])
    assert abs(float(found.mean() - own - every / 2)) < 4 * float(found.std()) / 4000**0.5
    assert len(found.unique()) > 5
    torch.manual_seed(3)
    whole = head(x, target, candidates=y)
    head.chunk_size = 1
    torch.manual_seed(3)
    torch.testing.assert_close(head(x, target, candidates=y), whole)


def test_siglip_takes_all_where_fewer_are_there():
    x, y = pairs(3, 4)
    many = create("siglip", negatives=100)
    many(x, torch.arange(3), candidates=y)
    for keep in ("hard", "easy", "random"):
        many.keep = keep
        whole = create("siglip")(x, torch.arange(3), candidates=y)
        torch.testing.assert_close(many(x, torch.arange(3), candidates=y), whole)


class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest result of any operation, in numbers."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes() // x.element_size())
        return found


@pytest.mark.parametrize("name", ["infonce", "clip", "siglip"])
def test_pairs_never_exist_all_at_once(name):
    count, block = 512, 16
    x, y = pairs(count, count, 8)
    head = create(name, 8, chunk_size=block)
    for reduction in ("mean", "none"):
        head.reduction = reduction
        with Sizes() as sizes:
            head(x, torch.arange(count), candidates=y).sum().backward()
        assert sizes.largest <= count * block


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("infonce", {"temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ("clip", {"temperature": -1.0}, "temperature: expected a number above 0, got -1.0"),
        ("siglip", {"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
        ("siglip", {"negatives": 0}, "negatives: expected at least 1 or None, got 0"),
        ("siglip", {"keep": "soft"}, "keep: expected 'random', 'hard' or 'easy', got 'soft'"),
        ("siglip", {"bias": True}, "bias: expected False, a cosine has none, got True"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(ValueError, match=words):
        create(name, **options)


def test_bad_calls():
    x, y = pairs(3, 4)
    with pytest.raises(ValueError, match="target: expected int64 where negatives are left out"):
        create("siglip", negatives=1)(x, torch.rand(3, 4), candidates=y)
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 4\) or -100, got 4"):
        create("clip")(x, torch.tensor([0, 1, 4]), candidates=y)
    with pytest.raises(ValueError, match=r"candidates: expected \(count, 5\), got \(4, 1, 5\)"):
        create("infonce")(x, torch.arange(3), candidates=y[:, None])
