import subprocess
import sys

import pytest

from manymax import cli
from manymax.compare import command, options, series
from manymax.compare.reading import from_mapping


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_imports_no_torch(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "manymax.cli", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert "manymax.compare.plan" in imported
    assert not imported & {"torch", "numpy", "rich", "jinja2", "matplotlib", "sklearn", "distributed"}
    assert "manymax" in done.stdout


def test_every_command_has_a_summary_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["compare", "--nonsense"], ["compare", "--seeds", "many"]])
def test_arguments_that_do_not_exist(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: manymax" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--site", "router"], "site: 'router' is planned but not built yet; attention and output are"),
        (["compare", "nowhere.toml"], "nowhere.toml: no such plan file"),
        (["compare", "."], ".: no state.json in it, so it is not the folder of a run"),
        (["compare", "--budget", "soon"], "budget: expected a duration such as '90s', '3min' or '1h30min', got 'soon'"),
        (["compare", "--workers", "0"], "workers: expected 1 or more, got 0"),
        (["compare", "--executor", "dask://x:1", "--workers", "2"], "workers: expected nothing with --executor"),
        (["compare", "--executor", "spark://x"], "executor: expected dask://HOST:PORT, got 'spark://x'"),
        (["compare", "--model", "depth"], "model: expected 'name', 'name:option=value,...' or a table with a name"),
        (["validate", "--lengths", "4", "2"], "lengths: expected growing numbers, got [4, 2]"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"manymax: {message}")
    assert output.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        cli.main(["--debug", "compare", "nowhere.toml"])


def test_an_unknown_key_of_a_plan_file_is_named(tmp_path, capsys):
    (tmp_path / "plan.toml").write_text('candidats = ["relu"]\n')
    assert cli.main(["compare", str(tmp_path / "plan.toml")]) == 2
    assert "unknown key 'candidats'" in capsys.readouterr().err


def test_validate_finds_a_misspelt_map(capfd):
    assert cli.main(["validate", "--candidates", "sigmoid", "sofplus"]) == 2
    output = capfd.readouterr()
    assert output.err.startswith("manymax: candidates: expected one of ")
    assert output.err.endswith("got 'sofplus'; did you mean 'softplus'?\n")
    assert output.err.count("\n") == 1


def test_validate_tells_what_is_fine_from_what_is_unsupported(capfd):
    arguments = ["validate", "--task", "recall", "--model", "depth=1", "--candidates"]
    assert cli.main([*arguments, "sigmoid:bias=-1"]) == 0
    output = capfd.readouterr()
    assert output.out.splitlines()[:2] == ["softmax: fine", "sigmoid:bias=-1: fine"]
    assert "attention on recall, 3 seeds, baseline softmax; family gpt, depth 1" in output.out
    assert cli.main([*arguments, "sinkhorn"]) == 1
    assert "sinkhorn: unsupported: " in capfd.readouterr().out


@pytest.mark.parametrize("package", command.PACKAGES)
def test_a_missing_package_is_named_before_anything_is_computed(package, monkeypatch, capsys):
    monkeypatch.setattr(command, "PACKAGES", (f"{package}_is_missing",))
    assert cli.main(["compare"]) == 2
    assert (
        capsys.readouterr().err
        == f"manymax: {package}_is_missing is not installed; run: pip install 'manymax[compare]'\n"
    )


@pytest.mark.parametrize(("message", "shown"), [("", "interrupted"), ("interrupted; go on", "interrupted; go on")])
def test_an_interruption_is_one_line(message, shown, monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt(message) if message else KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupt)
    assert cli.main(["compare"]) == 130
    assert capsys.readouterr().err == f"manymax: {shown}\n"


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "manymax.cli", "list", "maps"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_options_come_before_the_plan_file(tmp_path, monkeypatch):
    path = tmp_path / "plan.toml"
    path.write_text('seeds = 5\ntask = "digits"\nmodel = {depth = 4}\n')
    words = ["compare", str(path), "--seeds", "7,9", "--model", "depth=1", "width=64", "--batch-size", "3"]
    monkeypatch.chdir(tmp_path)
    (plan,) = series.plans(options.read_keys(cli.build_parser().parse_args(words)))
    assert plan.seeds == (7, 9)
    assert plan.task == "digits"
    assert plan.model == {"depth": 1, "width": 64}
    assert plan.batch_size == 3
    words = ["compare", "--text", "prose.txt"]
    (plan,) = series.plans(options.read_keys(cli.build_parser().parse_args(words)))
    assert plan.text == str(tmp_path / "prose.txt")


@pytest.mark.parametrize(
    ("keys", "workers", "cores", "expected"),
    [
        ({}, None, 2, (2, (1, 2))),
        ({}, None, 64, (21, (3, 64))),
        ({}, 1, 2, (1, (2, 2))),
        ({}, 4, 2, (4, (1, 2))),
        ({"threads": 2}, None, 4, (2, (2, 2))),
        ({"threads": 8}, None, 4, (1, (8, 8))),
        ({"device": "cuda"}, None, 4, (1, (4, 4))),
    ],
)
def test_cores_are_shared_between_trainings(keys, workers, cores, expected, monkeypatch):
    monkeypatch.setattr(options, "cores", lambda: cores)
    assert command.shares(from_mapping(keys), workers) == expected


def test_where_a_run_goes(monkeypatch):
    parse = cli.build_parser().parse_args
    plan = from_mapping({"task": "text:length=16"})
    monkeypatch.setattr(command.time, "strftime", lambda form: "20260101-000000")
    assert str(command._folder(parse(["compare"]), [plan])) == "runs/20260101-000000-text"
    both = [plan, from_mapping({"task": "recall"})]
    assert str(command._folder(parse(["compare"]), both)) == "runs/20260101-000000-text-recall"
    assert str(command._folder(parse(["compare", "--out", "here"]), [plan])) == "here"
    assert str(command._folder(parse(["compare", "/tmp"]), [plan])) == "/tmp"
    with pytest.raises(ValueError, match="out: expected nothing"):
        command._folder(parse(["compare", "/tmp", "--out", "here"]), [plan])
