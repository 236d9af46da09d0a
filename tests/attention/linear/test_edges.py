"""Nothing to see, nothing at all, and numbers far from one."""

import pytest
import torch
from mechanism_cases import CASES, CAUSAL, DIM, HEADS, make, tokens

NAMES = {
    "flowformer",
    "galerkin-transformer",
    "inline-attention",
    "kernelized-attention-rpe",
    "l2vit",
    "mala",
    "nalaformer",
    "soft",
    "softhgnn",
    "softhgnn-ses",
}
VISION = {label: case for label, case in CASES.items() if case[0] in NAMES}


def forms(label):
    return [False, True] if label in CAUSAL else [False]


@pytest.mark.parametrize("label", VISION)
def test_a_sequence_of_padding_gives_zeros_and_zero_gradients(label):
    module, whole = make(VISION[label]), [x.requires_grad_() for x in tokens(5)]
    keep = torch.tensor([[False], [True]]).expand(2, 5)[:, None, None]
    for causal in forms(label):
        out = module(*whole, attn_mask=keep, is_causal=causal)
        assert (out[0] == 0).all()
        assert (out[1] != 0).any()
        for grad in torch.autograd.grad(out.sum(), whole):
            assert (grad[0] == 0).all()
            assert grad.isfinite().all()


@pytest.mark.parametrize("label", VISION)
def test_no_tokens_give_no_outputs(label):
    module = make(VISION[label])
    for causal in forms(label):
        assert module(*tokens(0), is_causal=causal).shape == (2, HEADS, 0, DIM)
        assert module(*tokens(1), is_causal=causal).isfinite().all()
    if label in CAUSAL:
        whole = tokens(6)
        _, state = module.prefill(*tokens(0))
        out, state = module.step(*whole, state)
        _, state = module.step(*tokens(0), state)
        expected, then = module.prefill(*whole)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
        for x, y in zip(state.tensors(), then.tensors(), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-10)


# Without normalisation exp of large products is infinite, which is why the paper of kernelized attention normalises.
BOUNDED = [label for label, case in VISION.items() if case[1].get("normalize", True)]


@pytest.mark.parametrize(
    ("label", "scale"),
    [(label, scale) for label in VISION for scale in (0.0, 1e-4, 100.0) if label in BOUNDED or scale < 1],
)
def test_small_and_large_numbers_stay_numbers(label, scale):
    module, whole = make(VISION[label]).float(), [(scale * x.float()).requires_grad_() for x in tokens(6)]
    for causal in forms(label):
        out = module(*whole, is_causal=causal)
        assert out.isfinite().all()
        for grad in torch.autograd.grad(out.sum(), whole):
            assert grad.isfinite().all()


@pytest.mark.parametrize("label", VISION)
def test_what_is_no_number_stays_in_its_sequence(label):
    module, (query, key, value) = make(VISION[label]), tokens(6)
    value[0, 1, 2] = torch.nan
    for causal in forms(label):
        out = module(query, key, value, is_causal=causal)
        assert out[0, 1, 2].isnan().any()
        assert out[1].isfinite().all()
