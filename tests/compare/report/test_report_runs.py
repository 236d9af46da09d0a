"""Runs that are unfinished, empty, damaged or merged."""

import pytest
import synthetic
from markup import Markup

from manymax.compare.report import build, print_table
from manymax.compare.report.runs import load
from manymax.compare.report.sentences import quality_sentence, speed_sentence
from manymax.compare.report.summary import noise_floor, summarise
from manymax.compare.report.values import Missing

NAMES = ["softmax", "relu"]


def some(seeds, names=NAMES, **options):
    return [synthetic.train(name, seed, 2.0 + 0.1 * seed, **options) for name in names for seed in seeds]


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    run = synthetic.write(
        tmp_path, synthetic.plan(NAMES, 1), [synthetic.train(n, 0, 2.5 - (n == "relu")) for n in NAMES]
    )
    markup = Markup(build([run]).read_text(encoding="utf-8"))
    assert markup.row("relu")["verdict"] == "? undecided 1 seed"
    assert markup.row("relu")["mean"] == "1.50 no interval"
    assert markup.row("relu")["vs softmax"] == "−1.00"
    text = markup.text()
    assert "One seed gives no interval, so nothing is decided: relu scored best with 1.50 bits per byte." in text
    assert "There is one seed, hence no interval" in text
    assert "±" not in text.split("How to read")[0]


def test_unfinished_run_says_what_is_missing(tmp_path):
    data = [*some([0, 1], ["softmax"]), *some([0], ["relu"])]
    runs = load([synthetic.write(tmp_path, synthetic.plan([*NAMES, "sigmoid"], 2), data)])
    assert runs.missing == ["sigmoid, seed 0", "relu, seed 1", "sigmoid, seed 1", "speed", "length"]
    markup = Markup(build([tmp_path]).read_text(encoding="utf-8"))
    assert "This run is not finished: 5 jobs are still missing (sigmoid, seed 0, relu, seed 1" in markup.text()
    row = markup.row("sigmoid")
    assert row["verdict"] == row["mean"] == row["training"] == row["NaN steps"] == "– not run yet"
    assert markup.row("relu")["mean"] == "2.00 1 of 2 seeds no interval"
    assert "sigmoid has no result (not run yet)" in markup.text()
    assert "Speed was not timed in this run" in markup.text()
    assert markup.text().count("Nothing to draw") == 1  # no length; memory and quality are there


def test_baseline_without_result(tmp_path):
    data = [*some([0, 1], ["relu"]), synthetic.train("softmax", 0, status="crashed", message="no")]
    runs = load([synthetic.write(tmp_path, synthetic.plan(NAMES, 2), data)])
    rows = summarise(runs)
    assert rows[1].difference == rows[1].memory == Missing("no softmax to compare with")
    assert quality_sentence(runs, rows).startswith("Nothing can be compared: softmax, the baseline, has no finished")
    build([tmp_path])


def test_baseline_alone(tmp_path):
    run = synthetic.write(tmp_path, synthetic.plan(["softmax"]), some(range(3), ["softmax"]))
    page = build([run]).read_text(encoding="utf-8")
    assert "softmax ran alone, so there is nothing to compare it with." in page
    assert "<h1>softmax alone</h1>" in page


def test_speed_job_that_failed_gives_its_status(tmp_path):
    run = synthetic.write(tmp_path, synthetic.plan(NAMES), [*some(range(3)), synthetic.speed({}, status="timeout")])
    (tmp_path / "results.jsonl").write_text(
        (tmp_path / "results.jsonl").read_text().replace('"noise_floor": 0.03, ', "")
    )
    markup = Markup(build([run]).read_text(encoding="utf-8"))
    assert markup.row("relu")["training"] == "– timeout"
    assert "all candidates , timing:  timeout" in markup.text()


def test_empty_run_is_one_clear_error(tmp_path):
    run = synthetic.write(tmp_path / "run", synthetic.plan(NAMES), [])
    for action in (build, print_table):
        with pytest.raises(ValueError, match=r"run: no job has ended yet, so there is nothing to report$"):
            action([run])
    with pytest.raises(ValueError, match="run_dirs: expected at least one run folder"):
        build([])


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a run of manymax compare, it holds no plan\.json"):
        build([tmp_path])
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json: damaged"):
        build([tmp_path])


def test_merged_runs_pool_their_seeds(tmp_path):
    one = synthetic.write(tmp_path / "one", synthetic.plan(NAMES, 2), [*some([0, 1])])
    plan = synthetic.plan(NAMES, seeds=0) | {
        "seeds": [2, 3, 4],
        "command": "manymax compare --seeds 2,3,4",
        "budget_seconds": 9,
    }
    two = synthetic.write(tmp_path / "two", plan, some([2, 3, 4], environment={"processor": "Another CPU"}))
    runs = load([one, two])
    assert runs.seeds == [0, 1, 2, 3, 4]
    assert [row.quality.seeds for row in summarise(runs)] == [5, 5]
    assert summarise(runs)[0].quality.mean == pytest.approx(2.2)
    target = build([one, two])
    assert target == one / "report.html"
    text = Markup(target.read_text(encoding="utf-8")).text()
    assert "manymax compare --seeds 3" in text
    assert "manymax compare --seeds 2,3,4" in text
    assert f"2 runs merged: {one}, {two}." in text
    assert "The jobs differ in processor: Example CPU @ 3 GHz, Another CPU." in text


def test_merged_timings_are_joined_by_candidate(tmp_path):
    first = [*some([0]), synthetic.speed({"softmax": (1, 1, 1), "relu": (2, 2, 2)}, noise=0.07)]
    first.append(synthetic.length({"softmax": synthetic.quadratic(), "relu": synthetic.quadratic(2)}, {"relu": 512}))
    second = [
        *some([0], ["softmax", "sigmoid"]),
        synthetic.speed({"softmax": (1, 1, 1), "sigmoid": (3, 3, 3)}, noise=0.02),
    ]
    second.append(synthetic.length({"softmax": synthetic.quadratic(9)}, {"sigmoid": None}))
    one = synthetic.write(tmp_path / "one", synthetic.plan(NAMES, 1), first)
    two = synthetic.write(tmp_path / "two", synthetic.plan(["softmax", "sigmoid"], 1), second)
    runs = load([one, two])
    rows = {row.name: row for row in summarise(runs)}
    assert (rows["relu"].train.middle, rows["sigmoid"].train.middle) == (2, 3)
    assert noise_floor(runs) == 0.07
    assert runs.single("length")["metrics"]["crossover"] == {"relu": 512, "sigmoid": None}
    assert runs.single("length")["metrics"]["candidates"]["softmax"]["seconds"] == synthetic.quadratic(9)
    assert "sigmoid trains fastest, at 3.00" in speed_sentence(runs, list(rows.values()))


def test_a_failed_timing_does_not_hide_an_earlier_one(tmp_path):
    one = synthetic.write(
        tmp_path / "one",
        synthetic.plan(NAMES, 1),
        [*some([0]), synthetic.speed({"softmax": (1, 1, 1), "relu": (2, 2, 2)})],
    )
    failed = synthetic.line("speed", "speed", status="timeout")
    two = synthetic.write(tmp_path / "two", synthetic.plan(NAMES, 1), [*some([0]), failed])
    assert summarise(load([one, two]))[1].train.middle == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "recall"}, "task is 'recall' there and 'text' here"),
        ({"steps": 300}, "steps is 300 there and 200 here"),
        ({"model": {"dim": 65}}, "model is {'dim': 65} there"),
        ({"baseline": "relu"}, "baseline is 'relu' there"),
        ({"candidates": [{"name": "relu", "options": {"power": 2}}]}, "relu has options {'power': 2} there, {} here"),
    ],
)
def test_plans_that_ask_different_questions_do_not_merge(tmp_path, change, message):
    one = synthetic.write(tmp_path / "one", synthetic.plan(NAMES), some([0]))
    two = synthetic.write(tmp_path / "two", synthetic.plan(NAMES, **change), some([1]))
    with pytest.raises(ValueError, match="cannot be merged with") as error:
        build([one, two])
    assert message in str(error.value)


def test_a_retry_replaces_what_it_repeats(tmp_path):
    data = [*some([0, 1], ["softmax"]), *some([0, 1], ["relu"], status="crashed"), *some([0, 1], ["relu"])]
    assert summarise(load([synthetic.write(tmp_path, synthetic.plan(NAMES, 2), data)]))[1].failures == []


def test_values_that_were_not_finite_are_missing(tmp_path):
    data = [synthetic.train(n, s, largest_score=None, entropy=None, peak=None) for n in NAMES for s in range(2)]
    for one in data:
        one["curves"]["train"]["loss"][:50] = [None] * 50
    run = synthetic.write(tmp_path, synthetic.plan(NAMES, 2), data)
    markup = Markup(build([run]).read_text(encoding="utf-8"))
    row = markup.row("relu")
    assert row["largest score"] == row["entropy"] == row["training peak"] == "– not measured"
    assert "nan" not in markup.text().lower().replace("nan steps", "")
