"""A real run on tiny sizes: every group yields measurements of goals that exist, and the site can show them."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from benchmarks.goals import GOALS
from benchmarks.limits import Limits
from benchmarks.measure import Measurement
from benchmarks.scale import Scale

from benchmarks import __main__ as command
from benchmarks import errors, limits, linear_step, row_kernels
from manymax.bench import machine
from manymax.kernels.native import native

ROOT = Path(__file__).parents[2]
TINY = Scale("quick", 0.001, {24: 2}, (8,), 96, 32, (8,), (64, 128, 256), (16, 300), (24, 16, 16))
LIMITS = Limits(1e10, 2e10, 1e11, 2e11, "made up")


def hook(name):
    spec = importlib.util.spec_from_file_location(f"hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr("benchmarks.decode.BYTES", 1 << 14)
    monkeypatch.setattr("benchmarks.linear_step.STATES", 2)
    monkeypatch.setattr("benchmarks.whole_models.LAYERS", {"llama": 1, "gpt-oss": 1})
    monkeypatch.setattr("benchmarks.whole_models.SENTENCES", 3)
    monkeypatch.setattr("benchmarks.attention.SHARED", 24)
    monkeypatch.setattr("benchmarks.attention.LONGEST", 24)
    monkeypatch.setattr(machine, "SECONDS", 0.001)
    monkeypatch.setattr(machine, "MATMUL_SIZE", 16)
    monkeypatch.setattr(limits, "OPERATIONS", 1e5)
    monkeypatch.setattr(limits, "ELEMENTS", 4096)


@pytest.mark.parametrize("group", [name for name in command.GROUPS if name not in {"rows", "forward"}])
def test_a_group_measures_its_goals(group):
    found = list(command.GROUPS[group](TINY, LIMITS))
    assert {one.goal.partition("/")[0] for one in found} == {group}
    assert {one.goal for one in found} == {key for key in GOALS if key.partition("/")[0] == group}
    failed = [one for one in found if one.reached is None]
    assert not failed
    assert all(one.backend in {"cpu", ""} for one in found) or native() is None


def test_everything_is_printed_and_written(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "QUICK", TINY)
    monkeypatch.setattr(errors, "LENGTH", 24)
    path = tmp_path / "folder" / "benchmarks.json"
    assert command.main(["--quick", "--only", "forward", "decode", "--json", str(path)]) == 0
    printed = capsys.readouterr()
    assert "N 24, D 8, 2 heads, bfloat16, causal" in printed.err
    assert "decode, 1 query, 32k keys" in printed.out
    assert "short work" not in printed.out
    results = json.loads(path.read_text())
    assert results["machine"]["scale"] == "quick"
    assert len(results["errors"]) == 24
    assert all(0 <= one["out"] < 0.1 for one in results["errors"])
    tables, pictures = hook("benchmarks"), hook("pictures")
    text = tables.fill(
        "<!-- benchmarks: goals -->\n<!-- benchmarks: machine -->\n<!-- benchmarks: forward -->", results
    )
    assert "| attention forward, float32 | PyTorch's sdpa | &ge; 2.20x |" in text
    assert "N 24, D 8, 2 heads, float32 |" in text
    assert "quick run" in text
    assert pictures.roofline(results).count("</svg>") == 1


def test_an_interruption_shows_what_there_is_and_writes_nothing(monkeypatch, capsys, tmp_path):
    def interrupted(scale, limits):
        yield Measurement("short", "N 64", 1.0)
        raise KeyboardInterrupt

    monkeypatch.setitem(command.GROUPS, "short", interrupted)
    monkeypatch.setattr(command, "measure", lambda: LIMITS)
    path = tmp_path / "benchmarks.json"
    assert command.main(["--only", "short", "--json", str(path)]) == 130
    printed = capsys.readouterr()
    assert "interrupted" in printed.err
    assert "1.00x" in printed.out
    assert not path.exists()


def test_limits_are_positive_and_name_their_source():
    found = limits.measure()
    assert min(found.copy, found.read, found.float32, found.bfloat16) > 0
    assert found.of(torch.bfloat16) == found.bfloat16
    assert found.of(torch.float32) == found.float32
    assert found.products in {"torch.mm", "the kernels' own product loop on operands in cache"}


def test_a_build_without_the_entry_falls_back_to_matrix_products(monkeypatch):
    monkeypatch.setattr(limits, "native", lambda: None)
    assert limits.products(torch.float32) is None
    assert limits.measure().products == "torch.mm"


def test_reading_reads_every_byte():
    x = torch.arange(8.0)
    assert limits.read_all(x, x.view(2, 4)).tolist() == [28.0, 28.0]
    halves = torch.ones(4, dtype=torch.bfloat16)
    assert limits.read_all(halves).tolist() == [halves.view(torch.float32).sum().item()]


@pytest.mark.parametrize(("states", "reads"), [(1, linear_step.TOKENS), (3, 3)])
def test_steps_read_every_state_once_a_token(states, reads):
    problem = linear_step.StepProblem(2, states)
    assert problem.work == reads * 4 * 2 * 8 * 64 * 64


def test_rows_are_read_from_their_fields():
    def found(name, row, ratio):
        line = {"map": name, "row": row, "ratio": ratio, "share": 0.5, "of": "copy", "seconds": 0.1}
        return [(one.goal, one.reached) for one in row_kernels.read({"lines": [line]})]

    assert found("softmax", 1024, 3.0) == [("rows/softmax", 0.5), ("rows/softmax/torch", 3.0)]
    assert found("log_softmax", 1023, 3.0) == [("rows/softmax/short", 0.5), ("rows/softmax/torch", 3.0)]
    assert found("logsumexp", 4095, 9.0) == [("rows/logsumexp", 0.5)]
    assert found("logsumexp", 4096, 9.0) == [("rows/logsumexp", 0.5), ("rows/logsumexp/torch", 9.0)]
    assert found("entmax15", 8192, 12.0) == [("rows/threshold", 12.0)]
    assert found("softmax", 1024, None) == found("softmax backward", 64, 2.0) == found("relu", 64, 2.0) == []
    line = {"map": "logsumexp", "row": 64, "ratio": 2.0, "share": 0.5, "of": "read", "seconds": 0.1}
    (one,) = row_kernels.read({"lines": [line]})
    assert (one.case, one.seconds, one.peer_seconds) == ("logsumexp, rows of 64", 0.1, 0.05)


def test_rows_that_fail_are_not_measured(monkeypatch, capsys, tmp_path):
    script = tmp_path / "rows.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(row_kernels, "SCRIPT", script)
    assert list(row_kernels.rows(TINY, LIMITS)) == []
    assert "not measured" in capsys.readouterr().err
