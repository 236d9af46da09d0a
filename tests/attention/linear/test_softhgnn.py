"""SoftHGNN against its formula, and the selection of sets."""

import pytest
import torch
import torch.nn.functional as F
from mechanism_cases import DIM, HEADS, make, tokens

EXACT = {"rtol": 0, "atol": 1e-10}
SPARSE = {"num_edges": 2, "num_dynamic": 9, "top_k": 3}


def scores(module, query, key):
    """Scores of each token and set as the mean over heads of scaled products."""
    mean, largest = key.mean(2).flatten(1), key.max(2).values.flatten(1)
    context = F.linear(torch.cat([mean, largest], 1), module.context.weight, module.context.bias)
    prototypes = module.prototypes + context.unflatten(1, module.prototypes.shape)
    heads = prototypes.unflatten(2, (HEADS, DIM)).transpose(1, 2)
    return (query @ heads.transpose(2, 3) / DIM**0.5).mean(1)


@pytest.mark.parametrize("over", ["nodes", "edges"])
def test_sets_change_sums_and_give_them_back(over):
    module, (query, key, value) = make(("softhgnn", {"num_edges": 5, "over": over})), tokens(9)
    share = torch.softmax(scores(module, query, key), {"nodes": 1, "edges": 2}[over])
    torch.testing.assert_close(module.participation(query, key), share, **EXACT)
    flat = value.transpose(1, 2).flatten(2)
    sets = F.gelu(torch.einsum("bne,bnd->bed", share, flat) @ module.edge.weight.T + module.edge.bias)
    out = F.gelu(share @ sets @ module.node.weight.T + module.node.bias)
    expected = out.unflatten(2, (HEADS, DIM)).transpose(1, 2)
    torch.testing.assert_close(module(query, key, value), expected, **EXACT)
    assert torch.linalg.matrix_rank(share @ share.transpose(1, 2)).max() <= 5


def test_the_best_dynamic_sets_take_part_beside_the_fixed_ones():
    module, (query, key, _) = make(("softhgnn-ses", SPARSE)), tokens(12, batch=3)
    found, every = module.participation(query, key), scores(module, query, key)
    for b in range(3):
        total = every[b].sum(0)[2:]
        best = sorted(range(9), key=lambda e: -total[e])[:3]
        kept = [0, 1, *sorted(2 + e for e in best)]
        expected = torch.zeros(12, 11, dtype=torch.float64)
        expected[:, kept] = torch.softmax(every[b][:, kept], 1)
        torch.testing.assert_close(found[b], expected, **EXACT)


def test_padding_changes_no_selection():
    module, whole = make(("softhgnn-ses", SPARSE)), tokens(6)
    whole[1].sub_(5)  # so that zeros at padding would be the largest
    padded = [F.pad(x, (0, 0, 1, 2), value=50.0) for x in whole]
    keep = F.pad(torch.ones(1, 1, 1, 6, dtype=torch.bool), (1, 2))
    out = module(*padded, attn_mask=keep)
    torch.testing.assert_close(out[:, :, 1:7], module(*whole), **EXACT)
    assert (out[:, :, 0] == 0).all()
    assert (module(*whole, attn_mask=torch.zeros(1, 6, dtype=torch.bool)) == 0).all()


def test_load_balance_is_that_of_the_selections_and_evens_them():
    module, (query, key, _) = make(("softhgnn-ses", SPARSE)), tokens(12, batch=32)
    chosen = (module.participation(query, key)[:, :, 2:] > 0).any(1).double().mean(0)
    loss = module.load_balance(query, key)
    assert float(loss.detach()) == pytest.approx(float((chosen - 3 / 9).square().mean()), abs=1e-12)
    optimizer = torch.optim.SGD(module.parameters(), lr=3.0)
    for _ in range(60):
        optimizer.zero_grad()
        module.load_balance(query, key).backward()
        optimizer.step()
    assert module.load_balance(query, key) < 0.5 * loss
    with pytest.raises(ValueError, match="num_dynamic: expected more than 0"):
        make(("softhgnn", {})).load_balance(query, key)


def test_scores_are_dropped_in_training_alone():
    module, whole = make(("softhgnn", {"dropout": 0.5})), tokens(9)
    assert not torch.equal(module(*whole), module(*whole))
    torch.testing.assert_close(module.eval()(*whole), make(("softhgnn", {}))(*whole), **EXACT)


def test_wrong_options():
    with pytest.raises(ValueError, match="num_edges: expected at least one set, got 0"):
        make(("softhgnn", {"num_edges": 0}))
    with pytest.raises(ValueError, match="top_k: expected 1 to num_dynamic=4, got 5"):
        make(("softhgnn", {"num_dynamic": 4, "top_k": 5}))
    with pytest.raises(ValueError, match="over: expected one of nodes, edges, got 'heads'"):
        make(("softhgnn", {"over": "heads"}))
