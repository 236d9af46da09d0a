"""What every head obeys, whatever its loss."""

import copy
import pickle

import pytest
import torch
from head_cases import CASES, make

import manymax as mm

each_case = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{o}" for n, o in CASES])


def loss_and_gradients(head, x, target, direction=None):
    """Return the loss and the gradients of features and parameters, in the direction given for losses of tokens."""
    x = x.clone().requires_grad_()
    loss = head(x, target)
    loss.backward(direction if loss.dim() else None)
    gradients = {key: p.grad for key, p in head.named_parameters() if p.grad is not None}
    return loss.detach(), {"input": x.grad, **gradients}


@each_case
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradients_are_those_of_finite_differences(name, options, reduction):
    head, x, target = make(name, options, shape=(5,), reduction=reduction)
    target[1] = -100
    names = [key for key, p in head.named_parameters() if p.requires_grad]

    def loss(x, *parameters):
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (x, target))

    leaves = [x, *(dict(head.named_parameters())[key].detach() for key in names)]
    assert torch.autograd.gradcheck(loss, [leaf.clone().requires_grad_() for leaf in leaves])


@each_case
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_chunks_change_nothing(name, options, reduction):
    whole, x, target = make(name, options, reduction=reduction)
    target[0, 1] = -100
    direction = torch.rand(target.shape, dtype=x.dtype)
    expected = loss_and_gradients(whole, x, target, direction)
    for size in (1, 5):
        head = copy.deepcopy(whole)
        head.zero_grad()
        head.chunk_size = size
        torch.testing.assert_close(loss_and_gradients(head, x, target, direction), expected, rtol=1e-11, atol=1e-12)
        assert torch.equal(head.predict(x), whole.predict(x))
        torch.testing.assert_close(head.nll(x, target), whole.nll(x, target))


@each_case
def test_a_head_is_pickled_and_copied_whole(name, options):
    head, x, target = make(name, options)
    losses = []
    for one in (head, pickle.loads(pickle.dumps(head)), copy.deepcopy(head)):
        torch.manual_seed(1)  # some draw classes
        losses.append(one(x, target))
        assert torch.equal(one.predict(x), head.predict(x))
    assert torch.equal(losses[1], losses[0])
    assert torch.equal(losses[2], losses[0])


@each_case
def test_reductions_agree(name, options):
    head, x, target = make(name, options, reduction="none")
    target[2, 2] = -100
    losses = head(x, target)
    assert losses.shape == target.shape
    assert losses[2, 2] == 0
    kept = target != -100
    term = head.term(head.scored(x)._replace(input=head.scored(x).input[kept]), target[kept])
    term = 0 if term is None else term
    head.reduction = "sum"
    torch.testing.assert_close(head(x, target), losses.sum() + term)
    head.reduction = "mean"
    torch.testing.assert_close(head(x, target), losses.sum() / (target.numel() - 1) + term)


@each_case
@pytest.mark.parametrize("ignored", [-100, 3])
def test_ignored_tokens_take_no_part(name, options, ignored):
    head, x, target = make(name, options, shape=(8,), ignore_index=ignored)
    target[target == ignored] = 2
    target[[1, 6]] = ignored
    kept = target != ignored
    expected = loss_and_gradients(head, x[kept], target[kept])
    x[~kept] = torch.nan
    head.zero_grad()
    loss, gradients = loss_and_gradients(head, x, target)
    assert (gradients["input"][~kept] == 0).all()
    gradients["input"] = gradients["input"][kept]
    torch.testing.assert_close((loss, gradients), expected)


@each_case
def test_no_target_is_no_loss(name, options):
    head, x, target = make(name, options)
    loss, gradients = loss_and_gradients(head, x, torch.full_like(target, -100))
    assert torch.isfinite(loss)
    assert (gradients["input"] == 0).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@each_case
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_scores_have_finite_losses_and_gradients(name, options, scale):
    head, x, target = make(name, options, dtype=torch.float32)
    loss, gradients = loss_and_gradients(head, scale * x, target)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@each_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_losses_are_float32_and_near_float64(name, options, dtype):
    head, x, target = make(name, options, dtype=dtype, reduction="none")
    loss = head(x, target)
    assert loss.dtype == torch.float32
    assert head.logits(x).dtype == dtype
    exact = copy.deepcopy(head).double()
    tolerance = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
    expected = exact(x.double(), target).detach()
    torch.testing.assert_close(
        loss.detach().double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


@each_case
@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
def test_autocast_multiplies_in_bfloat16(name, options, features):
    head, x, target = make(name, options, dtype=torch.float32)
    x = x.to(features).requires_grad_()
    torch.manual_seed(3)  # of heads that draw
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head(x, target)
    assert loss.dtype == torch.float32
    loss.backward()
    assert x.grad.dtype == features
    assert all(p.grad is None or p.grad.dtype == p.dtype for p in head.parameters())
    torch.manual_seed(3)
    torch.testing.assert_close(loss, head(x.float(), target), rtol=8e-2, atol=8e-2)


@each_case
def test_probabilities_predictions_and_nll(name, options):
    head, x, target = make(name, options)
    target[0, 0] = -100
    scores = head.logits(x)
    assert scores.shape == (*target.shape, head.num_classes)
    logs = head.log_weights(scores)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(target.shape, dtype=torch.float64))
    assert torch.equal(head.predict(x), scores.argmax(-1))
    picked = -logs.gather(-1, target.clamp_min(0)[..., None])[..., 0]
    torch.testing.assert_close(head.nll(x, target), torch.where(target == -100, 0, picked))


@each_case
def test_a_call_changes_no_parameter(name, options):
    head, x, target = make(name, options)
    before = {key: p.detach().clone() for key, p in head.named_parameters()}
    head(x.requires_grad_(), target).backward()
    head.predict(x)
    torch.testing.assert_close(dict(head.named_parameters()), before, rtol=0, atol=0)


@each_case
def test_a_head_is_saved_and_loaded(name, options):
    head, x, target = make(name, options)
    other, _, _ = make(name, options, seed=1)
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other(x, target), head(x, target))


@each_case
def test_tokens_in_any_shape(name, options):
    head, x, target = make(name, options, reduction="none")
    torch.testing.assert_close(head(x.flatten(0, 1), target.flatten()).view(target.shape), head(x, target))
    if head.term(head.scored(x[:1, :1]).flat(), target[:1, 0]) is None:  # a term may join tokens
        torch.testing.assert_close(head(x[0, 0], target[0, 0]), head(x[:1, :1], target[:1, :1])[0, 0])


@each_case
def test_bad_targets_are_refused(name, options):
    head, x, target = make(name, options)
    with pytest.raises(ValueError, match=r"target: expected torch.int64 of shape \(3, 4\).*, got torch.int32"):
        head(x, target.int())
    with pytest.raises(ValueError, match=r"target: expected torch.int64 of shape \(3, 4\).*, got .* of shape \(3,\)"):
        head(x, target[:, 0])
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 7\) or -100, got 7"):
        head(x, target.index_fill(0, torch.tensor([0]), 7))
    with pytest.raises(ValueError, match=r"input: expected \(\.\.\., 6\), got \(3, 4, 5\)"):
        head(x[..., :5], target)


@pytest.mark.parametrize("name", mm.list_heads())
def test_options_that_all_heads_share_are_checked(name):
    for options, words in [
        ({"reduction": "max"}, "reduction: expected 'none', 'mean' or 'sum', got 'max'"),
        ({"chunk_size": 0}, "chunk_size: expected at least 1, got 0"),
        ({"num_classes": 0}, "num_classes: expected at least 1, got 0"),
        ({"in_features": 0}, "in_features: expected at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            mm.create_head(name, **({"in_features": 4, "num_classes": 3} | options))
    with pytest.raises(TypeError, match=f"{name} has no option 'colour'; it has"):
        mm.create_head(name, in_features=4, num_classes=3, colour=1)
