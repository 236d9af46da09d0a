"""NAtS-L token by token: what each part reads, what a choice changes, and what the state keeps."""

import pytest
import torch
from mechanism_cases import DIM, HEADS, largest_held, make, tokens
from torch.nn.functional import one_hot, silu

from manymax.attention.linear import kept

NAME = "nats-l"
EXACT = {"rtol": 0, "atol": 1e-9}
KEPT, WRITTEN = 0, 1


def prescribe(module, choice):
    """Make the module choose what is asked of each head."""
    module.choose.weight.data.zero_()
    chosen = one_hot(torch.tensor(choice), 2).double()

    def forced(value, complete):
        scores = chosen[None, :, None].expand(len(complete), -1, complete.shape[1], -1)
        return torch.where(complete[:, None, :, None], scores, 1)

    module._choice = forced
    return module


def by_tokens(module, query, key, value, choice, size):
    """The formula for one sequence, head by head and token by token; choice is (H, chunks)."""
    streams = module.streams(*module._convolve(query, key, value, None, None)[:3], None)
    outs = torch.zeros_like(value)
    for h in range(HEADS):
        state = torch.zeros(DIM, DIM, dtype=torch.float64)
        for t in range(query.shape[2]):
            chunk = t // size
            if t % size == 0:
                start = state
            q, k, v = streams.query[0, h, t], streams.key[0, h, t], streams.value[0, h, t]
            beta, alpha = streams.beta[0, h, t], streams.log_decay[0, h, t].exp()
            state = alpha * (state - beta * torch.outer(k, k @ state)) + beta * torch.outer(k, v)
            start = alpha * start
            seen = [j for j in range(t + 1) if j // size == chunk or choice[h][j // size] == KEPT]
            weights = (key[0, h, seen] @ query[0, h, t] / DIM**0.5).softmax(0)
            parts = [weights @ value[0, h, seen], state.T @ q]
            norms = [module.kept_norm.gain[h, 0], module.norm.gain[h, 0]]
            share = (q * DIM**0.5 @ module.share.weight[h]).softmax(0)
            for part, gain, s in zip(parts, norms, share, strict=True):
                outs[0, h, t] += s * gain * part / (part.square().mean() + 1e-5).sqrt()
            outs[0, h, t] *= silu(value[0, h, t] @ module.gate.linear.weight[h])
            if t % size == size - 1 and choice[h][chunk] == KEPT:
                state = start
    return outs


@pytest.mark.parametrize(("size", "count"), [(1, 17), (3, 17), (5, 17), (64, 17), (3, 150), (64, 150), (70, 150)])
def test_it_is_the_formula(size, count):
    module, whole = make((NAME, {"block_size": size})), tokens(count, batch=1)
    torch.nn.init.normal_(module.kept_norm.gain)
    means = [chunk.mean(2) for chunk in whole[2].split(size, 2)]
    choice = torch.stack([torch.einsum("hd,hdk->hk", x[0], module.choose.weight).argmax(-1) for x in means], 1)
    if size in {1, 3}:
        assert 0 < choice.sum() < choice.numel()
    with torch.no_grad():
        expected = by_tokens(module, *whole, choice.tolist(), size)
        torch.testing.assert_close(module(*whole, is_causal=True), expected, **EXACT)


def test_a_head_that_keeps_all_has_softmax_and_one_that_writes_all_has_gated_delta():
    query, key, value = tokens(14)
    module = prescribe(make((NAME, {"block_size": 3, "gate": False})), [KEPT, WRITTEN, KEPT, WRITTEN])
    module.share.weight.data.zero_()
    with torch.no_grad():
        softmax = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        module.norm.gain.zero_()
        kept = module(query, key, value, is_causal=True)
        torch.testing.assert_close(kept[:, ::2], 0.5 * module.kept_norm(softmax)[:, ::2], **EXACT)
        module.norm.gain.fill_(1)
        module.kept_norm.gain.zero_()
        delta = make(("gated-delta", {"gate": False}))
        delta.load_state_dict(module.state_dict(), strict=False)
        written = module(query, key, value, is_causal=True)
        torch.testing.assert_close(written[:, 1::2], 0.5 * delta(query, key, value, is_causal=True)[:, 1::2], **EXACT)


def test_the_state_holds_the_kept_chunks_alone():
    module = prescribe(make((NAME, {"block_size": 4})), [KEPT, WRITTEN, WRITTEN, KEPT])
    _, state = module.prefill(*tokens(30))
    assert state.key.shape[2] == 28
    assert state.keep[:, [0, 3]].all()
    assert not state.keep[:, [1, 2]].any()
    assert (state.count == 2).all()
    _, small = prescribe(make((NAME, {"block_size": 4})), [WRITTEN] * HEADS).prefill(*tokens(30))
    assert small.key.shape[2] == 0


def test_choices_are_learnt_straight_through():
    """The gradient of the choice's scores is what softmax gives at the gradient of the formula by its 0s and 1s."""
    module, whole = make((NAME, {"block_size": 3})), tokens(10)
    shape = (2, HEADS, 3, 2)
    weights = torch.randn(2, HEADS, 10, DIM, dtype=torch.float64)
    value = whole[2]
    means = torch.stack([x.mean(2) for x in value[:, :, :9].split(3, 2)], 2)
    scores = means @ module.choose.weight
    hard = one_hot(scores.argmax(-1), 2).double().requires_grad_()
    own = torch.ones(2, HEADS, 1, 2, dtype=torch.float64)
    choose, module._choice = module._choice, lambda value, complete: torch.cat([hard, own], 2)
    wanted = torch.autograd.grad((module(*whole, is_causal=True) * weights).sum(), hard)[0]
    assert wanted.shape == shape
    expected = torch.autograd.grad((scores.softmax(-1) * wanted).sum(), module.choose.weight)[0]
    module._choice = choose
    found = torch.autograd.grad((module(*whole, is_causal=True) * weights).sum(), module.choose.weight)[0]
    assert found.norm() > 1e-3
    torch.testing.assert_close(found, expected, **EXACT)


def test_choices_are_learnt_through_a_carried_state():
    grads = []
    for split in (None, 4, 9):
        module, whole = make((NAME, {"block_size": 3})), tokens(13)
        out = module(*whole, is_causal=True)
        if split is not None:
            first, state = module.prefill(*(x[:, :, :split] for x in whole))
            out = torch.cat([first, module.step(*(x[:, :, split:] for x in whole), state)[0]], 2)
        grads.append(torch.autograd.grad(out.square().sum(), module.choose.weight)[0])
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0], **EXACT)


@pytest.mark.parametrize("size", [1, 3])
def test_blocks_of_queries_change_no_result(monkeypatch, size):
    """One block is the formula's mask in full; more are merged. Sequences end in other blocks than one another."""
    keep = torch.arange(23) < torch.tensor([[23], [7]])
    found = []
    for rows in (64, 6, 1):
        monkeypatch.setattr(kept, "ROWS", rows)
        module, whole = make((NAME, {"block_size": size})), [x.requires_grad_() for x in tokens(27)]
        first, state = module.prefill(*(x[:, :, :23] for x in whole), attn_mask=keep[:, None, None])
        then, state = module.step(*(x[:, :, 23:] for x in whole), state)
        out = torch.cat([first * keep[:, None, :, None], then], 2)
        weights = torch.arange(out.numel()).reshape(out.shape).sin().double()
        grads = torch.autograd.grad((out * weights).sum(), [*whole, module.choose.weight])
        assert grads[3].norm() > 1e-3
        found.append([out, state.key, state.value, state.bias, *grads])
    for others in found[1:]:
        for mine, theirs in zip(others, found[0], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_gradients_through_blocks_are_those_of_differences(monkeypatch):
    monkeypatch.setattr(kept, "ROWS", 1)
    module, whole = make((NAME, {"block_size": 2})), [x.requires_grad_() for x in tokens(7, batch=1)]
    assert torch.autograd.gradcheck(lambda *x: module(*x, is_causal=True), whole, fast_mode=True)


@pytest.mark.parametrize("size", [4, 64])
def test_nothing_larger_than_tokens_and_a_block_is_ever_held(served, size):
    count, more = 500, 100
    largest, state = largest_held(make((NAME, {"block_size": size})).float(), count, more)
    wide = 4 * DIM + 2  # all that both parts read of a token
    assert state.key.shape[2] > 100
    block = 64 * (64 if served("reference") == "cpu" else count)  # without kernels, of all that is kept
    assert HEADS * count * wide <= largest <= HEADS * max((count + more) * wide, block)


def test_a_step_that_completes_no_chunk_does_not_copy_what_is_kept():
    module, whole = make((NAME, {"block_size": 4})), tokens(31)
    _, state = module.prefill(*(x[:, :, :28] for x in whole))
    _, same = module.step(*(x[:, :, 28:31] for x in whole), state)
    assert state.key.shape[2] > 0
    assert same.key.data_ptr() == state.key.data_ptr()


def test_wrong_options():
    with pytest.raises(ValueError, match="block_size: expected at least 1, got 0"):
        make((NAME, {"block_size": 0}))
