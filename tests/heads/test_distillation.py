import math

import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.distillation import topk_kl
from manymax.heads.logit_standardization_kd import dkd_loss, kd_loss, zscore_softmax


def logits(seed=0, count=4, classes=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator, dtype=torch.float64)


def softmax(row):
    total = sum(map(math.exp, row))
    return [math.exp(z) / total for z in row]


def zscores(row, tau):
    mean = sum(row) / len(row)
    std = math.sqrt(sum((z - mean) ** 2 for z in row) / (len(row) - 1))
    return [(z - mean) / (std + 1e-7) / tau for z in row]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("tau", [0.7, 3.0])
@pytest.mark.parametrize("standardize", [False, True])
def test_kd_is_the_divergence_by_hand(tau, standardize):
    s, t = logits(0), 3 * logits(1)
    prepare = zscores if standardize else lambda row, tau: [z / tau for z in row]
    expected = [
        tau**2 * divergence(softmax(prepare(b, tau)), softmax(prepare(a, tau)))
        for a, b in zip(s.tolist(), t.tolist(), strict=True)
    ]
    found = kd_loss(s, t, tau=tau, standardize=standardize)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, t, tau=tau, standardize=standardize), s.requires_grad_())


def test_standard_scores_ignore_scale_and_shift():
    s, t = logits(0), logits(1)  # the 1e-7 beside the deviation moves the loss by about as much
    for loss in (kd_loss, lambda s, t: dkd_loss(s, t, torch.tensor([0, 6, 2, 1]), beta=1.0, tau=2.0)):
        expected = loss(s, t)
        assert (loss(4 * s + 3, t) - expected).abs().max() < 1e-6
        assert (loss(s, 0.5 * t - 8) - expected).abs().max() < 1e-6
        assert (loss(2 * t - 1, t)).abs().max() < 1e-6
    assert (zscore_softmax(5 * s - 2, 0.6) - zscore_softmax(s, 0.6)).abs().max() < 1e-6
    torch.testing.assert_close(
        zscore_softmax(s, 0.6)[0], torch.tensor(softmax(zscores(s[0].tolist(), 0.6)), dtype=torch.float64)
    )
    # The same as a temperature of its own for each row.
    own = 2.0 * s.std(-1, keepdim=True), 2.0 * t.std(-1, keepdim=True)
    adaptive = 4 * F.kl_div((s / own[0]).log_softmax(-1), (t / own[1]).softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(kd_loss(s, t), adaptive, rtol=1e-5, atol=1e-6)


def test_equal_logits_have_finite_gradients():
    s = torch.zeros(2, 5, requires_grad=True)
    for loss in (kd_loss(s, torch.randn(2, 5)), dkd_loss(s, torch.randn(2, 5), torch.tensor([0, 4]))):
        assert torch.isfinite(torch.autograd.grad(loss.sum(), s)[0]).all()
    one = torch.zeros(2, 1, requires_grad=True)
    assert (kd_loss(one, one.detach() + 3) == 0).all()
    assert (dkd_loss(one, one.detach() + 3, torch.zeros(2, dtype=torch.int64)) == 0).all()


@pytest.mark.parametrize("standardize", [False, True])
def test_dkd_by_hand(standardize):
    s, t, target, tau = logits(0), 2 * logits(1), [0, 6, 3, 3], 2.5
    prepare = zscores if standardize else lambda row, tau: [z / tau for z in row]
    for i, y in enumerate(target):
        (p, q) = (softmax(prepare(x[i].tolist(), tau)) for x in (t, s))
        first = divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        rest = [[v / (1 - d[y]) for j, v in enumerate(d) if j != y] for d in (p, q)]
        found = dkd_loss(s, t, torch.tensor(target), tau=tau, alpha=0.7, beta=3.0, standardize=standardize)[i]
        assert math.isclose(found.item(), tau**2 * (0.7 * first + 3.0 * divergence(*rest)), rel_tol=1e-9)
    # With beta the mass that the teacher leaves to the others, both parts are the plain divergence.
    share = 1 - (t[:1] / tau).softmax(-1)[0, 0].item()
    whole = dkd_loss(s[:1], t[:1], torch.tensor([0]), tau=tau, alpha=1.0, beta=share, standardize=False)
    torch.testing.assert_close(whole, kd_loss(s[:1], t[:1], tau=tau, standardize=False))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("form", ["kd", "dkd"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_head_weighs_both_losses(reduction, form, chunk_size):
    options = {"tau": 3.0, "ce_weight": 0.3, "kd_weight": 1.7, "form": form, "alpha": 0.5, "beta": 2.0}
    head = mm.create_head(
        "logit-standardization-kd", in_features=5, num_classes=7, chunk_size=chunk_size, reduction=reduction, **options
    ).double()
    x, t = torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_(), logits(1, 6).view(2, 3, 7)
    target = torch.tensor([[1, 6, -100], [0, 2, 2]])
    s, y = head.logits(x), target.clamp_min(0)
    second = kd_loss(s, t, tau=3.0) if form == "kd" else dkd_loss(s, t, y, tau=3.0, alpha=0.5, beta=2.0)
    hard = F.cross_entropy(s.flatten(0, 1), y.flatten(), reduction="none").view(2, 3)
    each = torch.where(target >= 0, 0.3 * hard + 1.7 * second, 0)
    expected = {"none": each, "sum": each.sum(), "mean": each.sum() / 5}[reduction]
    loss = head(x, target, teacher=t)
    torch.testing.assert_close(loss, expected)
    leaves = (x, head.weight)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), leaves), torch.autograd.grad(expected.sum(), leaves))
    assert head(x, target, teacher=t.float()).dtype == torch.float64


@pytest.mark.parametrize("name", ["logit-standardization-kd", "distillation"])
def test_without_a_teacher_it_is_cross_entropy(name):
    head = mm.create_head(name, in_features=5, num_classes=7, bias=True).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, -100, 6, 2])
    torch.testing.assert_close(head(x, y), F.cross_entropy(head.logits(x), y))


def test_plain_distillation():
    head = mm.create_head("distillation", in_features=5, num_classes=7, tau=3.0, ce_weight=0.2, kd_weight=0.8).double()
    x, t, y = torch.randn(4, 5, dtype=torch.float64), logits(1), torch.tensor([0, 5, 6, 2])
    s = head.logits(x)
    soft = 9 * F.kl_div((s / 3).log_softmax(-1), (t / 3).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(head(x, y, teacher=t), 0.2 * F.cross_entropy(s, y) + 0.8 * soft)


def test_what_was_kept_of_a_teacher():
    s, t = logits(0), 2 * logits(1)
    logs = t.log_softmax(-1)
    whole = kd_loss(s, t, tau=1.0, standardize=False)
    before = torch.zeros(4, dtype=torch.float64)
    for k in range(1, 8):
        kept, indices = logs.topk(k)
        found = topk_kl(s, indices, kept)
        for i in range(4):
            chosen = indices[i].tolist()
            p, q = logs[i].exp().tolist(), s[i].softmax(-1).tolist()
            parts = [[d[j] for j in chosen] + [sum(d) - sum(d[j] for j in chosen)][: k < 7] for d in (p, q)]
            assert math.isclose(found[i].item(), divergence(*parts), rel_tol=1e-9)
        assert (found >= before - 1e-12).all()
        before = found
        assert torch.autograd.gradcheck(lambda s, i=indices, p=kept: topk_kl(s, i, p), s.clone().requires_grad_())
    torch.testing.assert_close(before, whole)
    shuffled = torch.randperm(7)
    torch.testing.assert_close(topk_kl(s, shuffled.expand(4, 7), logs[:, shuffled]), whole)


def test_the_head_with_a_kept_teacher():
    head = mm.create_head("distillation", in_features=5, num_classes=7, tau=2.0).double()
    x, t, y = torch.randn(4, 5, dtype=torch.float64), logits(1), torch.tensor([0, -100, 6, 2])
    logs, indices = (t / 2).log_softmax(-1).topk(7)
    torch.testing.assert_close(head(x, y, teacher=(indices, logs)), head(x, y, teacher=t))
    logs, indices = logs[:, :3], indices[:, :3]
    kept, s = y >= 0, head.logits(x)
    expected = 0.5 * F.cross_entropy(s, y) + 0.5 * 4 * topk_kl(s / 2, indices, logs)[kept].mean()
    torch.testing.assert_close(head(x, y, teacher=(indices, logs)), expected)
    certain = (torch.tensor([[3]] * 4), torch.zeros(4, 1, dtype=torch.float64))
    expected = 0.5 * F.cross_entropy(s, y) - 2 * (s / 2).log_softmax(-1)[kept, 3].mean()
    torch.testing.assert_close(head(x, y, teacher=certain), expected)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("distillation", {"tau": 0.0}, "tau: expected a number above 0, got 0.0"),
        ("distillation", {"kd_weight": -1.0}, "kd_weight: expected at least 0, got -1.0"),
        ("logit-standardization-kd", {"tau": -2.0}, "tau: expected a number above 0, got -2.0"),
        ("logit-standardization-kd", {"ce_weight": -1.0}, "ce_weight: expected at least 0, got -1.0"),
        ("logit-standardization-kd", {"form": "ctkd"}, "form: expected 'kd' or 'dkd', got 'ctkd'"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head(name, in_features=4, num_classes=3, **options)


def test_bad_teachers():
    head = mm.create_head("distillation", in_features=5, num_classes=7)
    x, y = torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)
    index, log = torch.zeros(4, 1, dtype=torch.int64), torch.zeros(4, 1)
    for teacher, words in [
        (torch.zeros(4, 6), r"teacher: expected floating \(..., 7\), got torch.float32 of shape \(4, 6\)"),
        (torch.zeros(3, 7), r"teacher: expected \(4, 7\), got \(3, 7\)"),
        (torch.zeros(4, 7, dtype=torch.int64), "teacher: expected floating"),
        (torch.zeros(4, 7, requires_grad=True), "teacher: expected no requires_grad"),
        ((index.int(), log), "teacher: expected int64 classes"),
        ((index, torch.zeros(4, 2)), r"teacher: expected int64 classes in the shape \(4, 2\)"),
        ((index + 7, log), r"teacher: expected classes in \[0, 7\)"),
        ((index, log + 0.1), "teacher: expected log-probabilities of a sum of at most 1, got 1.1"),
    ]:
        with pytest.raises(ValueError, match=words):
            head(x, y, teacher=teacher)
    with pytest.raises(ValueError, match="tau: expected a number above 0, got 0"):
        zscore_softmax(x, 0)
