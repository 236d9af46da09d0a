"""The parts of the experiments of the diagnose room that can be checked by themselves."""

import pytest
import torch

import manymax as mm
from manymax.claims.experiments import ghosts_of_softmax, neural_collapse, systematic_outliers, vit_attention_analytics
from manymax.claims.experiments.attention_sink_metric import Weighed


def test_the_closed_form_is_where_the_loss_is_least():
    sizes, decay = [60, 25, 12, 3], 0.02
    total = sum(sizes)
    for n, square in zip(sizes, neural_collapse.lengths(sizes, decay), strict=True):
        # One class: w and n equal features h along one direction, on a fine grid of both.
        w = torch.linspace(0, 3, 601, dtype=torch.float64)[:, None]
        h = torch.linspace(0, 1.5, 601, dtype=torch.float64)
        loss = n * (1 - w * h) ** 2 / (2 * total) + decay / 2 * (w**2 + n * h**2)
        best = float(w[int(loss.argmin()) // 601])
        assert best**2 == pytest.approx(square, abs=0.03)
    assert square == 0


def test_weights_of_the_kinds():
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 3, 5, 8)
    made = {kind: Weighed(kind, head_dim=8, num_heads=3) for kind in ("softmax", "sigmoid", "normalised", "key_bias")}
    found = {kind: mechanism.weights(query, key) for kind, mechanism in made.items()}
    _, softmax = mm.attention(query, key, key, is_causal=True, return_weights=True)
    _, sigmoid = mm.attention(
        query, key, key, is_causal=True, return_weights=True, map=mm.create_map("sigmoid", bias=0.0)
    )
    torch.testing.assert_close(found["softmax"], softmax)
    torch.testing.assert_close(found["sigmoid"], sigmoid)
    torch.testing.assert_close(found["normalised"], sigmoid / sigmoid.sum(-1, keepdim=True))
    extra = torch.einsum("bhnd,hd->bhn", query, made["key_bias"].key) * 8**-0.5
    scores = (query @ key.mT * 8**-0.5).masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    total = scores.exp().sum(-1) + extra.exp()
    torch.testing.assert_close(found["key_bias"], scores.exp() / total[..., None])


def test_a_scale_that_has_learnt_nothing_is_softmax():
    numbers = {"depth": 1, "width": 32}
    tokens = torch.randint(256, (2, 7))
    torch.manual_seed(0)
    plain = systematic_outliers.make("softmax", numbers)
    torch.manual_seed(0)
    scaled = systematic_outliers.make(systematic_outliers.Scaled, numbers)
    for model in (plain, scaled):
        torch.manual_seed(1)
        torch.nn.init.normal_(model.blocks[0].attention.output.weight)
    torch.testing.assert_close(plain.logits(tokens), scaled.logits(tokens))
    with torch.no_grad():
        scaled.blocks[0].attention.mechanism.gate.bias.fill_(-50)  # a scale of 0
        plain.blocks[0].attention.output.weight.zero_()
    torch.testing.assert_close(plain.logits(tokens), scaled.logits(tokens))


def test_eight_bits_come_and_go():
    model = systematic_outliers.make("softmax", {"depth": 1, "width": 32})
    torch.nn.init.normal_(model.blocks[0].mlp.output.weight)
    weight = model.blocks[0].mlp.output.weight.detach().clone()
    with systematic_outliers.eight_bits(model):
        inside = model.blocks[0].mlp.output.weight.detach()
        assert len(inside.unique()) <= 255
        assert float((inside - weight).abs().max()) <= float(weight.abs().max()) / 254 * 1.001
    assert torch.equal(model.blocks[0].mlp.output.weight, weight)


def test_a_step_fails_if_the_loss_more_than_doubles():
    model = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0], [-2.0]]))
    x, labels, direction = torch.ones(1, 1), torch.tensor([0]), [torch.tensor([[-1.0], [1.0]])]
    loss = lambda gap: float(torch.nn.functional.softplus(torch.tensor(-gap)))
    for scale in (0.2, 0.3, 0.4, 1.0):
        wanted = loss(4 - 2 * scale) > 2 * loss(4.0)
        assert ghosts_of_softmax.fails(model, x, labels, direction, scale, 1.0) is wanted
    assert not ghosts_of_softmax.fails(model, x, labels, direction, 0.0, 1.0)


def test_the_top_quarter():
    importance = torch.tensor([[4.0, -3.0, 1.0, 1.0], [2.0, 1.0, 0.0, 1.0]])
    assert vit_attention_analytics.top_quarter(importance) == pytest.approx(6 / 10)
