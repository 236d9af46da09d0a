"""The whole command, in processes of its own, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from manymax.compare import results


def lines(folder):
    return results.latest(results.read(folder / "results.jsonl"))


def finish(words, **options):
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=300, **options)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert condition(), process.communicate(timeout=10) if process.poll() is not None else "it takes too long"


def test_the_smoke_plan_from_start_to_report(manymax, smoke_plan, tmp_path):
    done = finish([*manymax, "compare", smoke_plan, "--out", tmp_path / "run", "--threads", "1"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = lines(tmp_path / "run")
    labels = ["softmax", "sigmoid", "softmax:temperature=2.0"]
    trainings = [f"train/{label}/{seed}" for seed in (0, 1) for label in labels]
    assert set(found) == {*trainings, "speed", "length"}
    assert {line["status"] for line in found.values()} == {"ok"}
    assert all(found[name]["metrics"]["steps"] == 6 for name in trainings)
    assert found["speed"]["environment"]["threads"] == 1
    assert found["length"]["metrics"]["lengths"] == [32, 64]
    # Same initial weights, and at the start the mechanism changes nothing: the first losses are equal.
    assert len({found[name]["curves"]["train"]["loss"][0] for name in trainings[:3]}) == 1
    assert "\x1b" not in done.stdout
    assert done.stdout.count("train/softmax:temperature=2.0/") == 2
    assert f"report: {tmp_path}/run/report.html" in done.stdout
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert not (tmp_path / "run" / results.RESERVE_NAME).exists()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["command"] == f"manymax compare {smoke_plan} --out {tmp_path}/run --threads 1"


def test_the_plan_with_a_mechanism_of_ones_own_is_valid(manymax, smoke_plan):
    done = finish([*manymax, "validate", smoke_plan.with_name("own_mechanism.py"), "--model", "depth=1"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == ["softmax: fine", "cosine: fine", "cosine:sharpness=20.0: fine"]


STATUSES = {
    "softmax": "ok",
    "nan": "diverged",
    "greedy": "out of memory",
    "refuses": "unsupported",
    "sleeps": "timeout",
    "exits": "crashed",
    "breaks": "crashed",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_every_status_and_ctrl_c_and_going_on(manymax, strange_plan, tmp_path):
    run = tmp_path / "run"
    plan = strange_plan(*STATUSES, started=run / "state.json")
    process = subprocess.Popen(
        [*manymax, "compare", plan, "--out", run, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a terminal, Ctrl-C then reaches all of its processes
    )
    wait_for(lambda: len(results.read(run / "results.jsonl")) == len(STATUSES) - 1, process)
    before = (run / "results.jsonl").read_text()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == f"manymax: interrupted; 6 of 9 jobs are finished; go on with: manymax compare {run}\n"
    assert not (run / results.RESERVE_NAME).exists()

    done = finish([*manymax, "compare", run, "--timeout", "20s"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 9 jobs are finished already" in done.stdout
    assert (run / "results.jsonl").read_text().startswith(before)
    found = lines(run)
    assert {label: found[f"train/{label}/0"]["status"] for label in STATUSES} == STATUSES
    messages = {label: found[f"train/{label}/0"]["message"] for label in STATUSES}
    assert messages["nan"] == "4 of the first 4 steps were NaN"
    assert "allocate" in messages["greedy"]
    assert messages["refuses"] == "in calibration: no such thing here"
    assert messages["sleeps"] == "stopped after 20 s"
    assert messages["exits"] == f"the process ended by itself with exit code 3; see {run}/logs/train-exits-0.txt"
    assert messages["breaks"].startswith("RuntimeError: something broke (strange.py, line ")
    assert "Traceback" in (run / "logs" / "train-breaks-0.txt").read_text()
    for name in ("speed", "length"):
        assert found[name]["status"] == "ok"
        assert found[name]["metrics"]["candidates"]["exits"]["status"] == "crashed"
        assert found[name]["metrics"]["candidates"]["nan"]["status"] == "ok"


def test_a_run_that_was_killed_goes_on(manymax, strange_plan, tmp_path):
    run = tmp_path / "run"
    plan = strange_plan("softmax", "sleeps", started=run / "state.json")
    command = [*manymax, "compare", plan, "--out", run, "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((run / "logs" / "train-sleeps-0.txt").exists, process)
    process.kill()
    process.communicate(timeout=60)
    first = (run / "results.jsonl").read_text()
    with (run / "results.jsonl").open("a") as file:
        file.write('{"job": "train/sle')  # what a machine that stops in the middle of a line leaves
    done = finish([*command, "--timeout", "10s"])
    assert (done.returncode, done.stderr) == (0, "")
    assert (run / "results.jsonl").read_text().startswith(first)
    assert "train/softmax/0" in first
    assert {name: line["status"] for name, line in lines(run).items()} == {
        "train/softmax/0": "ok",
        "train/sleeps/0": "timeout",
        "speed": "ok",
        "length": "ok",
    }


def test_ctrl_c_while_calibrating(manymax, smoke_plan, tmp_path):
    process = subprocess.Popen(
        [*manymax, "compare", smoke_plan, "--out", tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while "calibrating" not in process.stdout.readline():
        pass
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "manymax: interrupted while calibrating; nothing is stored yet\n"
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line(manymax, smoke_plan, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        done = finish([*manymax, "compare", smoke_plan, "--out", tmp_path / "run"])
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"manymax: the disk is full at {tmp_path}/run; every finished job is kept; free some space and go on with: "
        f"manymax compare {tmp_path}/run\n"
    )


def test_several_tasks_are_one_series(manymax, smoke_plan, tmp_path):
    run = tmp_path / "run"
    tasks = ["text:length=32", "recall:length=16"]
    command = [
        *manymax,
        "compare",
        smoke_plan,
        "--candidates",
        "linear",
        "--seeds",
        "1",
        "--out",
        run,
        "--task",
        *tasks,
    ]
    done = finish(command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("1-text", "2-recall"):
        assert {line["status"] for line in lines(run / name).values()} == {"ok"}
        assert f"report: {run}/{name}/report.html" in done.stdout
    head = next(line for line in done.stdout.splitlines() if "recall:length=16: accuracy" in line)
    assert head.startswith("candidate")
    page = (run / "report.html").read_text()
    assert 'href="1-text/report.html"' in page
    assert 'href="2-recall/report.html"' in page
    assert page.count("<tr") == 4  # two rows of heads, the baseline and the candidate
    again = finish([*manymax, "compare", run], cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.count("jobs are finished already") == 2
    rebuilt = finish([*manymax, "report", run, "--out", tmp_path / "all.html"], cwd=tmp_path)
    assert rebuilt.stdout.endswith(f"report: {tmp_path}/all.html\n")
    assert 'href="run/2-recall/report.html"' in (tmp_path / "all.html").read_text()
