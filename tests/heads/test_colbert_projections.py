import pytest
import torch
import torch.nn.functional as F

import manymax as mm
from manymax.heads.maxsim import gradient_share, maxsim
from manymax.heads.projection import Projection


def batch(queries=3, tokens=4, documents=5, length=6, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(queries, tokens, width, generator=generator, dtype=torch.float64)
    d = torch.randn(documents, length, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(documents, length, generator=generator) < 0.6
    mask[:, 2] = True
    return q.requires_grad_(), d.requires_grad_(), mask, torch.rand(queries, tokens, generator=generator) < 0.7


def create(**options):
    return mm.create_head("colbert-projections", in_features=4, num_classes=7, out_features=3, **options).double()


def by_hand(q, d, mask, query_mask):
    rows = []
    for i in range(len(q)):
        rows.append([])
        for j in range(len(d)):
            best = [max(a @ b for b in d[j][mask[j]]) for a in q[i][query_mask[i]]]
            rows[-1].append(sum(best, torch.zeros((), dtype=q.dtype)))
    return torch.stack([torch.stack(row) for row in rows])


def test_maxsim_by_hand():
    q, d, mask, query_mask = batch()
    torch.testing.assert_close(maxsim(q, d, mask=mask, query_mask=query_mask), by_hand(q, d, mask, query_mask))
    everything = torch.ones_like(mask), torch.ones_like(query_mask)
    torch.testing.assert_close(maxsim(q, d), by_hand(q, d, *everything))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_the_loss_of_queries_and_documents(masked, reduction, chunk_size):
    q, d, mask, query_mask = batch()
    head = create(projection="glu", residual=True, temperature=0.5, reduction=reduction, chunk_size=chunk_size)
    masks = {"mask": mask, "query_mask": query_mask} if masked else {}
    scores = maxsim(F.normalize(head.projection(q), dim=-1), F.normalize(head.projection(d), dim=-1), **masks) / 0.5
    torch.testing.assert_close(head.logits(q, d, **masks), scores)
    target = torch.tensor([4, 0, 2])
    expected = F.cross_entropy(scores, target, reduction=reduction)
    loss = head(q, target, candidates=d, **masks)
    torch.testing.assert_close(loss, expected)
    leaves = (q, d, *head.projection.parameters())
    direction = torch.rand(loss.shape, dtype=torch.float64)
    found = torch.autograd.grad(loss, leaves, direction)
    torch.testing.assert_close(found, torch.autograd.grad(expected, leaves, direction))
    torch.testing.assert_close(head(q, F.one_hot(target, 5).double(), candidates=d, **masks), expected)
    ignored = torch.tensor([-100, 0, 2])
    expected = F.cross_entropy(scores, ignored, reduction=reduction)
    torch.testing.assert_close(head(q, ignored, candidates=d, **masks), expected)


def test_masked_tokens_may_hold_anything_and_get_nothing():
    q, d, mask, _ = batch()
    head = create()
    for value in (0.0, 50.0):
        other = d.detach().clone()
        other[~mask] = value
        other.requires_grad_()
        loss = head(q, torch.arange(3), candidates=other, mask=mask)
        torch.testing.assert_close(loss, head(q, torch.arange(3), candidates=d, mask=mask))
        assert (torch.autograd.grad(loss, other)[0][~mask] == 0).all()


def test_documents_of_one_token():
    q, d, _, _ = batch()
    head = create()
    single = head(q[:, 0], torch.arange(3), candidates=d[:, 0])
    torch.testing.assert_close(single, head(q[:, :1], torch.arange(3), candidates=d[:, :1]))
    many = head(q.view(3, 1, 4, 4), torch.arange(3)[:, None], candidates=d)
    torch.testing.assert_close(many, head(q, torch.arange(3), candidates=d))
    torch.testing.assert_close(
        head(q[:, :1], torch.arange(3), candidates=head.weight[:, None]), head(q[:, 0], torch.arange(3))
    )


def test_products_never_exist_all_at_once():
    torch.manual_seed(0)
    q, d = torch.randn(32, 4, 4, dtype=torch.float64), torch.randn(32, 5, 4, dtype=torch.float64)
    head = create(chunk_size=2)
    shapes = []
    real = head.losses
    head.losses = lambda scores, target: shapes.append(tuple(scores.shape)) or real(scores, target)
    head(q, torch.arange(32), candidates=d)
    assert set(shapes) == {(2, 32)}
    assert len(shapes) == 16


def test_the_share_of_tokens_that_learn_is_that_of_autograd():
    q, d, mask, _ = batch()
    found = gradient_share(q, d, mask=mask)
    for i in range(3):
        for j in range(5):
            (gradient,) = torch.autograd.grad(maxsim(q[i : i + 1], d[j : j + 1], mask=mask[j : j + 1]).sum(), d)
            reached = (gradient[j] != 0).any(-1).sum() / mask[j].sum()
            torch.testing.assert_close(found[i, j], reached)
    torch.testing.assert_close(gradient_share(q, d), gradient_share(q, d, mask=torch.ones_like(mask)))


def test_projections():
    x = torch.randn(3, 4, dtype=torch.float64)
    linear = Projection(4, 2).double()
    (w,) = linear.parameters()
    torch.testing.assert_close(linear(x), x @ w.T)
    ffn = Projection(4, 2, kind="ffn", depth=3, expansion=1.5, activation="relu", residual=True).double()
    a, b, c = (layer.weight for layer in ffn.maps)
    assert (a.shape, b.shape, c.shape) == ((6, 4), (6, 6), (2, 6))
    torch.testing.assert_close(ffn(x), F.relu(F.relu(x @ a.T) @ b.T) @ c.T + x @ ffn.skip.weight.T)
    glu = Projection(4, 2, kind="glu", activation="silu").double()
    a, c = (layer.weight for layer in glu.maps)
    assert a.shape == (8, 4)
    torch.testing.assert_close(glu(x), (F.silu(x @ a.T) * (x @ glu.gate.weight.T)) @ c.T)
    assert all(p.dim() == 2 for each in (linear, ffn, glu) for p in each.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature: expected a number above 0, got 0.0"),
        ({"projection": "mlp"}, "projection: expected 'linear', 'ffn' or 'glu', got 'mlp'"),
        ({"activation": "tanh"}, "activation: expected one of identity, relu, gelu, silu, got 'tanh'"),
        ({"depth": 1}, "depth: expected at least 2, got 1"),
        ({"expansion": 0.0}, "expansion: expected a number above 0, got 0.0"),
        ({"out_features": 0}, "out_features: expected at least 1, got 0"),
        ({"residual": True}, "residual: expected False where projection is 'linear', got True"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("colbert-projections", **({"in_features": 4, "num_classes": 3} | options))


def test_bad_calls():
    q, d, mask, query_mask = batch()
    head, target = create(), torch.arange(3)
    for call, words in [
        (lambda: head(q[..., :3], target, candidates=d), r"input: expected \(..., tokens, 4\), got \(3, 4, 3\)"),
        (lambda: head(q, target, candidates=d[..., :3]), r"candidates: expected \(..., 4\), got \(5, 6, 3\)"),
        (
            lambda: head(q, target, candidates=d, mask=mask[:3]),
            r"mask: expected bool \(5, 6\), got torch.bool \(3, 6\)",
        ),
        (lambda: head(q, target, candidates=d, query_mask=query_mask.long()), r"query_mask: expected bool \(3, 4\)"),
        (lambda: head(q, target, candidates=d, mask=mask & False), "mask: expected a token in each document"),
        (lambda: head(q, target + 3, candidates=d), r"target: expected classes in \[0, 5\) or -100, got 5"),
        (lambda: head(q[:, 0], target, query_mask=query_mask), "mask: expected None without documents"),
        (lambda: head(q[:, 0], target, candidates=d[0, :, :2]), r"candidates: expected \(count, 4\), got \(6, 2\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
