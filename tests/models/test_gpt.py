from functools import partial

import pytest
import torch

import manymax as mm
from manymax.models.gpt import GPT

MAPS = ["softmax", "sigmoid", "entmax15", "softplus", "stablemax", "relu", "softmax1"]


def small(**options):
    torch.manual_seed(0)
    return GPT(17, **({"depth": 2, "width": 24, "num_heads": 4, "num_kv_heads": 2} | options))


class Greedy(torch.nn.Module):
    """A mechanism with parameters and a constructor that uses up random numbers."""

    def __init__(self, head_dim, num_heads):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(num_heads, head_dim, head_dim))

    def forward(self, query, key, value, *, attn_mask=None, is_causal=False):
        assert attn_mask is None
        assert is_causal
        return query @ self.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blocks_get_angles_in_the_dtype_of_the_model_and_float32_at_least(dtype):
    model, seen = small().to(dtype), []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[1].dtype))
    model.features(torch.zeros(1, 3, dtype=torch.int64))
    assert seen == [torch.promote_types(dtype, torch.float32)]


@pytest.mark.parametrize("attention", [*MAPS, Greedy, partial(mm.create_attention, "softmax", sinks=True)])
@pytest.mark.parametrize("head", ["softmax", "stablemax"])
def test_one_seed_gives_all_candidates_the_same_weights_and_first_function(attention, head, awake):
    torch.manual_seed(5)
    reference = GPT(17, depth=2)
    torch.manual_seed(5)
    model = GPT(17, depth=2, attention=attention, head=head)
    shared = reference.state_dict()
    own = {name: value for name, value in model.state_dict().items() if ".mechanism." not in name}
    assert own.keys() == shared.keys()
    assert all(torch.equal(value, own[name]) for name, value in shared.items())
    tokens = torch.randint(17, (2, 9))
    assert torch.equal(model.logits(tokens), reference.logits(tokens))
    assert not torch.equal(awake(model).logits(tokens), awake(reference).logits(tokens)) or attention == "softmax"


def test_another_seed_gives_other_weights_everywhere():
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(GPT(17, depth=2).state_dict())
    same = [name for name, value in states[0].items() if torch.equal(value, states[1][name])]
    assert all("norm" in name or name.endswith("output.weight") for name in same)


@pytest.mark.parametrize("attention", MAPS)
def test_causality(attention, awake):
    model = awake(small(attention=attention))
    x = model.embedding(torch.randint(17, (1, 7))).detach().requires_grad_()
    model.embedding = torch.nn.Identity()
    out = model.features(x)
    for i in range(7):
        (grad,) = torch.autograd.grad(out[0, i].square().sum(), x, retain_graph=True)
        assert bool((grad[0, i + 1 :] == 0).all())
        assert bool((grad[0, i] != 0).any())
    if attention == "softmax":
        assert bool((grad[0, 0] != 0).any())


def test_not_causal_sees_everything(awake):
    model = awake(small(causal=False))
    x = model.embedding(torch.randint(17, (1, 7))).detach().requires_grad_()
    model.embedding = torch.nn.Identity()
    (grad,) = torch.autograd.grad(model.features(x)[0, 0].square().sum(), x)
    assert bool((grad != 0).any(-1).all())
    assert not model.supports_cache


def test_coupled_maps_are_refused_unless_not_causal(awake):
    with pytest.raises(ValueError, match="attention: sinkhorn couples the rows, so that a token would see those after"):
        small(attention="sinkhorn")
    model = awake(small(attention="sinkhorn", causal=False))
    assert model.logits(torch.zeros(1, 5, dtype=torch.int64)).isfinite().all()


def test_loss_is_that_of_the_head_and_gradients_reach_every_parameter(awake):
    model = awake(small(num_classes=5))
    tokens, targets = torch.randint(17, (3, 8)), torch.randint(5, (3, 8))
    targets[0, :3] = -100
    logits = model.logits(tokens)
    assert logits.shape == (3, 8, 5)
    loss = model(tokens, targets)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in model.parameters())


def test_positions_matter_and_the_base_is_used(awake):
    tokens = torch.tensor([[3, 1, 2, 4]])
    model, other = awake(small()), awake(small(base=10.0))
    assert not torch.allclose(model.logits(tokens)[0, -1], model.logits(tokens[:, [1, 0, 2, 3]])[0, -1])
    assert not torch.allclose(model.logits(tokens), other.logits(tokens))


def test_sizes_reach_the_layers_and_embeddings_start_small():
    model = GPT(256, depth=3, num_kv_heads=1, hidden=50)
    assert 0.095 < float(model.embedding.weight.detach().std()) < 0.105
    assert model.embedding.weight.shape == (256, 96)
    assert model.head.weight.shape == (256, 96)
    assert len(model.blocks) == 3
    assert model.blocks[0].attention.query_key_value.weight.shape == (96 + 32 + 32, 96)
    assert model.blocks[0].mlp.output.weight.shape == (96, 50)


def test_norms_mlp_and_gate_are_chosen_for_every_block():
    model = small(norm="simple", mlp="sglu", gated=True)
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if "norm" in name]
    assert [block.mlp.units for block in model.blocks] == ["sglu", "sglu"]
    assert [name for name in names if "gate." in name] == [f"blocks.{i}.attention.gate.weight" for i in (0, 1)]


def test_a_head_of_ones_own():
    model = small(head=partial(mm.create_head, "softmax", label_smoothing=0.3, bias=True))
    assert model.head.label_smoothing == 0.3
    assert model.head.bias.shape == (17,)


def test_odd_head_dim():
    with pytest.raises(ValueError, match="num_heads: rotary positions need an even head_dim, got 3"):
        GPT(17, width=12, num_heads=4)
