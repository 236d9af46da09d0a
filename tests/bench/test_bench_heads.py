import json
import re
import xml.etree.ElementTree as ET

import pytest
import torch
import torch.nn.functional as F

from manymax import cli
from manymax.bench import layers
from manymax.bench.contender import Case
from manymax.bench.heads import HeadRow, lines, run_heads
from manymax.bench.heads_chart import chart
from manymax.bench.layers import HeadProblem, Trainer, trainers

PROBLEM = HeadProblem(classes=30, tokens=5, features=16)  # fewer leave nothing of torch's smallest cluster


def bench(capsys, *arguments):
    sizes = ["--tokens", "5", "--features", "16", "--seconds", "0.01", "--threads", "1"]
    code = cli.main(["bench", "heads", *sizes, *arguments])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def test_layers_are_timed_over_classes_drawn_and_written(capsys, tmp_path):
    json_file, chart_file = tmp_path / "heads.json", tmp_path / "folder" / "heads.svg"
    chosen = ["--heads", "softmax", "z-loss-spherical:b=2,loss=mse", "--classes", "40", "10"]
    out = bench(capsys, *chosen, "--json", str(json_file), "--chart", str(chart_file))
    assert re.findall(r"^(\d+) classes; A/A control: noise floor ", out, re.MULTILINE) == ["10", "40"]
    assert re.search(r"^TIME OF A STEP +10 +40 +GROWTH$", out, re.MULTILINE)
    assert len(re.findall(r"[\d.]+x$", out, re.MULTILINE)) == 5
    result = json.loads(json_file.read_text())
    assert [case["classes"] for case in result["cases"]] == [10, 40]
    assert result["settings"]["features"] == 16
    rows = result["cases"][1]["rows"]
    label = "z-loss-spherical:b=2,loss=mse"
    assert [(row["name"], row["map"], row["backend"]) for row in rows] == [
        ("torch", "softmax", ""),
        ("torch", "adaptive softmax", ""),
        ("manymax", "softmax", ""),
        ("manymax", label, "all scores"),
        ("manymax", label, "SphericalOutput"),
    ]
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["seconds"] > 0 and len(row["speed"]) == 3 and row["peak_bytes"] >= 0 for row in rows)
    document = ET.parse(chart_file).getroot()
    texts = [one.text for one in document.iter("{http://www.w3.org/2000/svg}text")]
    assert f"{label} (SphericalOutput)" in texts
    assert "Time of a training step" in texts


@pytest.mark.parametrize(
    "trainer",
    trainers(["softmax", "stablemax", "z-loss-spherical"]),
    ids=lambda one: f"{one.name}-{one.head}-{one.backend}",
)
def test_every_layer_s_step_learns_its_batch(trainer):
    step = trainer.make(PROBLEM)
    losses = torch.stack([step() for _ in range(300)])
    assert not losses.requires_grad
    assert losses[-1] < losses[0]


def test_steps_begin_at_the_formulas_of_the_same_weight():
    (x, target), weight = PROBLEM.batch(), PROBLEM.weight
    scores = (x @ weight.T).detach()
    found = {
        (one.head, one.name, one.backend): one.make(PROBLEM)() for one in trainers(["softmax", "z-loss-spherical"])
    }
    expected = F.cross_entropy(scores, target)
    torch.testing.assert_close(found["softmax", "torch", ""], expected)
    torch.testing.assert_close(found["softmax", "manymax", ""], expected)
    z = F.layer_norm(scores, (30,), eps=0.0).gather(1, target[:, None])[:, 0]
    expected = (F.softplus(0.1 * (10 - z)) / 0.1).mean()
    torch.testing.assert_close(found["z-loss-spherical", "manymax", "all scores"], expected)
    torch.testing.assert_close(found["z-loss-spherical", "manymax", "SphericalOutput"], expected)


def test_targets_are_as_frequent_as_words():
    _, target = HeadProblem(1000, 20_000, 1).batch()
    assert (target.min(), target.max() > 900) == (0, True)
    counts = target.bincount(minlength=1000).double()
    assert counts[0] / counts[8:10].mean() == pytest.approx(9.5, rel=0.3)  # log 2 beside log(1 + 1 / 9.5)


def test_a_wrong_loss_is_not_timed_and_an_error_is_a_status(monkeypatch):
    softmax = trainers(["softmax"])[0]

    def fails(problem):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    entrants = [
        softmax,
        Trainer("one", "wrong", softmax.make, lambda scores, target: torch.ones(len(target))),
        Trainer("two", "large", fails),
        Trainer("three", "nan", lambda problem: lambda: torch.tensor(torch.nan)),
    ]
    case = run_heads(PROBLEM, entrants, 0.001)
    assert [row.status for row in case.rows] == ["ok", "differs", "out of memory", "differs"]
    assert [row.seconds is None for row in case.rows] == [False, True, True, True]


def test_without_the_baseline_the_others_have_times_and_no_ratios():
    def fails(problem):
        raise MemoryError

    softmax = trainers(["softmax"])[0]
    case = run_heads(PROBLEM, [Trainer("torch", "softmax", fails), softmax], 0.001)
    assert case.noise_floor is None
    assert [row.status for row in case.rows] == ["out of memory", "ok"]
    assert case.rows[1].seconds > 0
    assert case.rows[1].speed is None
    assert run_heads(PROBLEM, [Trainer("torch", "softmax", fails)], 0.001).rounds == 0


def case_of(*seconds):
    rows = [HeadRow("manymax", f"h{i}", "way" if i else "", seconds=one, peak_bytes=0) for i, one in enumerate(seconds)]
    return Case(rows, 0.0, 3)


def test_lines_leave_out_what_was_not_measured():
    cases = [(10, case_of(1.0, 2.0)), (20, case_of(3.0, None))]
    assert list(lines(cases, "seconds")) == [("h0 (manymax)", [(10, 1.0), (20, 3.0)]), ("h1 (way)", [(10, 2.0)])]


def test_a_chart_needs_neither_memory_nor_all_times():
    drawn = chart([(10, case_of(1.0, 2.0, None)), (1_000_000, case_of(3.0, None, None))])
    document = ET.fromstring(drawn)
    groups = [one.get("id") for one in document.iter("{http://www.w3.org/2000/svg}g")]
    assert {"seconds-line-0", "seconds-line-1"} <= set(groups)
    assert "seconds-line-2" not in groups
    assert "1M" in drawn


def test_the_default_heads_are_those_for_many_classes(monkeypatch):
    monkeypatch.setattr(layers, "list_heads", lambda: ["arcface", "sampled-softmax", "softmax", "z-loss-spherical"])
    assert layers.default_heads() == ["softmax", "sampled-softmax", "z-loss-spherical"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "7"], "--classes: expected at least 8, got 7"),
        (["--classes", "10", "10"], "--classes: expected each number once, got 10 10"),
        (["--tokens", "0"], "--tokens: expected at least 1, got 0"),
        (["--features", "-1"], "--features: expected at least 1, got -1"),
        (["--seconds", "0"], "--seconds: expected a number above 0, got 0.0"),
        (["--heads", "sofmax"], "did you mean 'softmax'"),
        (["--heads", "z-loss-spherical:a=0"], "a: expected a number above 0, got 0"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert cli.main(["bench", "heads", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
