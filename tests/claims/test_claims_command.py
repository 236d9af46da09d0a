import json
import re

import pytest
from toy_claims import toy

from manymax import cli
from manymax.claims import command
from manymax.claims.claim import Check

CHECKS = (
    Check("gain", ">", 0.0, "it gains"),
    Check("error", "<=", 0.01, "it is exact", over="every"),
    Check("cost", "<", 1.0, "it is cheap"),
)


def experiment(seed, numbers, progress):
    return {"gain": 1.0 + seed / 10, "error": 0.001 * seed, "cost": 3.0 + seed, "time": 7.0}


@pytest.fixture
def toys(monkeypatch, tmp_path):
    """Put two toys in the place of the claims: one fails on its cost, one crashes if it runs."""

    def crash(seed, numbers, progress):
        raise RuntimeError("boom")

    claims = {
        "good": toy(experiment, name="good", checks=CHECKS, also={"time": "seconds that it takes"}),
        "bad": toy(crash, name="bad", seeds=(0,)),
    }
    monkeypatch.setattr(command, "load_claim", claims.__getitem__)
    monkeypatch.setattr(command, "list_claims", lambda: list(claims))
    monkeypatch.chdir(tmp_path)
    return claims


def test_running_one_claim(toys, capsys, tmp_path):
    assert cli.main(["claims", "run", "good"]) == 0
    text = capsys.readouterr().out
    assert "[3/3] good, seed 2: done" in text
    assert "good: FAILS   Nobody et al., 2020, Toys, arXiv:2001.00001" in text
    assert re.search(r"gain > 0 +1\.1 \[0\.852, 1\.35\] +holds", text)
    assert re.search(r"error <= 0\.01 +0\.002 \(worst of 3\) +holds", text)
    assert re.search(r"cost < 1 +4 \[1\.52, 6\.48\] +fails", text)
    assert "bad" not in text
    assert (tmp_path / "runs/claims/claims.md").exists()


def test_what_is_measured_is_kept(toys, capsys):
    cli.main(["claims", "run", "good", "good"])
    capsys.readouterr()
    assert cli.main(["claims", "run", "good"]) == 0
    text = capsys.readouterr().out
    assert "already measured and kept: 3 of 3 runs" in text
    assert "seed" not in text
    cli.main(["claims", "run", "good", "--fresh"])
    assert "[3/3] good, seed 2: done" in capsys.readouterr().out


def test_a_crash_is_the_exit_code_and_does_not_stop_the_others(toys, capsys):
    assert cli.main(["claims", "run", "bad", "good", "--folder", "elsewhere"]) == 1
    text = capsys.readouterr().out
    assert "bad, seed 0: crashed after 0 s: RuntimeError: boom" in text
    assert "bad: INCONCLUSIVE" in text
    assert "good: FAILS" in text


def test_list_shows_verdicts_so_far(toys, capsys):
    cli.main(["claims", "run", "good"])
    capsys.readouterr()
    assert cli.main(["claims", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["good", "0.5", "min", "fails"]
    assert lines[1].split()[:5] == ["bad", "0.5", "min", "not", "run"]


def test_report_of_what_was_not_run(toys, capsys):
    assert cli.main(["claims", "report"]) == 0
    assert capsys.readouterr().out.count("NOT RUN") == 2


def test_the_page_and_the_data_say_everything(toys, capsys, tmp_path):
    cli.main(["claims", "run", "all"])
    page = (tmp_path / "runs/claims/claims.md").read_text()
    assert "| [good](#good) | Toys (2020) | fails |" in page
    assert "| it is exact | `error <= 0.01` | 0.002 (worst of 3) | holds |" in page
    assert "| seconds that it takes | `time` | 7 | |" in page
    assert "**Verdict: fails** - cost < 1 (measured 4)" in page
    assert "Seeds 0, 1, 2 in 0.0 minutes on " in page
    assert "**Verdict: inconclusive**" in page
    good, bad = json.loads((tmp_path / "runs/claims/claims.json").read_text(), parse_constant=pytest.fail)
    assert [check["verdict"] for check in good["checks"]] == ["holds", "holds", "fails"]
    assert good["checks"][0]["values"] == [1.0, 1.1, 1.2]
    assert good["checks"][0]["interval"] == pytest.approx([1.1 - 0.2484, 1.1 + 0.2484], abs=1e-3)
    assert [run["seed"] for run in good["runs"]] == [0, 1, 2]
    assert bad["checks"][0]["mean"] == "nan"


def test_ctrl_c_keeps_the_finished_runs(toys, monkeypatch, capsys):
    def interrupt(seed, numbers, progress):
        if seed == 1:
            raise KeyboardInterrupt
        return experiment(seed, numbers, progress)

    monkeypatch.setattr(
        command, "load_claim", lambda name: toy(interrupt, name="good", checks=CHECKS, also={"time": ""})
    )
    assert cli.main(["claims", "run", "good"]) == cli.INTERRUPTED
    assert "the finished runs are kept" in capsys.readouterr().err
    monkeypatch.setattr(command, "load_claim", toys.__getitem__)
    cli.main(["claims", "run", "good"])
    text = capsys.readouterr().out
    assert "already measured and kept: 1 of 3 runs" in text
    assert "[2/2] good, seed 2: done" in text


def test_a_misspelt_claim_is_one_line(capsys):
    assert cli.main(["claims", "run", "stabelmax"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean 'stablemax'?" in error


def test_a_folder_that_is_a_file_is_one_line(toys, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert cli.main(["claims", "run", "good", "--folder", "file"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_action_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        cli.main(["claims"])
    assert "ACTION" in capsys.readouterr().err
