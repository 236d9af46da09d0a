import errno
import json

import pytest
from pretend import FACTS, Pretender, Silent

from manymax.compare import results
from manymax.compare.reading import from_mapping
from manymax.compare.runner import Runner, counts
from manymax.compare.state import MISTAKE, State

PLAN = {"candidates": ["relu", "sigmoid"], "seeds": 2, "budget": 60}
TRAININGS = [f"train/{label}/{seed}" for seed in (0, 1) for label in ("softmax", "relu", "sigmoid")]


def run(folder, answers=None, retry=False, plan=PLAN, command="manymax compare"):
    executor, display = Pretender(answers), Silent()
    Runner(from_mapping(plan), folder, executor, display, (1, 2), retry).run(command)
    return executor, display


def lines(folder):
    return results.latest(results.read(folder / "results.jsonl"))


def test_a_run_calibrates_trains_and_measures(tmp_path):
    executor, display = run(tmp_path / "run", command="manymax compare --seeds 2")
    assert executor.names == [
        *("calibrate/softmax", "calibrate/relu", "calibrate/sigmoid"),
        *TRAININGS,
        *("speed", "length"),
    ]
    assert executor.most == 2
    assert list(lines(tmp_path / "run")) == [*TRAININGS, "speed", "length"]
    assert display.started == (8, 0, "accuracy")
    assert [job for job, _ in display.lines] == [*TRAININGS, "speed", "length"]
    assert display.lefts[0] > display.lefts[-1] == 0
    assert display.stopped == 1
    steps = {order.steps for order in executor.orders if order.kind == "train"}
    written = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert steps == {written["steps"]}
    assert 700 < written["steps"] < 2 * 42 / 0.06  # 42 s on 2 workers for 6 trainings of 0.01 s a step
    assert any(f"{written['steps']} steps" in text for text in display.said)
    assert written["seeds"] == [0, 1]
    assert written["budget_seconds"] == 60
    assert written["baseline"] == "softmax"
    assert written["command"] == "manymax compare --seeds 2"
    assert [one["name"] for one in written["candidates"]] == ["softmax", "relu", "sigmoid"]
    assert written["quality"] == FACTS["quality"]
    assert counts(tmp_path / "run", from_mapping(PLAN)) == (8, 8)


def test_threads_timeouts_and_allowances_of_orders(tmp_path):
    executor, _ = run(tmp_path, plan={**PLAN, "timeout": 7})
    by_kind = {order.kind: order for order in executor.orders}
    assert (by_kind["train"].threads, by_kind["speed"].threads, by_kind["length"].threads) == (1, 2, 2)
    assert {order.timeout for order in executor.orders} == {7.0}
    assert by_kind["speed"].allowance == pytest.approx(9)
    assert by_kind["train"].log == str(tmp_path / "logs" / "train-sigmoid-1.txt")
    assert by_kind["speed"].candidates == ["softmax", "relu", "sigmoid"]


def test_a_rerun_does_only_what_is_missing(tmp_path):
    run(tmp_path)
    path = tmp_path / "results.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True) if '"train/relu/1"' not in line]
    path.write_text("".join(kept[:-1]))  # as if it had stopped before one training and the length job
    plan = (tmp_path / "plan.json").read_text()
    executor, display = run(tmp_path, command="manymax compare RUN")
    assert executor.names == ["train/relu/1", "length"]
    assert display.started == (8, 6, "accuracy")
    assert path.read_text().startswith("".join(kept[:-1]))
    assert (tmp_path / "plan.json").read_text() == plan
    executor, _ = run(tmp_path)
    assert executor.names == []


def test_the_folder_of_another_plan_is_refused(tmp_path):
    run(tmp_path)
    before = (tmp_path / "results.jsonl").read_text()
    with pytest.raises(
        ValueError, match=f"out: {tmp_path} holds a run with different budget, seeds; choose another folder"
    ):
        run(tmp_path, plan={**PLAN, "seeds": 3, "budget": 61})
    assert (tmp_path / "results.jsonl").read_text() == before
    run(tmp_path, plan={**PLAN, "timeout": 99, "memory": 10**9})


def test_failures_show_and_are_done_again_only_when_asked(tmp_path):
    executor, display = run(tmp_path, {"train/relu/0": ("crashed", "boom"), "train/relu/1": ("timeout", "slow")})
    assert ("train/relu/0", "crashed") in display.lines
    speed = lines(tmp_path)["speed"]["metrics"]["candidates"]
    assert speed["relu"] == {"status": "crashed", "message": "boom"}
    assert executor.orders[-1].candidates == ["softmax", "sigmoid"]
    assert run(tmp_path)[0].names == []
    executor, _ = run(tmp_path, retry=True)
    assert executor.names == ["train/relu/0", "train/relu/1", "speed", "length"]
    assert lines(tmp_path)["speed"]["metrics"]["candidates"]["relu"]["status"] == "ok"
    assert {line["status"] for line in lines(tmp_path).values()} == {"ok"}


def test_a_candidate_that_one_seed_trained_or_that_diverged_is_measured(tmp_path):
    executor, _ = run(tmp_path, {"train/relu/0": ("crashed", ""), "train/sigmoid": ("diverged", "NaN")})
    assert executor.orders[-1].candidates == ["softmax", "relu", "sigmoid"]


def test_a_candidate_that_fails_in_calibration_has_that_status_everywhere(tmp_path):
    executor, _ = run(tmp_path, {"calibrate/relu": ("unsupported", "no such size")})
    assert not any("train/relu" in name for name in executor.names)
    for seed in (0, 1):
        line = lines(tmp_path)[f"train/relu/{seed}"]
        assert (line["status"], line["message"]) == ("unsupported", "in calibration: no such size")
    executor, _ = run(tmp_path, retry=True)
    assert executor.names == ["train/relu/0", "train/relu/1", "speed", "length"]


def test_without_the_baseline_nothing_is_measured_against_it(tmp_path):
    executor, _ = run(tmp_path, {"train/softmax": ("crashed", "boom")})
    assert executor.names[-1] == "train/sigmoid/1"
    assert lines(tmp_path)["speed"]["status"] == "unsupported"
    assert lines(tmp_path)["length"]["message"] == "nothing to measure against: softmax was not trained"


def test_a_speed_job_that_fails_has_a_line(tmp_path):
    run(tmp_path, {"speed": ("crashed", "boom")})
    assert lines(tmp_path)["speed"]["status"] == "crashed"
    assert lines(tmp_path)["length"]["status"] == "ok"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"calibrate/relu": (MISTAKE, "candidates: no such name")}, "^candidates: no such name$"),
        ({"calibrate": ("crashed", "boom")}, "no candidate can be trained; softmax: crashed: boom"),
    ],
)
def test_a_mistake_in_the_plan_ends_the_run_before_anything_is_stored(tmp_path, answers, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", answers)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_lets_running_jobs_end_and_starts_no_more(tmp_path, monkeypatch):
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) > 5 and (tmp_path / results.RESERVE_NAME).exists():  # plan, state, reserve, and two lines fit
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "_sync", full)
    with pytest.raises(
        OSError, match=f"the disk is full at {tmp_path}; every finished job is kept.*compare {tmp_path}$"
    ):
        run(tmp_path)
    stored = list(lines(tmp_path))
    assert stored == TRAININGS[:4]  # the third found the disk full while the fourth was running
    monkeypatch.undo()
    executor, _ = run(tmp_path)
    assert executor.names == [*TRAININGS[4:], "speed", "length"]


def test_a_disk_that_is_full_from_the_start(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "_sync", full)
    with pytest.raises(OSError, match="the disk is full at"):
        run(tmp_path)


def test_other_errors_of_the_disk_keep_their_own_words(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        run(tmp_path / "file" / "run")


def test_state_comes_back(tmp_path):
    run(tmp_path, {"calibrate/relu": ("timeout", "slow")})
    state = State.load(tmp_path, from_mapping(PLAN))
    assert state.costs["sigmoid"].step == 0.01
    assert state.failures == {"relu": {"status": "timeout", "message": "slow"}}
    assert state.facts == FACTS
    assert State.load(tmp_path / "none", from_mapping(PLAN)) is None
