import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manymax.compare import executors
from manymax.compare.executors import Done, Progress
from manymax.compare.executors.local import LocalExecutor
from manymax.compare.jobs import Order


def order(what, **details):
    return Order({}, "train", what, 3, **details)


@pytest.fixture
def executor():
    local = LocalExecutor(2, work="fake_work")
    yield local
    local.close()


def finish(executor, count):
    """Wait until so many jobs have ended; return all events."""
    events, end = [], time.monotonic() + 30
    while sum(isinstance(event, Done) for event in events) < count and time.monotonic() < end:
        events += executor.wait(1.0)
    return events


def test_jobs_run_in_their_own_processes_and_report(executor):
    orders = [order("fine", steps=5), order("fine", steps=6)]
    for one in orders:
        executor.submit(one)
    events = finish(executor, 2)
    done = {event.order.steps: event.line for event in events if isinstance(event, Done)}
    assert {line["metrics"]["steps"] for line in done.values()} == {5, 6}
    assert len({os.getpid(), *(line["metrics"]["pid"] for line in done.values())}) == 3
    assert [event.share for event in events if isinstance(event, Progress)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("exit-7", "the process ended by itself with exit code 7"),
        ("exit-0", "the process ended by itself with exit code 0"),
        ("kill-SIGKILL", "the process was ended by SIGKILL, as the system does when memory runs out"),
        ("kill-SIGSEGV", "the process was ended by SIGSEGV"),
    ],
)
def test_a_process_that_dies_has_crashed_and_the_others_go_on(executor, tmp_path, what, message):
    log = str(tmp_path / "log.txt")
    executor.submit(order(what, threads=3, log=log))
    executor.submit(order("fine"))
    lines = {event.order.candidate: event.line for event in finish(executor, 2) if isinstance(event, Done)}
    assert lines["fine"]["status"] == "ok"
    assert lines[what]["status"] == "crashed"
    assert lines[what]["message"] == f"{message}; see {log}"
    assert lines[what]["environment"] == {"threads": 3}
    assert (lines[what]["job"], lines[what]["seed"]) == (f"train/{what}/3", 3)
    if what == "kill-SIGSEGV":
        assert "Fatal Python error: Segmentation fault" in Path(log).read_text()


def test_an_exception_that_nobody_expected_is_a_crash_with_its_traceback_in_the_log(executor, tmp_path):
    log = tmp_path / "log.txt"
    executor.submit(order("raise-nonsense", log=str(log)))
    (line,) = [event.line for event in finish(executor, 1) if isinstance(event, Done)]
    assert line["status"] == "crashed"
    assert line["message"] == f"RuntimeError: nonsense; see {log}"
    executor.close()
    assert "Traceback" in log.read_text()


def test_a_job_over_its_time_is_stopped(executor):
    executor.submit(order("sleep-60", timeout=0.5))
    executor.submit(order("sleep-1", timeout=20))
    events = [event for event in finish(executor, 2) if isinstance(event, Done)]
    assert [(event.line["candidate"], event.line["status"]) for event in events] == [
        ("sleep-60", "timeout"),
        ("sleep-1", "ok"),
    ]
    assert events[0].line["message"] == "stopped after 0.5 s"


def test_what_a_job_prints_goes_into_its_log(executor, tmp_path, capfd):
    executor.submit(order("print-hello", log=str(tmp_path / "log.txt")))
    executor.submit(order("print-nothing"))
    finish(executor, 2)
    assert (tmp_path / "log.txt").read_text() == "hello\nhello hello\n"
    assert capfd.readouterr() == ("", "")


def test_close_kills_what_runs(executor):
    executor.submit(order("sleep-60"))
    while not executor.wait(20):  # the first message says what the machine is, and is no event
        pass
    processes = [one.process for one in executor._running]
    executor.close()
    assert [process.exitcode for process in processes] == [-9]
    assert executor.wait(0.0) == []


PARENT = """
import os, sys
sys.path.insert(0, {tests!r})
from manymax.compare.executors.local import LocalExecutor
from manymax.compare.jobs import Order
if __name__ == "__main__":
    executor = LocalExecutor(1, work="fake_work")
    executor.submit(Order({{}}, "train", "sleep-60", 0))
    while not executor.wait(20):  # until the job says that it is under way and goes to sleep
        pass
    print(executor._running[0].process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_jobs_end_when_the_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    child = Path(f"/proc/{int(done.stdout)}/cmdline")
    end = time.monotonic() + 20
    while child.exists() and child.read_bytes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (child.exists() and child.read_bytes())


@pytest.mark.parametrize("address", ["dask:/h:1", "ray://host:1", "dask://", "host:1"])
def test_addresses_of_no_known_kind(address):
    with pytest.raises(ValueError, match="executor: expected dask://HOST:PORT"):
        executors.create(address, 2)


def test_without_an_address_jobs_run_here():
    local = executors.create(None, 3)
    assert isinstance(local, LocalExecutor)
    assert local.slots == 3


SLOW_START = """
import os, signal, sys, threading, time
from manymax.compare.executors.local import LocalExecutor
from manymax.compare.jobs import Order

def press():
    for _ in range(3000):
        if os.path.exists({folder!r} + "/begun"):
            os.killpg(0, signal.SIGINT)
            return
        time.sleep(0.01)

executor = LocalExecutor(1, work="slow_import")
threading.Thread(target=press).start()
try:
    {during}
    time.sleep(30)
except KeyboardInterrupt:
    print(len(executor._running), "to be killed")
    executor.close()
    time.sleep(0.5)
"""


@pytest.mark.parametrize(("during", "running"), [("pass", 0), ('executor.submit(Order({}, "train", "none", 0))', 1)])
def test_ctrl_c_while_the_fork_server_imports_prints_nothing(during, running, tmp_path):
    slow = f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, 'begun').touch()\ntime.sleep(0.4)\n"
    (tmp_path / "slow_import.py").write_text(slow)
    program = SLOW_START.format(folder=str(tmp_path), during=during)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, start_new_session=True, check=True, env=environment)
    assert done.stdout == b"%d to be killed\n" % running
    assert done.stderr == b""
