import pytest
import torch
import torch.nn.functional as F

import manymax as mm


def make(combine="additive", **options):
    torch.manual_seed(0)
    head = mm.create_head("pointer-networks", in_features=6, num_classes=3, combine=combine, **options).double()
    x, memory = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    return head, x, memory, torch.randint(5, (2, 4))


def by_hand(head, x, memory):
    """Loops over sequences, tokens and positions."""

    def score(e, h):
        return e @ h if head.combine == "dot" else head.v @ torch.tanh(head.key.weight @ e + head.query.weight @ h)

    pairs = zip(x, memory, strict=True)
    return torch.stack([torch.stack([torch.stack([score(e, h) for e in es]) for h in hs]) for hs, es in pairs])


@pytest.mark.parametrize("combine", ["additive", "dot"])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_scores_losses_and_gradients_over_memory(combine, chunk_size):
    head, x, memory, target = make(combine, chunk_size=chunk_size)
    target[0, 1] = -100
    x.requires_grad_()
    memory.requires_grad_()
    expected = by_hand(head, x, memory)
    torch.testing.assert_close(head.logits(x, memory=memory), expected)
    loss = head(x, target, memory=memory)
    wanted = F.cross_entropy(expected.flatten(0, 1), target.flatten())
    torch.testing.assert_close(loss, wanted)
    leaves = [x, memory, *([] if combine == "dot" else [head.v, head.key.weight, head.query.weight])]
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(wanted, leaves))
    head.reduction = "none"
    assert head(x, target, memory=memory)[0, 1] == 0


def test_a_mask_hides_positions_for_all_tokens_or_for_some():
    head, x, memory, target = make()
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    scores = head.logits(x, memory=memory, mask=mask)
    torch.testing.assert_close(scores, head.logits(x, memory=memory).masked_fill(~mask[:, None], -torch.inf))
    torch.testing.assert_close(head.logits(x, memory=memory, mask=mask[:, None].expand(2, 4, 5)), scores)
    target = scores.argmax(-1)
    expected = F.cross_entropy(scores.flatten(0, 1), target.flatten())
    torch.testing.assert_close(head(x, target, memory=memory, mask=mask), expected)
    with pytest.raises(ValueError, match="target: expected positions that the mask keeps, got 2"):
        head(x, target.fill_(2), memory=memory, mask=mask)


def test_as_many_positions_as_there_are():
    head, x, memory, _ = make()
    head(x, torch.full((2, 4), 99), memory=torch.randn(2, 100, 6, dtype=torch.float64)).backward()
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 5\) or -100, got 5"):
        head(x, torch.full((2, 4), 5), memory=memory)
    with pytest.raises(ValueError, match="memory: expected"):
        head.logits(x, memory=memory[:1])
    with pytest.raises(ValueError, match="mask: expected bool, beside memory"):
        head.logits(x, mask=torch.ones(2, 3, dtype=torch.bool))


def test_without_memory_the_rows_are_the_positions():
    head, x, _, _ = make()
    torch.testing.assert_close(head.logits(x), by_hand(head, x, head.weight.expand(2, -1, -1)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"combine": "general"}, "combine: expected 'additive' or 'dot'"),
        ({"hidden": 0}, "hidden: expected at least 1"),
        ({"hidden": 3, "combine": "dot"}, "hidden: expected at least 1, or None with combine='dot'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        mm.create_head("pointer-networks", in_features=3, num_classes=5, **options)
