import json
import math

import pytest
from toy_claims import Silent, toy

from manymax._records import read_records
from manymax.claims.claim import Check, Untestable
from manymax.claims.runner import RESULTS, Run, finished_runs, latest, measure, pending, run_all


def do(claims, folder, *, fresh=False):
    watcher = Silent()
    records = list(run_all(pending(claims, folder, fresh=fresh), folder, watcher))
    return records, watcher.calls


def test_a_result_says_what_was_measured_and_where(tmp_path):
    def experiment(seed, numbers, progress):
        progress(0.5, "halfway")
        return {"gain": seed + numbers["size"], "also": math.inf, "other": Untestable("no kernel")}

    claim = toy(experiment, seeds=(4,), also={"also": "", "other": ""})
    records, calls = do([claim], tmp_path)
    assert calls == [("started", "toy, seed 4"), ("advanced", 0.5, "halfway"), ("finished", "toy, seed 4", "ok")]
    (record,) = read_records(tmp_path / RESULTS)
    assert record == json.loads(json.dumps(records[0] | {"metrics": {"gain": 7, "also": "inf"}}))
    assert record["untestable"] == {"other": "no kernel"}
    assert (record["claim"], record["seed"], record["numbers"]) == ("toy", 4, {"size": 3})
    assert {"commit", "manymax", "torch", "python", "processor", "threads"} <= set(record["environment"])
    assert record["seconds"] >= 0


def test_finished_runs_are_not_run_again(tmp_path):
    claims = [toy(), toy(name="other", seeds=(5,))]
    assert len(do(claims, tmp_path)[0]) == 4
    assert do(claims, tmp_path)[0] == []
    assert len(do(claims, tmp_path, fresh=True)[0]) == 4
    assert len(read_records(tmp_path / RESULTS)) == 8


def test_changed_code_or_numbers_are_run_again(tmp_path):
    claim = toy()
    do([claim], tmp_path)
    claim.mark[0] = "second"
    assert finished_runs(claim, tmp_path) == {}
    assert len(do([claim], tmp_path)[0]) == 3
    claim.mark[0] = "first"
    assert sorted(finished_runs(claim, tmp_path)) == [0, 1, 2]


def test_the_newest_result_of_a_seed_counts(tmp_path):
    values = iter([1.0, 2.0])
    claim = toy(lambda seed, numbers, progress: {"gain": next(values)}, seeds=(0,))
    do([claim], tmp_path)
    do([claim], tmp_path, fresh=True)
    assert latest(claim, tmp_path)[0]["metrics"] == {"gain": 2.0}


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("boom"), "crashed", "RuntimeError: boom"),
        (ImportError("x is not installed; run: pip"), "untestable", "x is not installed; run: pip"),
        (MemoryError("no room"), "crashed", "MemoryError: no room"),
    ],
)
def test_a_run_that_ends_badly_stops_no_other_and_is_tried_again(tmp_path, error, status, message):
    def experiment(seed, numbers, progress):
        if seed == 1:
            raise error
        return {"gain": 1.0}

    claim = toy(experiment)
    records, calls = do([claim, toy(name="next")], tmp_path)
    assert [record["status"] for record in records] == ["ok", status, "ok", "ok", "ok", "ok"]
    assert records[1]["message"] == message
    assert ("finished", "toy, seed 1", status) in calls
    assert [str(run) for run in pending([claim], tmp_path, fresh=False)] == ["toy, seed 1"]


@pytest.mark.parametrize("metrics", [{}, {"gain": 1.0, "surplus": 2.0}])
def test_metrics_that_differ_from_what_is_declared_are_a_crash(metrics):
    record = measure(Run(toy(lambda seed, numbers, progress: metrics), 0), {}, lambda share, doing: None)
    assert record["status"] == "crashed"
    assert "differ on the metrics" in record["message"]


def test_an_interruption_keeps_what_is_finished(tmp_path):
    interrupted = [1]

    def experiment(seed, numbers, progress):
        if seed in interrupted:
            raise KeyboardInterrupt
        return {"gain": 1.0}

    claim = toy(experiment)
    with pytest.raises(KeyboardInterrupt):
        do([claim], tmp_path)
    assert sorted(finished_runs(claim, tmp_path)) == [0]
    interrupted.clear()
    assert [record["seed"] for record in do([claim], tmp_path)[0]] == [1, 2]


def test_the_code_that_counts_is_that_at_the_start_of_the_run(tmp_path):
    def experiment(seed, numbers, progress):
        claim.mark[0] = "edited meanwhile"
        return {"gain": 1.0}

    claim = toy(experiment, seeds=(0,))
    do([claim], tmp_path)
    assert read_records(tmp_path / RESULTS)[0]["fingerprint"] == "first"


@pytest.mark.parametrize("place", [".", "file"])
def test_results_that_cannot_be_written_show_before_anything_is_run(tmp_path, place):
    (tmp_path / RESULTS).mkdir()
    (tmp_path / "file").write_text("")
    run = []
    claim = toy(lambda seed, numbers, progress: run.append(seed) or {"gain": 1.0})
    with pytest.raises(OSError, match=r"file|results"):
        list(run_all([Run(claim, 0)], tmp_path / place, Silent()))
    assert run == []


def test_tiny_numbers_have_to_exist():
    with pytest.raises(ValueError, match="tiny: expected some of size, got sise"):
        type(toy())(**{**vars(toy()), "tiny": {"sise": 1}})


def test_metrics_of_a_claim_are_those_of_checks_preconditions_and_more():
    given = Check("fitted", ">", 0, "")
    checks = (Check("gain", ">", 0, "", given=given), Check("loss", "<", 0, "", given=given))
    assert toy(checks=checks, also={"time": ""}).metrics == ("gain", "fitted", "loss", "time")
