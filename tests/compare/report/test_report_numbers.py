"""The numbers of the table equal those computed by hand from the run's lines."""

import math
from statistics import mean, stdev

import pytest
import synthetic
from markup import Markup

from manymax.compare.report import build
from manymax.compare.report.runs import load
from manymax.compare.report.summary import summarise
from manymax.compare.report.values import Estimate, Missing, Ratio, memory_verdict, speed_verdict
from manymax.compare.report.verdict_table import groups, row_view
from manymax.compare.report.wording import (
    clock,
    decimals,
    duration,
    fixed,
    listed,
    percent,
    plus_minus,
    rate,
    significant,
    size,
    span,
    times,
)

T2, T1 = 4.302652729911275, 12.706204736432095  # Student's 97.5 % quantile for 2 and 1 degrees of freedom, from a table
SOFTMAX = [2.40, 2.50, 2.46]
SIGMOID = [2.31, 2.43, 2.38]
RELU = [2.43, 2.47, 2.46]


def lines(better="lower"):
    sign = 1 if better == "lower" else -1
    for seed in range(3):
        yield synthetic.train("softmax", seed, sign * SOFTMAX[seed], peak=(100 + seed) << 20)
        yield synthetic.train("sigmoid", seed, sign * SIGMOID[seed], peak=(150, 151.5, 122.4)[seed] * 2**20)
        yield synthetic.train("relu", seed, sign * RELU[seed], nan_steps=seed, largest_score=7.0 - seed)
    yield synthetic.speed({"softmax": (1, 1, 1), "sigmoid": (1.01, 1.2, 1.3), "relu": (0.62, 0.634, 0.65)}, 0.02)


@pytest.fixture(scope="module", params=["lower", "higher"])
def run(request, tmp_path_factory):
    quality = {"name": "bits per byte", "better": request.param, "unit": "bits"}
    plan = synthetic.plan(["softmax", "sigmoid", "relu"], 3, quality=quality)
    return synthetic.write(tmp_path_factory.mktemp("run"), plan, list(lines(request.param)))


def test_means_differences_and_verdicts(run):
    runs = load([run])
    rows = {row.name: row for row in summarise(runs)}
    sign = 1 if runs.plan["quality"]["better"] == "lower" else -1
    for name, values in (("softmax", SOFTMAX), ("sigmoid", SIGMOID), ("relu", RELU)):
        quality = rows[name].quality
        assert quality.mean == pytest.approx(sign * mean(values))
        assert quality.reach == pytest.approx(T2 * stdev(values) / math.sqrt(3))
        assert quality.seeds == 3
    for name, values, word in (("sigmoid", SIGMOID, "better"), ("relu", RELU, "no difference")):
        gaps = [value - base for value, base in zip(values, SOFTMAX, strict=True)]
        assert rows[name].difference.mean == pytest.approx(sign * mean(gaps))
        assert rows[name].difference.reach == pytest.approx(T2 * stdev(gaps) / math.sqrt(3))
        assert rows[name].verdict.word == word
    assert rows["softmax"].verdict.tone == "baseline"


def test_table_shows_them_rounded_to_their_interval(run):
    markup = Markup(build([run]).read_text(encoding="utf-8"))
    lower = load([run]).plan["quality"]["better"] == "lower"
    row = markup.row("sigmoid")
    # -0.08, with 4.3027 * 0.01 / sqrt(3) = 0.0248; mean 2.3733, with 4.3027 * 0.06028 / sqrt(3) = 0.1497
    assert row["vs softmax"] == ("−0.080 ± 0.025" if lower else "+0.080 ± 0.025")
    assert row["mean"] == ("2.37 ± 0.15" if lower else "−2.37 ± 0.15")
    assert row["verdict"] == "▲ better"
    assert row["training"] == "1.20× 1.01 to 1.30 24.0k tokens/s"
    assert markup.row("relu")["training"] == "▼ 0.63× 0.62 to 0.65 12.7k tokens/s"
    assert row["generation"].startswith("▼ 0.60×")
    assert markup.row("relu")["generation"] == "– not measured"
    # 150 / 100, 151.5 / 101 and 122.4 / 102: median 1.5, from 1.2
    assert row["training peak"] == "▼ 1.50× 1.20 to 1.50 150 MiB"
    assert row["state"] == "▲ 0.062× 8.00 KiB constant"
    assert markup.row("softmax")["state"] == "1 128 KiB grows"
    assert markup.row("relu")["NaN steps"] == "3"
    assert markup.row("relu")["largest score"] == "7.00"
    assert row["gradient norm"] == "0.600 max 4.00"  # of 0.5, 0.6, 0.7 and of 2, 3, 4
    assert row["entropy"] == "3.10"
    assert row["first token"] == "12 %"


def test_worse_candidate(tmp_path):
    data = [
        synthetic.train(name, seed, 2.0 + (name == "relu") + 0.01 * seed)
        for name in ("softmax", "relu")
        for seed in (0, 1)
    ]
    runs = load([synthetic.write(tmp_path, synthetic.plan(["softmax", "relu"], 2), data)])
    assert summarise(runs)[1].verdict.word == "worse"
    assert summarise(runs)[1].difference == Estimate(pytest.approx(1.0), pytest.approx(0.0, abs=1e-12), 2, clear=True)


def test_a_failed_seed_enters_no_mean(tmp_path):
    values = {"softmax": [2.0, 3.0, 2.6], "relu": [1.9, 2.8, 9.0]}
    data = [synthetic.train(name, seed, each) for name, several in values.items() for seed, each in enumerate(several)]
    data[-1] = synthetic.train("relu", 2, status="diverged", message="NaN")
    data[-1]["metrics"]["quality"] = 9.0  # what a training that went wrong last measured
    row = summarise(load([synthetic.write(tmp_path, synthetic.plan(["softmax", "relu"]), data)]))[1]
    gaps = [-0.1, -0.2]
    assert row.difference.mean == pytest.approx(mean(gaps))
    assert row.difference.reach == pytest.approx(T1 * stdev(gaps) / math.sqrt(2))
    assert (row.verdict.tone, row.verdict.word, row.verdict.detail) == ("failed", "diverged", "1 of 3 seeds")
    assert row.stability.nan_steps == 3  # it does enter what happened in training


def test_predictions_are_shown_where_heads_are_compared(tmp_path):
    shares = [{"accuracy": 0.5 + 0.1 * seed, "top5_accuracy": 0.8, "calibration_error": 0.0123} for seed in range(2)]
    data = [synthetic.train("softmax", seed, 2.0, **shares[seed]) for seed in range(2)]
    data += [synthetic.train("relu", 0, 2.1), synthetic.train("relu", 1, status="diverged")]
    for site in ("output", "attention"):
        plan = synthetic.plan(["softmax", "relu"], 2, site=site)
        runs = load([synthetic.write(tmp_path / site, plan, data)])
        heads = [heading for heading, columns in groups(runs)]
        views = [row_view(runs, row) for row in summarise(runs)]
        assert all(len(view.groups) == len(heads) for view in views)
        assert ("predictions" in heads) is (site == "output")
        if site == "output":
            softmax, relu = (view.groups[heads.index("predictions")] for view in views)
            assert [cell.text for cell in softmax] == ["55.0 %", "80.0 %", "1.2 %"]
            assert relu[0].below == ("diverged",)


def test_statuses_that_differ_are_called_failed(tmp_path):
    data = [synthetic.train("softmax", seed) for seed in range(3)]
    data += [synthetic.train("relu", seed, status=status) for seed, status in enumerate(["crashed", "timeout"])]
    row = summarise(load([synthetic.write(tmp_path, synthetic.plan(["softmax", "relu"]), data)]))[1]
    assert (row.verdict.word, row.verdict.detail) == ("failed", "")
    assert row.quality == Missing("crashed")


@pytest.mark.parametrize(
    ("ratio", "noise", "tone"),
    [
        ((1.05, 1.1, 1.2), 0.04, "better"),
        ((1.05, 1.1, 1.2), 0.06, "same"),
        ((1.05, 1.1, 1.2), None, "better"),
        ((0.99, 1.1, 1.2), 0.0, "same"),
        ((0.8, 0.9, 0.95), 0.05, "worse"),  # 1 / 1.05 = 0.952
        ((0.8, 0.9, 0.96), 0.05, "same"),
    ],
)
def test_speed_counts_only_beyond_the_noise_floor(ratio, noise, tone):
    assert speed_verdict(Ratio(*ratio), noise).tone == tone


@pytest.mark.parametrize(
    ("ratio", "tone"),
    [((1.01, 1.1, 1.2), "worse"), ((1.004, 1.1, 1.2), "same"), ((0.5, 0.9, 0.99), "better"), ((0.9, 1, 1.1), "same")],
)
def test_memory_counts_only_if_every_seed_agrees(ratio, tone):
    assert memory_verdict(Ratio(*ratio)).tone == tone


def test_rounding():
    assert [decimals(r) for r in (0.1, 0.0123, 0.029, 0.0296, 0.05, 0.94, 2.9, 3.2, 41)] == [2, 3, 3, 2, 2, 1, 1, 0, 0]
    assert plus_minus(-0.0512, 0.0148, sign=True) == "−0.051 ± 0.015"
    assert plus_minus(2.4567, 0.31) == "2.5 ± 0.3"
    assert plus_minus(0.51234, None) == "0.512"
    assert plus_minus(0.51234, None, sign=True) == "+0.512"
    assert plus_minus(123.4, 41.0, sign=True) == "+123 ± 41"
    assert fixed(-0.001, 2) == "0.00"
    assert fixed(-0.001, 2, sign=True) == "0.00"
    assert [significant(x) for x in (0, 12345.6, 0.000123, -2.5, 1.2e-7, 3.4e9)] == [
        "0",
        "12,346",
        "0.000123",
        "−2.50",
        "1.20e−7",
        "3.40e9",
    ]
    assert times(0.6, 0.634, 0.65) == "0.63×"
    assert times(1, 3, 9) == "3×"
    assert (span(0.6, 0.65), span(1.001, 1.002)) == ("0.60 to 0.65", "")


def test_units():
    assert [size(x) for x in (2000, 3.5 * 2**20, 2**31, 12)] == ["1.95 KiB", "3.50 MiB", "2.00 GiB", "12 B"]
    assert [duration(x) for x in (2, 0.0123, 4.5e-5, 3e-8)] == ["2.00 s", "12.3 ms", "45.0 µs", "30.0 ns"]
    assert [clock(x) for x in (39.6, 200, 7500)] == ["40 s", "3 min 20 s", "2 h 5 min"]
    assert [rate(x) for x in (900, 24000, 3.1e6)] == ["900", "24.0k", "3.10M"]
    assert percent(0.0316) == "3.2 %"
    assert [listed(list("abcdef"[:n])) for n in (1, 2, 4, 5)] == ["a", "a and b", "a, b, c and d", "5 candidates"]
