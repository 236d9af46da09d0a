import io

import pytest
from rich.console import Console

from manymax.compare import progress
from manymax.compare.progress import LiveDisplay, PlainDisplay, outcome


def line(status="ok", message="", **metrics):
    return {"job": "train/relu/0", "status": status, "message": message, "seconds": 2.345, "metrics": metrics}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (line(quality=2.34567), "train/relu/0: ok after 2.3 s, 2.346 bits"),
        (line(), "train/relu/0: ok after 2.3 s"),
        (line("timeout", "stopped after 60 s"), "train/relu/0: timeout (stopped after 60 s)"),
        (line("crashed"), "train/relu/0: crashed"),
    ],
)
def test_outcomes(given, shown):
    assert outcome(given, "bits") == shown


def test_plain_lines():
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display.start(5, 2, "bits")
    display.ended(line(quality=1.5))
    display.running({"train/relu/1": 0.5}, 65.0)
    display.ended(line("diverged", "NaN"))
    display.stop()
    assert stream.getvalue().splitlines() == [
        "2 of 5 jobs are finished already",
        "[3/5] train/relu/0: ok after 2.3 s, 1.5 bits",
        "[4/5] train/relu/0: diverged (NaN); about 1:05 left",
    ]


def test_live_bars():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = LiveDisplay(console)
    display.start(4, 1, "bits")
    display.running({"train/relu/0": 0.25, "train/relu/1": 0.5}, 65.0)
    display._progress.refresh()  # by itself it draws ten times a second
    display.running({"train/relu/1": 0.75}, 35.0)
    assert list(display._bars) == ["train/relu/1"]
    display.ended(line("crashed", "[red]no markup[/red]"))
    display.running({}, 30.0)
    display._progress.refresh()
    display.stop()
    text = console.file.getvalue()
    assert "1 of 4, 1:05 left" in text
    assert "25 %" in text
    assert "train/relu/0: crashed ([red]no markup[/red])" in text
    assert "2 of 4, 1 failed, 0:30 left" in text
    assert list(display._bars) == []


@pytest.mark.parametrize(("terminal", "kind"), [(True, LiveDisplay), (False, PlainDisplay)])
def test_the_display_fits_where_stdout_goes(monkeypatch, terminal, kind):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: terminal, raising=False)
    assert isinstance(progress.create(), kind)
