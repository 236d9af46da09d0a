import math
import time

import pytest
import torch

from manymax.compare import length, rounds, speed
from manymax.compare.jobs import Order
from manymax.compare.length import crossover
from manymax.compare.memory import peak_memory
from manymax.compare.reading import from_mapping
from manymax.compare.rounds import noise_floor, play, speed_ratio
from manymax.compare.subject import Subject

PLAN = from_mapping(
    {
        "candidates": ["relu", "sigmoid"],
        "task": "text:length=16",
        "batch_size": 2,
        "model": {"depth": 1},
        "lengths": [16, 64],
    }
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def order(kind, candidates=("softmax", "relu"), allowance=0.2, plan=PLAN):
    return Order(plan.as_mapping(), kind, allowance=allowance, candidates=list(candidates))


def test_rounds_hold_everyone_once_in_changing_order():
    played = []
    seconds = play([lambda i=i: played.append(i) for i in range(3)], 60.0, "cpu")
    assert [len(one) for one in seconds] == [rounds.MOST] * 3
    in_rounds = [played[i : i + 3] for i in range(0, len(played), 3)]
    assert all(sorted(one) == [0, 1, 2] for one in in_rounds)
    assert in_rounds[:4] == [[0, 1, 2], [0, 2, 1], [2, 0, 1], [2, 1, 0]]
    assert len({tuple(one) for one in in_rounds}) == 6


def test_rounds_end_with_the_time_but_there_are_some():
    seconds = play([lambda: time.sleep(0.01)], 0.0, "cpu")
    assert len(seconds[0]) == rounds.FEWEST
    assert all(0.01 <= one < 10 for one in seconds[0])


def test_ratios_are_paired_by_round():
    assert speed_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]) == (2.0, 2.0, 2.0)
    assert speed_ratio([1.0, 1.0, 1.0], [1.0, 2.0, 4.0]) == (0.25, 0.5, 1.0)


def test_the_noise_floor_is_how_far_equals_seem_to_differ():
    assert noise_floor([1.0, 1.0, 1.0], [1.0, 1.0, 1.25]) == pytest.approx(0.2)
    assert noise_floor([1.0, 1.3, 1.0], [1.0, 1.0, 1.0]) == pytest.approx(0.3)


def test_speed_measures_training_and_generation(served):
    told = []
    metrics = speed.perform(order("speed"), Subject(PLAN), told.append)["metrics"]
    assert metrics["rounds"] >= rounds.FEWEST
    assert metrics["noise_floor"] >= 0
    assert told[-1] == pytest.approx(1.0)
    assert list(metrics["candidates"]) == ["softmax", "relu"]
    for result in metrics["candidates"].values():
        assert (result["status"], result["message"]) == ("ok", "")
        assert result["train_tokens_per_second"] > 0
        assert result["generate_tokens_per_second"] > 0
        low, middle, high = result["train_ratio"]
        assert 0 < low <= middle <= high
    assert metrics["candidates"]["softmax"]["train_ratio"] == (1.0, 1.0, 1.0)
    assert metrics["candidates"]["softmax"]["backend"] == served("sdpa")
    assert metrics["candidates"]["relu"]["backend"] == served("reference")
    width = PLAN.model["depth"] * 32  # of keys, and of values, in float32
    assert metrics["candidates"]["relu"]["state_bytes"] == [[8, 8 * 2 * width * 4], [16, 16 * 2 * width * 4]]


def test_a_recurrence_keeps_as_much_of_many_tokens_as_of_few(served):
    plan = from_mapping({"task": "text:length=16", "batch_size": 2, "model": {"depth": 1}, "candidates": ["linear"]})
    contest = order("speed", plan=plan, candidates=("softmax", "linear"))
    result = speed.perform(contest, Subject(plan), lambda _: None)["metrics"]["candidates"]["linear"]
    assert result["backend"] == served("chunked")
    (few, small), (many, large) = result["state_bytes"]
    assert (few, many) == (8, 16)
    assert small == large > 0


def test_tokens_per_second_count_tokens(monkeypatch):
    monkeypatch.setattr(speed, "play", lambda contestants, allowance, device: [[0.5, 0.25, 1.0] for _ in contestants])
    metrics = speed.perform(order("speed"), Subject(PLAN), lambda _: None)["metrics"]
    result = metrics["candidates"]["relu"]
    assert result["train_tokens_per_second"] == 2 * 16 / 0.5
    assert result["generate_tokens_per_second"] == 2 * 8 / 0.5
    assert metrics["noise_floor"] == 0
    assert metrics["rounds"] == 3


def test_generation_is_left_out_where_there_is_nothing_to_generate():
    plan = from_mapping({"task": "digits", "batch_size": 2, "model": {"depth": 1}, "candidates": ["relu"]})
    metrics = speed.perform(order("speed", plan=plan), Subject(plan), lambda _: None)["metrics"]
    assert metrics["candidates"]["relu"]["generate_ratio"] is None
    assert metrics["candidates"]["relu"]["generate_tokens_per_second"] is None
    assert metrics["candidates"]["relu"]["train_ratio"] is not None


def test_a_candidate_without_a_cache_trains_but_does_not_generate(monkeypatch):
    subject = Subject(PLAN)
    model = subject.model

    def without(label, seed):
        built = model(label, seed)
        if label == "relu":
            monkeypatch.setattr(built.blocks[0].attention.mechanism, "step", _refuse)
        return built

    monkeypatch.setattr(subject, "model", without)
    metrics = speed.perform(order("speed"), subject, lambda _: None)["metrics"]
    assert metrics["candidates"]["relu"]["status"] == "ok"
    assert metrics["candidates"]["relu"]["generate_ratio"] is None
    assert metrics["candidates"]["softmax"]["generate_ratio"] is not None


def _refuse(*args, **kwargs):
    raise ValueError("cannot")


def test_a_candidate_that_fails_does_not_stop_the_others(monkeypatch):
    subject = Subject(PLAN)
    model = subject.model
    monkeypatch.setattr(subject, "model", lambda label, seed: _refuse() if label == "relu" else model(label, seed))
    candidates = speed.perform(order("speed", ["softmax", "relu", "sigmoid"]), subject, lambda _: None)["metrics"][
        "candidates"
    ]
    assert candidates["relu"]["status"] == "unsupported"
    assert candidates["relu"]["message"] == "cannot"
    assert candidates["relu"]["train_ratio"] is None
    assert candidates["sigmoid"]["train_ratio"] is not None


def test_length_measures_time_memory_and_backends(served):
    told = []
    metrics = length.perform(order("length"), Subject(PLAN), told.append)["metrics"]
    assert metrics["lengths"] == [16, 64]
    assert told == [0.5, 1.0]
    for result in metrics["candidates"].values():
        assert result["status"] == "ok"
        assert all(seconds > 0 for seconds in result["seconds"])
        assert all(peak >= 0 for peak in result["peak_bytes"])
    assert metrics["candidates"]["softmax"]["backend"] == [served("sdpa")] * 2
    assert metrics["candidates"]["relu"]["backend"] == [served("reference")] * 2
    assert set(metrics["crossover"]) == {"relu"}


def test_length_leaves_out_what_would_take_too_long(monkeypatch):
    def play(contestants, allowance, device):
        return [[10.0] for _ in contestants]

    monkeypatch.setattr(length, "play", play)
    metrics = length.perform(order("length"), Subject(PLAN), lambda _: None)["metrics"]
    assert metrics["candidates"]["relu"]["seconds"] == [10.0, None]
    assert metrics["candidates"]["relu"]["peak_bytes"][1] is None
    assert metrics["candidates"]["relu"]["status"] == "ok"


def test_longer_lengths_get_more_time(monkeypatch):
    allowances = []

    def play(contestants, allowance, device):
        allowances.append(allowance)
        return [[1e-3, 1e-3] for _ in contestants]

    monkeypatch.setattr(length, "play", play)
    length.perform(order("length", allowance=1000.0), Subject(PLAN), lambda _: None)
    assert allowances == pytest.approx([100, 1000 * 16 / 80, 1000], rel=0.1)  # the control; then all that is left


def test_a_mechanism_that_fails_at_a_length_says_so(monkeypatch):
    call = length.Lengths.call

    def breaks(self, module, inputs):
        if module.map.name == "relu" and inputs[0].shape[2] == 64:
            raise MemoryError("too long")
        call(self, module, inputs)

    monkeypatch.setattr(length.Lengths, "call", breaks)
    metrics = length.perform(order("length"), Subject(PLAN), lambda _: None)["metrics"]
    relu = metrics["candidates"]["relu"]
    assert (relu["status"], relu["message"]) == ("out of memory", "too long")
    assert relu["seconds"][0] is not None
    assert relu["seconds"][1] is None
    assert metrics["candidates"]["softmax"]["seconds"][1] is not None


@pytest.mark.parametrize(
    ("baseline", "candidate", "expected"),
    [
        ([1, 1, 1], [2, 1, 0.5], 256),
        ([1, 1, 1], [0.5, 0.5, 0.5], 128),
        ([1, 1, 1], [0.5, 2, 2], None),
        ([1, 1, 1], [0.5, 2, 0.5], 512),
        ([1, 1, None], [2, 0.5, 0.1], 256),
        ([1, 1, 1], [None, None, None], None),
        ([1, 1, 1], [2, 1, None], 256),
    ],
)
def test_crossovers(baseline, candidate, expected):
    assert crossover([128, 256, 512], baseline, candidate) == expected


def test_peak_memory_counts_what_is_freed_again_and_nothing_from_before():
    # Blocks above 32 MiB, glibc's largest mmap threshold, go back to the system when freed; smaller ones may stay.
    before = torch.ones(16 << 20)
    with peak_memory() as peak:
        torch.ones(12 << 20).sum()
        torch.ones(10 << 20).sum()
    assert peak.bytes == pytest.approx(48 << 20, rel=0.1)
    assert before[0] == 1
    with peak_memory() as again:
        pass
    assert again.bytes < 4 << 20


def test_attention_inputs_are_the_same_for_all():
    lengths = length.Lengths(Subject(PLAN))
    one, other = lengths.inputs(16), lengths.inputs(16)
    assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
    assert one[0].shape == (1, 1, 16, 32)
    assert not torch.equal(one[0], one[1])
    assert math.isfinite(one[0].sum())
