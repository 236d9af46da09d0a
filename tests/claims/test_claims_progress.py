import sys

import pytest
from toy_claims import toy

from manymax.claims.progress import Bars, Clock, Lines, ending, shown, spell
from manymax.claims.runner import Run


class Time:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


RUNS = [Run(toy(), seed) for seed in (0, 1, 2)]  # ten stated seconds each
RECORD = {"status": "ok", "seconds": 12.0, "message": ""}


def test_time_left_begins_with_what_the_claims_state():
    clock = Clock(RUNS, Time())
    assert clock.left() == pytest.approx(30)


def test_time_left_follows_the_machine():
    now = Time()
    clock = Clock(RUNS, now)
    clock.start(RUNS[0])
    clock.advance(0.5)
    now.seconds += 30  # six times as long as stated
    assert clock.done == pytest.approx(5)
    assert clock.left() == pytest.approx(25 * (30 + 20) / (5 + 20))
    clock.start(RUNS[1])
    assert clock.done == pytest.approx(10)
    clock.advance(7.0)
    assert clock.done == pytest.approx(20)


def test_lines_appear_at_the_start_the_end_and_now_and_then():
    now, written = Time(), []
    lines = Lines(RUNS, written.append, now)
    lines.started(RUNS[0])
    for _ in range(40):
        now.seconds += 1
        lines.advanced(0.25, "step 7")
    lines.finished(RUNS[0], RECORD)
    lines.started(RUNS[1])
    assert written[0] == "[1/3] toy, seed 0: started, about 30 s left for all"
    assert len(written) == 5
    assert written[1].startswith("[1/3] toy, seed 0: 25%, step 7, about ")
    assert written[3] == "[1/3] toy, seed 0: done after 12 s"
    assert written[4].startswith("[2/3] toy, seed 1: started")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (RECORD, "done after 12 s"),
        ({"status": "crashed", "seconds": 1.2, "message": "ValueError: no"}, "crashed after 1 s: ValueError: no"),
        ({"status": "untestable", "seconds": 0.0, "message": "x is missing"}, "not testable here: x is missing"),
    ],
)
def test_endings_in_words(record, words):
    assert ending(record) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min")])
def test_times_in_words(seconds, words):
    assert spell(seconds) == words


def test_plain_lines_where_there_is_no_terminal(capsys):
    with shown(RUNS) as watcher:
        assert isinstance(watcher, Lines)
        watcher.started(RUNS[0])
    assert capsys.readouterr().out.startswith("[1/3] toy, seed 0: started")


def test_bars_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with shown(RUNS) as watcher:
        assert isinstance(watcher, Bars)
        watcher.started(RUNS[0])
        watcher.advanced(0.5, "step [7]")
        watcher.finished(RUNS[0], RECORD)
    assert "toy, seed 0: done after 12 s" in capsys.readouterr().out


def test_plain_lines_on_a_terminal_without_rich(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("manymax.claims.progress.find_spec", lambda name: None)
    with shown(RUNS) as watcher:
        assert isinstance(watcher, Lines)
