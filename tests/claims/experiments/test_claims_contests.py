"""What contests of mechanisms share, where the answer is known."""

import math

import pytest
import torch

from manymax.claims.claim import Untestable
from manymax.claims.experiments import contests, costs, flowformer, inline_attention, l2vit, softhgnn
from manymax.claims.experiments.burgers import SOLVED, Burgers, functions, resample, solve
from manymax.claims.experiments.kernelized_attention_rpe import Operations
from manymax.data.modular import Modular
from manymax.data.triples import Triples
from manymax.models.gpt import GPT
from manymax.models.vit import ViT


def quiet(share, doing):
    pass


def learnt(loss):
    return contests.Learnt(None, loss, 0.0)


def test_a_gap_that_is_left():
    runs = {"softmax": learnt(2.0), "linear": learnt(3.0), "ours": learnt(2.4)}
    assert contests.gap_ratio(runs, "ours", "linear") == pytest.approx(0.4)
    assert contests.gap_ratio(runs, "ours", "softmax") == math.inf


def test_contenders_start_alike_and_see_the_same_batches():
    numbers = {"steps": 3, "warmup": 1, "batch_size": 4, "learning_rate": 0.01}
    started = []

    def make(attention):
        started.append(GPT(6, num_classes=5, depth=1, attention=attention))
        return started[-1]

    runs = contests.contest({"a": "softmax", "b": "softmax", "c": "relu"}, Modular(5, 0.6), make, 3, numbers, quiet)
    assert runs["a"].loss == runs["b"].loss != runs["c"].loss
    assert not runs["a"].model.training
    assert 0 <= runs["a"].quality <= 1


def test_digits_need_scikit_learn(monkeypatch):
    def missing(module, extra):
        raise ImportError(f"{module} is not installed")

    monkeypatch.setattr("manymax.data.digits.require", missing)
    assert contests.on_digits({"a": "softmax"}, 0, {}, quiet) == Untestable("sklearn.datasets is not installed")
    numbers = {"time": {"width": 2, "lengths": [4, 8], "rounds": 1, "seconds": 0.0}, "side": 4}
    found = l2vit.run(0, numbers, quiet)
    assert isinstance(found["entropy_ratio"], Untestable)
    assert set(found) > {"slope_distance"}


def test_rows_of_weights_and_their_entropy():
    query, key = torch.randn(2, 2, 3, 7, 4).unbind()

    def attend(query, key, value):
        return torch.softmax(query @ key.transpose(2, 3), -1) @ value

    found = contests.rows(attend, query, key)
    torch.testing.assert_close(found, torch.softmax(query @ key.transpose(2, 3), -1))
    even = torch.tensor([[1.0, 1, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]])
    assert contests.row_entropy(even) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_what_a_model_attends_to_is_seen_turned():
    model = GPT(9, depth=2, width=64)
    calls = contests.seen(model, torch.zeros(2, 5, dtype=torch.int64))
    assert [query.shape for query, _ in calls] == [(2, 2, 5, 32)] * 2
    query = calls[0][0]
    assert not torch.allclose(query[:, :, 0], query[:, :, 1])  # one token, two positions
    assert len(contests.seen(model, torch.zeros(1, 1, dtype=torch.int64))) == 2  # and nothing is recorded twice


def test_slopes_and_ranks():
    sizes = [1.0, 2, 4, 8]
    assert costs.slope(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    x = torch.tensor([0.1, 0.5, 2.0, 9.0])
    assert contests.ranks_agree(x, x**3) == pytest.approx(1.0)
    assert contests.ranks_agree(x, -x) == pytest.approx(-1.0)
    assert contests.ranks_agree(x, torch.tensor([2.0, 1, 3, 4])) == pytest.approx(0.8)


def test_times_are_of_one_thread_and_their_slope_is_taken(monkeypatch):
    seen = []

    def best_times(works, rounds, seconds):
        seen.append((torch.get_num_threads(), rounds, seconds))
        return [float(work()) for work in works]

    threads = torch.get_num_threads()
    monkeypatch.setattr(costs, "best_times", best_times)
    assert costs.time_slope(lambda n: lambda: n**2, [2, 4, 8], 5, 0.1) == pytest.approx(2.0)
    assert seen == [(1, 5, 0.1)]
    assert torch.get_num_threads() == threads


def test_operations_are_counted():
    x = torch.ones(3, 5)
    assert costs.flops(lambda: x @ torch.ones(5, 7)) == 2 * 3 * 5 * 7
    with Operations() as counter:
        torch.fft.irfft(torch.fft.rfft(torch.ones(3, 16)), n=16) * 2
    assert counter.count == 2 * 2.5 * 3 * 16 * 4 + 3 * 16
    ratio = inline_attention.flop_ratio(0, tokens=64, width=4)
    assert ratio == pytest.approx((4 * 4**2 + 2 * 4) / (4 * 64 * 4))  # both products, and one with the mean of keys


def test_spikes_of_gradients():
    model = torch.nn.Linear(1, 1, bias=False)
    norms = contests.GradientNorms(model)
    for scale in (1.0, 1.0, 2.9, 3.1, 1.0, math.nan, 1.0):
        model.weight.grad = None
        model(torch.tensor([[scale]])).sum().backward()
    assert [x**0.5 for x in norms.squares[:4]] == pytest.approx([1, 1, 2.9, 3.1])
    assert norms.spikes(3.0, 3) == 2  # 3.1 over a median of 1, and the one that is no number


def test_mechanisms_take_turns():
    options = {"image": (1, 4, 4), "num_classes": 3, "patch": 1, "depth": 3, "width": 32}
    factory = softhgnn.sets_last(3, num_edges=5)
    kinds = [type(b.attention.mechanism).__name__ for b in ViT(**options, attention=factory).blocks]
    assert kinds == ["DenseAttention", "DenseAttention", "SoftHGNN"]


def test_soft_sets_beside_attention_of_as_many_parameters():
    task = Triples(tokens=8, values=6, validation=8)
    options = {**task.model_options, "depth": 2, "width": 32}
    numbers = {"edges": 5, "steps": 2, "warmup": 1, "batch_size": 4, "learning_rate": 0.01}
    runs = softhgnn.beside_attention(options, task, 0, numbers, quiet)
    kinds = {
        name: [type(block.attention.mechanism).__name__ for block in run.model.blocks] for name, run in runs.items()
    }
    assert kinds == {
        "both": ["DenseAttention", "SoftHGNN"],
        "attention": ["DenseAttention", "DenseAttention"],
        "sets": ["SoftHGNN", "SoftHGNN"],
    }
    assert runs["both"].model.blocks[1].attention.mechanism.num_edges == 5
    sizes = {name: softhgnn.parameters(run.model) for name, run in runs.items()}
    assert abs(sizes["both"] - sizes["attention"]) <= 3 * 32 * 2 / 2  # one more of `hidden` in each block
    assert sizes["sets"] > sizes["both"]
    made = {
        name: contests.Learnt(None, 0.0, quality)
        for name, quality in {"both": 0.75, "attention": 0.5, "sets": 0.25}.items()
    }
    assert softhgnn.points(made) == {"points_of_sets": 25, "attention_accuracy": 50, "points_of_sets_alone": -25}


def test_balance_is_part_of_the_loss():
    options = {"image": (1, 4, 4), "num_classes": 3, "patch": 1, "depth": 1, "width": 32}
    model = ViT(**options, attention=softhgnn.sets_last(1, num_edges=1, num_dynamic=5, top_k=2))
    images, targets = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    plain, balanced = softhgnn.Balanced(model, 0.0), softhgnn.Balanced(model, 2.0)
    term = float(balanced(images, targets).detach()) - float(plain(images, targets).detach())
    assert term == pytest.approx(2 * float(balanced.mechanism.load_balance(*balanced.tokens).detach()), rel=1e-3)
    used = balanced.mechanism.participation(*balanced.tokens)[:, :, 1:].amax(1) > 0
    shares = used.double().mean(0) / 2
    assert softhgnn.usage_entropy(balanced, images) == pytest.approx(float(torch.special.entr(shares).sum()))


def test_flows_of_all_pairs_are_conserved():
    query, key, value = torch.randn(3, 1, 1, 11, 6, dtype=torch.float64).unbind()
    assert flowformer.all_pairs(query, key, value)[1] == pytest.approx(11, abs=1e-3)


def test_burgers_is_solved():
    # Cole and Hopf: u = -2 nu (log phi)_x with phi_t = nu phi_xx; here phi = 2 + cos(2 pi x) at the start.
    viscosity, x = 0.1, torch.arange(SOLVED, dtype=torch.float64) / SOLVED

    def exact(time):
        fade = math.exp(-viscosity * (2 * math.pi) ** 2 * time)
        slope = -2 * math.pi * fade * (2 * math.pi * x).sin()
        return (-2 * viscosity * slope / (2 + fade * (2 * math.pi * x).cos()))[None]

    torch.testing.assert_close(solve(exact(0), viscosity, 200), exact(1), rtol=0, atol=1e-9)
    assert solve(3 * exact(0), viscosity, 200).sub(exact(1)).abs().max() > 1e-3


def test_functions_on_other_points_are_the_same_functions():
    task, finer = Burgers(points=192, count=3, tested=2), Burgers(points=384, count=3, tested=2)
    for split in ("train", "validation"):
        for coarse, fine in zip(task.examples(split), finer.examples(split), strict=True):
            torch.testing.assert_close(fine[:, ::2], coarse, rtol=0, atol=1e-4)
    start = functions(400, torch.Generator().manual_seed(0))
    first = torch.fft.rfft(start)[:, 1] / SOLVED * 2  # of the first wave: cosine less i sine
    expected = 25 * 2**0.5 / ((2 * math.pi) ** 2 + 25)
    assert float(first.real.std()) == pytest.approx(expected, rel=0.15)
    assert start.mean(1).abs().max() < 1e-12
    wave = (2 * math.pi * torch.arange(8) / 8).sin()[None].double()
    torch.testing.assert_close(resample(wave, 16)[:, ::2], wave)
