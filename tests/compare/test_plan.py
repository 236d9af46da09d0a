import dataclasses
from pathlib import Path

import pytest

from manymax.compare import candidate, plan_file, series
from manymax.compare.candidate import Candidate
from manymax.compare.plan import DEFAULTS, LIMITS, Plan
from manymax.compare.reading import from_mapping
from manymax.compare.values import seconds

PLANS = Path(__file__).parents[2] / "plans"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("3min", 180), ("3 min", 180), ("1h30min", 5400), ("1.5m", 90), (42, 42), ("2h 5 sec", 7205)],
)
def test_durations(text, expected):
    assert seconds("budget", text) == expected


@pytest.mark.parametrize("text", ["", "3", "3 minutes", "-3min", "min", "3min!", 0, -1, True, float("inf")])
def test_durations_that_are_none(text):
    with pytest.raises(ValueError, match="budget: expected a duration"):
        seconds("budget", text)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("entmax", ()),
        ("entmax:alpha=1.3", (("alpha", 1.3),)),
        ("entmax:b=2,a=-1e-3", (("a", -1e-3), ("b", 2))),
        ("x:flag=true,none=none,word=some", (("flag", True), ("none", None), ("word", "some"))),
        ("x:limit=-inf", (("limit", float("-inf")),)),
    ],
)
def test_candidates_read_back_from_their_label(text, options):
    parsed = candidate.parse(text)
    assert parsed == Candidate(text.partition(":")[0], options)
    assert candidate.parse(parsed.label) == parsed
    assert candidate.parse({"name": parsed.system, **dict(options)}) == parsed


@pytest.mark.parametrize("given", ["", ":a=1", "x:a", "x:a=", "x:=1", "x:a=1,,b=2", 3, {"alpha": 1}, ["x"]])
def test_candidates_that_are_none(given):
    with pytest.raises(ValueError, match="candidates: expected"):
        candidate.parse(given)


def test_the_default_plan_file_is_the_default_plan():
    assert from_mapping(plan_file.read(PLANS / "default.toml")) == from_mapping({}) == Plan()


def test_the_baseline_comes_first_and_once():
    assert from_mapping({"candidates": ["relu", "softmax"]}).labels == ["softmax", "relu"]
    assert from_mapping({"candidates": ["relu"], "baseline": "sigmoid:bias=1"}).labels == ["sigmoid:bias=1", "relu"]


def test_a_plan_goes_through_its_mapping():
    plan = from_mapping(
        {
            "candidates": [{"name": "entmax", "alpha": 1.3}, "relu"],
            "task": "recall:pairs=8",
            "seeds": [4, 7],
            "budget": "90s",
            "model": {"depth": 3},
            "lengths": [64, 128],
            "timeout": "1min",
            "dtype": "bfloat16",
        }
    )
    assert plan.seeds == (4, 7)
    assert plan.budget == 90
    assert from_mapping(plan.as_mapping()) == plan
    assert from_mapping(plan.as_mapping()).hash() == plan.hash()


def test_every_site_has_candidates_of_its_own():
    assert from_mapping({"site": "output"}).labels[:2] == ["softmax", "stablemax"]
    assert from_mapping({"site": "head"}) == from_mapping({"site": "output"})
    assert from_mapping({}).labels == list(DEFAULTS["attention"])


def test_numbers_of_seeds():
    assert from_mapping({"seeds": 2}).seeds == (0, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"candidate": ["relu"]}, "unknown key 'candidate'.*did you mean 'candidates'"),
        ({"zzz": 1}, r"unknown key 'zzz'; a plan has site, [a-z_, ]*source$"),
        ({"site": "atention"}, "site: expected one of attention, output, got 'atention'; did you mean 'attention'"),
        ({"site": "router"}, "site: 'router' is planned but not built yet"),
        ({"dtype": "float16"}, "dtype: expected one of float32"),
        ({"dtype": 32}, "dtype: expected text"),
        ({"budget": "soon"}, "budget: expected a duration"),
        ({"timeout": "soon"}, "timeout: expected a duration"),
        ({"seeds": 0}, "seeds: expected a whole number from 1"),
        ({"seeds": 1.5}, "seeds: expected a whole number from 1"),
        ({"seeds": []}, "seeds: expected at least one"),
        ({"seeds": [1, 1]}, "seeds: expected at least one, each once"),
        ({"seeds": [-1]}, "seeds: expected a whole number from 0"),
        ({"steps": 0}, "steps: expected a whole number from 1"),
        ({"threads": True}, "threads: expected a whole number"),
        ({"batch_size": "many"}, "batch_size: expected a whole number"),
        ({"memory": -1}, "memory: expected a whole number"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number"),
        ({"lengths": [256, 128]}, "lengths: expected growing"),
        ({"lengths": []}, "lengths: expected growing"),
        ({"lengths": 128}, "lengths: expected a list"),
        ({"candidates": "relu"}, "candidates: expected a list"),
        ({"candidates": ["relu", "relu"]}, "candidates: expected each once, got 'relu'"),
        ({"candidates": ["softmax", "softmax"]}, "candidates: expected each once, got 'softmax'"),
        ({"task": 3}, "task: expected 'name'"),
        ({"baseline": 3}, "baseline: expected 'name'"),
        ({"model": 3}, "model: expected a table"),
        ({"text": "a.txt", "task": "digits"}, "text: only the tasks text and words read it, got task 'digits'"),
    ],
)
def test_mistakes_in_a_plan(keys, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(keys)


# Every field but the Python file, with a value that is not its default.
CHANGED = {
    "site": "output",
    "candidates": ["relu"],
    "baseline": "relu",
    "task": "recall",
    "seeds": 2,
    "budget": 60,
    "steps": 5,
    "text": "some.txt",
    "model": {"depth": 3},
    "batch_size": 3,
    "learning_rate": 0.1,
    "device": "cuda",
    "dtype": "float64",
    "threads": 1,
    "lengths": [64],
    "timeout": 5,
    "memory": 10**9,
}


def test_the_hash_is_the_same_in_every_process_and_changes_with_every_key():
    assert set(CHANGED) == {field.name for field in dataclasses.fields(Plan)} - {"source"}
    hashes = {from_mapping({key: value}).hash() for key, value in CHANGED.items() if key not in LIMITS}
    assert len(hashes | {Plan().hash()}) == len(CHANGED) - len(LIMITS) + 1
    assert from_mapping({key: CHANGED[key] for key in LIMITS}).hash() == Plan().hash()
    assert Plan(seeds=(5,), steps=3).hash() == "3920dc05bc98a85a"


def test_the_hash_does_not_depend_on_how_a_plan_is_spelt():
    one = from_mapping({"candidates": [{"name": "entmax", "temperature": 2, "alpha": 1.3}], "budget": "1min"})
    other = from_mapping({"budget": 60.0, "candidates": ["softmax", "entmax:alpha=1.3,temperature=2"], "seeds": 3})
    assert one.hash() == other.hash()


def test_python_plans_and_their_hash(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('assert __name__ == "manymax_plan"\nplan = {"seeds": 1, "candidates": ["relu"]}\n')
    plan = from_mapping(plan_file.read(path))
    assert plan.seeds == (0,)
    assert plan.source == str(path)
    before = plan.hash()
    path.write_text(path.read_text() + "# edited\n")
    assert plan.hash() != before


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.toml", None, FileNotFoundError, "no such plan file"),
        ("a.toml", "seeds = = 3", ValueError, "a.toml: "),
        ("a.yaml", "seeds: 3", ValueError, "ending in .toml or .py"),
        ("a.py", "plans = {}", ValueError, "expected it to define `plan`"),
    ],
)
def test_files_that_are_no_plans(tmp_path, name, text, error, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        plan_file.read(tmp_path / name)


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.name)
def test_every_plan_of_the_repository_reads(path):
    assert all(plan.labels for plan in series.plans(plan_file.read(path)))


def test_several_tasks_are_several_plans_that_share_the_budget(tmp_path):
    given = {"task": ["text", {"name": "recall", "pairs": 2}], "budget": "6min", "seeds": 1}
    first, second = series.plans(given)
    assert (first.task, second.task) == ("text", "recall:pairs=2")
    assert first.budget == second.budget == 180
    assert series.plans({"task": "text", "budget": "6min"})[0].budget == 360
    assert series.folders(tmp_path, [first, second]) == [tmp_path / "1-text", tmp_path / "2-recall"]
    for wrong in ([], ["text", "text"]):
        with pytest.raises(ValueError, match=r"task: expected at least one, each once"):
            series.plans({"task": wrong})


def test_a_series_keeps_its_plan(tmp_path):
    series.save(tmp_path / "run", {"task": ["text", "recall"]})
    series.save(tmp_path / "run", {"task": ["text", "recall"]})
    with pytest.raises(ValueError, match=r"out: .* holds a series of runs with another plan"):
        series.save(tmp_path / "run", {"task": ["text", "listops"]})
    assert series.runs_in(tmp_path) == series.runs_in(tmp_path / "run") == []
