"""The closing table: plain when piped, coloured and fitted on a terminal, and never by colour alone."""

import io
import re
import subprocess
import sys

import pytest
import synthetic

from manymax.compare.report import build_overview, print_overview, print_table
from manymax.compare.report.columns import GAP, columns, fitting
from manymax.compare.report.runs import load
from manymax.compare.report.summary import summarise


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def plain(run):
    stream = io.StringIO()
    print_table([run], stream)
    return stream.getvalue()


def on_terminal(run, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "60")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    print_table([run], stream)
    return stream.getvalue()


def cells(text):
    """Return the piped table's rows by candidate."""
    lines = text.split("\n\n")[0].splitlines()
    return {line.split()[0]: re.split(r"\s{2,}", line) for line in lines}


def test_piped_table(everything):
    text = plain(everything)
    assert "\x1b" not in text
    rows = cells(text)
    assert rows["candidate"][:4] == ["candidate", "bits per byte", "vs softmax", "verdict"]
    assert rows["candidate"][4:] == ["train", "generate", "memory", "state", "NaN steps", "largest score"]
    assert list(rows)[1:] == [row.name for row in summarise(load([everything]))]
    assert rows["sigmoid"][3:7] == ["▲ better", "▲ 1.20×", "▼ 0.60×", "▼ 1.15×"]
    assert rows["softplus"][3:5] == ["= no difference", "1.00×"]
    assert rows["entmax:alpha=1.3"][3] == "▼ worse"
    assert rows["relu"][3] == "✕ diverged, 1 of 3 seeds"
    assert rows["stablemax"][3] == "✕ crashed"
    assert rows["sparsemax"][3] == "✕ out of memory"
    assert rows["sinkhorn"][3] == "✕ unsupported"
    assert rows["softmax"][6] == "128 KiB, grows"  # it stands beside nothing in one column
    assert rows["sigmoid"][7] == "▲ 8.00 KiB"
    assert rows["relu"][8] == "3"
    assert re.search(r"sigmoid .*−0\.0\d+ ± 0\.0\d+ ", text)


def test_columns_line_up(everything):
    lines = plain(everything).split("\n\n")[0].splitlines()
    end = lines[0].index("generate") + len("generate")
    assert all(line[end - 1] != " " and line[end : end + 2] == "  " for line in lines)
    start = lines[0].index("verdict")
    assert all(line[start] != " " and line[start - 1] == " " for line in lines)


def test_notes_name_failures_and_meaning(everything):
    text = plain(everything)
    assert "Against softmax, sigmoid is better by" in text
    assert "relu trains fastest, at 1.34× the speed of softmax." in text
    assert "sparsemax, seeds 0, 1, 2: out of memory: needs 9 GiB, 8 GiB are allowed" in text
    assert "quality: bits per byte, lower is better; ± is a 95 % interval" in text
    assert "Noise floor of the timing: 3.0 %." in text


def test_pipe_that_takes_ascii_only(everything):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_table([everything], stream)
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert re.search(r"sigmoid .* -0\.\d+ \+- 0\.\d+  \+ better +\+ 1\.20x +- 0\.60x", text)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_terminal_table_fits_and_is_coloured(everything, width, monkeypatch):
    text = on_terminal(everything, width, monkeypatch)
    assert "\x1b[" in text
    bare = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(len(line) for line in bare.splitlines()) <= width
    assert ("largest score" in bare) == (width == 200)
    for name in synthetic.EVERYTHING:
        assert re.search(rf"^{re.escape(name)} ", bare, flags=re.MULTILINE), name
    for word in ("▲ better", "▼ worse", "= no difference", "✕ diverged", "✕ out of memory", "✕ timeout"):
        assert word in bare, word
    assert re.search(r"^sigmoid .*−0\.0\d+ ± 0\.0\d+ ", bare, flags=re.MULTILINE)


def test_columns_give_way_in_turn(everything):
    runs = load([everything])
    full = columns(runs, summarise(runs))

    def taken(shown):
        return sum(column.width for column in shown) + GAP * (len(shown) - 1)

    widest = taken(full)
    assert [one.key for one in fitting(full, widest)] == [one.key for one in full]
    assert "largest score" not in [one.key for one in fitting(full, widest - 1)]
    for width in range(75, widest):
        assert taken(fitting(full, width)) <= width
    without = [one for one in full if one.key not in ("largest score", "nan steps")]
    fewer = fitting(full, taken(without) - 1)
    assert [one.entries[0].text for one in fewer if one.key == "state"] == ["128 KiB"]
    short = fitting(full, taken(fewer) - 1)
    assert [one.key for one in short] == [one.key for one in without]
    assert (short[1].head, short[1].entries[0].text) == ("quality", without[1].entries[0].text.split()[0])
    assert [one.key for one in fitting(full, 10)] == ["name", "difference", "verdict", "train", "memory"]


def test_command(everything, tmp_path):
    target = tmp_path / "out.html"
    command = [sys.executable, "-m", "manymax.cli", "report", str(everything), "--out", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout.startswith("candidate")
    assert done.stdout.endswith(f"report: {target}\n")
    assert target.stat().st_size > 50_000


def test_command_says_what_is_wrong_in_one_line(tmp_path):
    command = [sys.executable, "-m", "manymax.cli", "report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"manymax: {tmp_path}: not a run of manymax compare, it holds no plan.json\n"


PRINTING = """
import sys
from pathlib import Path
from manymax.compare.report import build_overview, print_overview, print_table
print_table([Path(sys.argv[1])])
assert not {"torch", "matplotlib", "rich"} & set(sys.modules)
"""


def test_piping_the_table_needs_neither_torch_nor_an_optional_package(everything):
    subprocess.run([sys.executable, "-c", PRINTING, str(everything)], check=True, capture_output=True)


def heads_run(folder, quality="bits per word"):
    shares = {"accuracy": 0.25, "top5_accuracy": 0.5, "calibration_error": 0.0123}
    names = ("softmax", "stablemax")
    lines = [synthetic.train(name, seed, **shares) for name in names for seed in range(2)]
    lines.append(synthetic.train("cosface", 0, status="diverged"))
    lines.append(synthetic.speed(dict.fromkeys(names, (1, 1, 1))))
    found = {"name": quality, "better": "lower", "unit": "bits"}
    return synthetic.write(folder, synthetic.plan([*names, "cosface"], 2, site="output", quality=found), lines)


def test_heads_have_columns_for_their_predictions(tmp_path):
    text = plain(heads_run(tmp_path / "words"))
    rows = cells(text)
    assert rows["candidate"][4:9] == ["accuracy", "among 5", "calibration error", "train", "generate"]
    assert rows["stablemax"][4:7] == ["25.0 %", "50.0 %", "1.2 %"]
    assert rows["cosface"][4:7] == ["–"] * 3
    assert "one of the five highest; calibration error: how far" in text
    assert cells(plain(heads_run(tmp_path / "digits", "accuracy")))["candidate"][4:6] == [
        "among 5",
        "calibration error",
    ]


def test_columns_of_predictions_give_way_as_well(tmp_path):
    runs = load([heads_run(tmp_path)])
    full = columns(runs, summarise(runs))
    kept = [[one.key for one in fitting(full, width)] for width in (300, 100, 10)]
    assert {"accuracy", "among 5", "calibration"} <= set(kept[0])
    assert "among 5" not in kept[1]
    assert {"accuracy", "calibration"} <= set(kept[1])
    assert kept[2] == ["name", "difference", "verdict", "train", "memory"]
    assert next(one.head for one in fitting(full, 100) if one.key == "calibration") == "calibration"


@pytest.mark.parametrize("site", ["attention", "output"])
def test_several_tasks_have_a_page_and_a_table(tmp_path, site):
    if site == "output":
        runs = [heads_run(tmp_path / name) for name in ("a", "b")]
    else:
        lines = [synthetic.train(name, seed) for name in ("softmax", "relu") for seed in range(2)]
        runs = [synthetic.write(tmp_path / name, synthetic.plan(["softmax", "relu"], 2), lines) for name in ("a", "b")]
    page = build_overview(runs, tmp_path).read_text(encoding="utf-8")
    heads = re.findall(r'<th scope="col" class="[^"]*">([^<]+)</th>', page)
    last = (
        ["among 5", "calibration error", "training", "memory"]
        if site == "output"
        else ["training", "generation", "state"]
    )
    assert heads == ["verdict", "mean", *last] * 2
    row = re.search(r'<tr class="baseline">.*?</tr>', page, re.DOTALL).group()
    found = re.findall(r"<td[^>]*>([^<]*)", row)
    assert len(found) == len(heads)
    if site == "output":
        assert found[2:4] == ["50.0 %", "1.2 %"]
    stream = io.StringIO()
    print_overview(runs, stream)
    assert stream.getvalue().count("softmax") > 2
