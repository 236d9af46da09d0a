"""The same jobs on a real Dask cluster of two worker processes."""

import os
import warnings

import pytest
from pretend import Silent

from manymax.compare.executors import Done, create
from manymax.compare.executors.dask import DaskExecutor
from manymax.compare.jobs import Order
from manymax.compare.reading import from_mapping
from manymax.compare.results import latest, read
from manymax.compare.runner import Runner

distributed = pytest.importorskip("distributed")
TINY = {
    "candidates": ["relu"],
    "task": "text:length=16",
    "seeds": 1,
    "steps": 2,
    "budget": 1,
    "batch_size": 2,
    "model": {"depth": 1},
    "lengths": [16],
    "threads": 1,
}


@pytest.fixture(scope="module")
def cluster():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask's own
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
            yield local


@pytest.fixture
def executor(cluster):
    found = create(cluster.scheduler_address.replace("tcp://", "dask://"), 1)
    yield found
    found.close()


def order(candidate="softmax", plan=TINY, **details):
    return Order(from_mapping(plan).as_mapping(), "train", candidate, 0, steps=2, **details)


def finish(executor, count):
    events = []
    while len(events) < count:
        events += executor.wait(1.0)
    assert all(isinstance(event, Done) for event in events)
    return {event.line["candidate"]: event.line for event in events}


def test_jobs_run_on_the_cluster_and_their_ends_become_statuses(executor, strange_plan, tmp_path):
    assert isinstance(executor, DaskExecutor)
    assert executor.slots == 2
    (tmp_path / "started").touch()
    strange = {**TINY, "candidates": ["exits", "sleeps"], "source": str(strange_plan(started=tmp_path / "started"))}
    executor.submit(order())
    executor.submit(order("exits", strange))
    executor.submit(order("sleeps", strange, timeout=20.0))
    lines = finish(executor, 3)
    assert lines["softmax"]["status"] == "ok"
    assert lines["softmax"]["metrics"]["steps"] == 2
    assert lines["softmax"]["environment"]["threads"] == 1
    assert lines["exits"]["status"] == "crashed"
    assert lines["exits"]["message"].startswith("the process ended with exit code 3")
    assert (lines["sleeps"]["status"], lines["sleeps"]["message"]) == ("timeout", "stopped after 20 s")
    assert executor.wait(0.0) == []


def test_two_workers_share_the_jobs(executor, monkeypatch):
    futures = [executor._client.submit(os.getpid, pure=False, workers=[name]) for name in executor._client.nthreads()]
    assert len(set(executor._client.gather(futures))) == 2


@pytest.mark.parametrize(("status", "reason"), [("error", "RuntimeError('gone')"), ("cancelled", "cancelled")])
def test_a_lost_worker_is_a_crash(executor, status, reason):
    class Lost:
        def exception(self):
            assert self.status == "error"
            return RuntimeError("gone")

    future = Lost()
    future.status = status
    line = executor._line(future, order("relu"))
    assert (line["job"], line["status"]) == ("train/relu/0", "crashed")
    assert line["message"] == f"the Dask worker was lost: {reason}"


def test_a_cluster_without_workers_is_refused(monkeypatch, cluster):
    monkeypatch.setattr(distributed.Client, "nthreads", lambda self: {})
    with pytest.raises(ValueError, match="has no workers"):
        DaskExecutor(cluster.scheduler_address)


def test_close_cancels_and_leaves_the_cluster(cluster):
    one = DaskExecutor(cluster.scheduler_address)
    one.submit(order())
    one.close()
    assert one.wait(0.0) == []
    again = DaskExecutor(cluster.scheduler_address)
    assert again.slots == 2
    again.close()


def test_nobody_answers():
    with pytest.raises(ValueError, match=r"executor: no Dask scheduler answers at 127\.0\.0\.1:9"):
        DaskExecutor("127.0.0.1:9", patience=0.5)


@pytest.mark.slow
def test_a_whole_run_on_the_cluster(executor, tmp_path):
    Runner(from_mapping(TINY), tmp_path, executor, Silent()).run("manymax compare")
    found = latest(read(tmp_path / "results.jsonl"))
    assert {name: line["status"] for name, line in found.items()} == dict.fromkeys(
        ["train/softmax/0", "train/relu/0", "speed", "length"], "ok"
    )
