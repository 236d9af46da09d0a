import json
import re

import pytest
import torch

import manymax as mm
from manymax import cli
from manymax.bench import attention, command, machine, maps
from manymax.bench.attention import AttentionProblem
from manymax.bench.maps import MapProblem

QUICK = ["--seconds", "0.01", "--threads", "1"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(machine, "SECONDS", 0.001)
    monkeypatch.setattr(machine, "MATMUL_SIZE", 32)


def bench(capsys, *arguments):
    code = cli.main(["bench", *arguments, *QUICK])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def test_maps_are_timed_beside_their_peers_and_written(capsys, tmp_path):
    file = tmp_path / "folder" / "maps.json"
    arguments = [
        "--maps",
        "sparsemax",
        "entmax:alpha=1.3",
        "sigmoid",
        "logsumexp",
        "--lengths",
        "8",
        "33",
        "--rows",
        "4",
    ]
    out = bench(capsys, "maps", *arguments, "--dtypes", "float32", "float64", "--json", str(file))
    assert len(re.findall(r"^length (8|33), float(32|64); A/A control: noise floor ", out, re.MULTILINE)) == 4
    assert out.count("baseline") == 4
    result = json.loads(file.read_text())
    assert [(case["length"], case["dtype"]) for case in result["cases"]] == [
        (8, "float32"),
        (33, "float32"),
        (8, "float64"),
        (33, "float64"),
    ]
    rows = result["cases"][0]["rows"]
    assert [(row["name"], row["map"], row["status"]) for row in rows] == [
        ("torch", "softmax", "ok"),
        ("manymax", "sparsemax", "ok"),
        ("entmax", "sparsemax", "ok"),
        ("manymax", "entmax:alpha=1.3", "ok"),
        ("manymax", "sigmoid", "ok"),
        ("torch", "sigmoid", "ok"),
        ("manymax", "logsumexp", "ok"),
        ("torch", "logsumexp", "ok"),
    ]
    assert all(row["seconds"] > 0 and len(row["speed"]) == 3 and row["share"] > 0 for row in rows)
    assert result["environment"]["threads"] == 1
    assert result["settings"]["rows"] == 4


@pytest.mark.parametrize("options", [[], ["--causal"], ["--causal", "--backward"]])
def test_attention_is_timed_beside_its_peers(capsys, tmp_path, served, options):
    file = tmp_path / "a.json"
    sizes = ["--lengths", "24", "--batch", "2", "--heads", "3", "--head-dim", "8"]
    chosen = ["--maps", "softmax", "sigmoid", "sparsemax", "softmax1", "--peers", "eager", "entmax"]
    bench(capsys, "attention", *sizes, *chosen, *options, "--json", str(file))
    rows = {(row["name"], row["map"]): row for row in json.loads(file.read_text())["cases"][0]["rows"]}
    expected = {("sdpa", "softmax"), ("eager", "softmax"), ("entmax", "sparsemax")}
    expected |= {("manymax", name) for name in ("softmax", "sigmoid", "sparsemax", "softmax1")}
    assert set(rows) == expected | ({("eager", "sigmoid")} if "--causal" not in options else set())
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows["manymax", "softmax"]["backend"] == served("sdpa")
    assert rows["manymax", "sigmoid"]["backend"] == served("reference")


def test_a_backend_that_cannot_serve_is_a_status(capsys):
    chosen = ["--maps", "softmax", "sigmoid", "--backend", "sdpa", "--lengths", "16", "--head-dim", "8"]
    out = bench(capsys, "attention", *chosen)
    assert re.search(r"sigmoid +manymax +unsupported: backend 'sdpa' cannot serve this call", out)
    assert re.search(r"softmax +manymax \(sdpa\) .* ok", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maps", "--maps", "sofmax"], "did you mean 'softmax'"),
        (["maps", "--maps", "entmax:alpha=0.5"], "alpha"),
        (["attention", "--maps", "log_softmax"], "expected one that returns weights, got 'log_softmax'"),
        (["attention", "--backend", "tile"], "did you mean 'tiled'"),
        (["maps", "--rows", "0"], "--rows: expected at least 1, got 0"),
        (["maps", "--lengths", "0"], "--lengths: expected at least 1, got 0"),
        (["attention", "--head-dim", "-1"], "--head-dim: expected at least 1, got -1"),
        (["maps", "--seconds", "0"], "--seconds: expected a number above 0, got 0.0"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_peer_or_dtype_is_refused(capsys):
    for wrong in (["--peers", "xformers"], ["--dtypes", "float8"]):
        with pytest.raises(SystemExit):
            cli.main(["bench", "attention", *wrong])
        assert "invalid choice" in capsys.readouterr().err


def test_threads_are_set_back(capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    bench(capsys, "maps", "--maps", "softmax", "--lengths", "8", "--rows", "2")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_peers_that_are_not_installed_do_not_run_by_default(monkeypatch):
    assert command.installed("maps") == ["torch", "entmax"]
    assert command.installed("attention") == ["sdpa", "eager", "entmax"]
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.installed("maps") == ["torch"]


def test_peers_of_the_command_line_are_those_that_exist():
    assert tuple(attention.PEERS) == command.PEERS["attention"]
    assert tuple(maps.PEERS) == command.PEERS["maps"]


@pytest.mark.parametrize("name", mm.list_maps())
def test_the_check_tells_right_from_wrong_for_every_map(name):
    problem = MapProblem(20, 12, torch.float32, "cpu")
    out = maps.make_map(name)(problem.inputs[0])
    assert problem.error(name, out) < 1e-4
    assert problem.error(name, torch.cat([out[:-1], 0.9 * out[-1:]])) > 1e-2


@pytest.mark.parametrize("peer", maps.PEERS)
def test_every_peer_of_a_map_agrees_with_its_formula(peer):
    problem = MapProblem(20, 12, torch.float32, "cpu")
    offered = maps.PEERS[peer]([*mm.list_maps(), "log_softmax", "logsumexp"], 12)
    assert offered
    assert all(problem.error(name, function(*problem.inputs)) < 1e-5 for name, function in offered.items())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sparsemax"])
def test_the_check_of_attention_looks_at_the_last_queries(name, causal):
    problem = AttentionProblem(2, 3, 40, 8, torch.float32, "cpu", causal)
    out = mm.attention(*problem.inputs, is_causal=causal, map=name)
    assert problem.error(name, out) < 1e-5
    wrong = mm.attention(*problem.inputs, is_causal=not causal, map=name)
    assert problem.error(name, wrong) > 1e-3


def test_work_is_counted():
    full = AttentionProblem(2, 3, 4, 5, torch.float32, "cpu")
    assert full.work == 2 * 2 * (2 * 3) * 4 * 4 * 5
    assert AttentionProblem(2, 3, 4, 5, torch.float32, "cpu", True, True).work == 7 * 2 * (2 * 3) * 10 * 5
    assert MapProblem(3, 7, torch.bfloat16, "cpu").work == 2 * 3 * 7 * 2
    assert MapProblem(3, 7, torch.float64, "cpu", True).work == 5 * 3 * 7 * 8


def test_limits_are_rates(monkeypatch):
    monkeypatch.setattr(machine, "best", lambda call, device: 0.5)
    assert machine.copy_bandwidth(10, torch.float32, "cpu") == 2 * 10 * 4 / 0.5
    assert machine.matmul_rate(torch.float32, "cpu") == 2 * 32**3 / 0.5
