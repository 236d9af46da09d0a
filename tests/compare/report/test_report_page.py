"""The page's structure: order, offline, escaped, accessible, in both colour schemes."""

import errno
import re
from pathlib import Path

import pytest
import synthetic
from markup import Markup

from manymax.compare.report import build

STATUSES = ("diverged", "crashed", "out of memory", "timeout", "unsupported")


@pytest.fixture(scope="module")
def markup(page):
    return Markup(page)


def test_sections_come_in_the_promised_order(markup):
    ids = [one["id"] for one in markup.named("section")]
    assert ids == ["verdict", "tradeoff", "curves", "length", "stability", "reproduce", "noise", "reading"]
    assert markup.unclosed == []


def test_title_and_verdict_sentence_stand_before_the_first_table(page):
    head = page[: page.index("<table")]
    assert "<h1>softmax against 8 candidates</h1>" in head
    assert "Against softmax, sigmoid is better by" in head
    assert head.index("<h1>") < head.index('class="verdict"')


def test_first_table_is_the_verdict_and_holds_every_candidate(markup):
    names = [row[0].split()[0] for row in markup.tables[0][2:]]
    assert names[0] == "softmax"
    assert set(names) == set(synthetic.EVERYTHING)
    assert [names.index(one) for one in ("sigmoid", "softplus", synthetic.ENTMAX, "relu")] == [1, 2, 3, 4]  # best first


def test_every_status_and_message_is_shown(markup):
    text = markup.text()
    assert all(status in text for status in STATUSES)
    assert "loss is NaN at step 104" in text
    assert "relu, seed 1: diverged" in re.sub(r"\s+", " ", text).replace(" ,", ",")
    assert "stablemax , seeds 0, 1, 2: crashed : RuntimeError: <b>boom</b> & so on" in re.sub(r"\s+", " ", text)


def test_nothing_is_loaded_from_outside(page, markup):
    assert not {"link", "script", "img", "iframe", "object", "embed"} & {tag for tag, _ in markup.tags}
    for _, attributes in markup.tags:
        for key, value in attributes.items():
            assert key not in ("src", "srcset", "action"), key
            assert not key.endswith("href") or value.startswith("#"), value
    assert "://" not in page
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_ids_are_unique_and_references_resolve(page, markup):
    ids = [attributes["id"] for _, attributes in markup.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert references
    assert set(references) <= set(ids)


def test_both_colour_schemes_and_no_fixed_colour_in_figures(page):
    assert "prefers-color-scheme: dark" in page
    assert "color-scheme: light dark" in page
    figures = re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) == 13
    for figure in figures:
        assert not re.findall(r"(?:fill|stroke|color): *#[0-9a-f]{3,6}", figure)
        assert "var(--" in figure
        assert "DejaVu" not in figure
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    dark = page[page.index("prefers-color-scheme: dark") :]
    for name in used:
        assert f"{name}:" in page[: page.index("prefers-color-scheme: dark")], name
        assert f"{name}:" in dark or name == "--font", name


def test_figures_say_what_they_show(page, markup):
    labels = [one["aria-label"] for one in markup.named("svg") if one.get("role") == "img"]
    assert len(labels) == page.count("<figure>")
    assert "bits per byte against training speed for softmax, sigmoid, softplus, entmax:alpha=1.3, relu" in labels
    assert not any("<style" in figure for figure in re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL))


def test_tables_scroll_in_a_box_of_their_own_that_the_keyboard_reaches(page):
    assert page.count("<table") == page.count('class="scroll" tabindex="0"') == 4
    assert 'name="viewport"' in page


def test_crossovers_are_tabled(markup):
    heads, *rows = markup.tables[1]
    assert heads == ["Candidate", "tokens", "served by"]
    cells = {name: values for name, *values in rows}
    assert cells["sigmoid"] == ["700", "tiled"]
    assert cells["relu"] == ["128 every length measured", "tiled"]
    assert cells["softplus"] == ["never up to 4,096", "tiled"]
    assert cells[synthetic.ENTMAX] == ["never up to 1,024", "tiled"]  # it went no further, so nothing is known beyond
    assert cells["sinkhorn"] == ["– unsupported", "– unsupported"]
    assert "softmax" not in cells


def test_numbers_over_length(markup):
    heads, *rows = markup.tables[2]
    assert heads == ["Candidate", "128", "256", "512", "1,024", "2,048", "4,096"]
    cells = {name: values for name, *values in rows}
    assert cells["softmax"][:2] == ["1.64 ms", "6.55 ms"]  # 1e-7 * 128 ** 2 and * 256 ** 2
    assert cells[synthetic.ENTMAX][3:] == ["629 ms", "– too slow", "– too slow"]
    assert cells["sinkhorn"] == ["– unsupported"] * 6
    assert next(row for row in markup.tables[3] if row[0] == "softmax")[1] == "512 KiB"


def test_command_machine_and_plan(markup):
    text = re.sub(r"\s+", " ", markup.text())
    assert "manymax compare --seeds 3" in text
    assert "Example CPU @ 3 GHz" in text
    assert "dim 64, depth 2, heads 4" in text
    assert "reaches 3.0 % away from 1" in text
    assert "computing time 6 min 2 s" in text  # 29 jobs of 12.5 s
    assert "parameters 123,456" in text
    assert "finished 2026-11-22 03:50 UTC" in text


HOSTILE = "<script>alert(1)</script>\"'&$x^{$ {{ 7 * 7 }}"


def test_hostile_names_and_messages_are_text(tmp_path):
    lines = [synthetic.train("softmax", 0), synthetic.train(HOSTILE, 0, 2.4)]
    lines.append(synthetic.train("relu", 0, status="crashed", message=HOSTILE))
    lines.append(synthetic.speed({"softmax": (1, 1, 1), HOSTILE: (0.9, 1.1, 1.3)}))
    lines.append(synthetic.length({"softmax": synthetic.quadratic(), HOSTILE: synthetic.quadratic(2)}))
    plan = synthetic.plan(["softmax", HOSTILE, "relu"], 1, command=f"manymax compare {HOSTILE}", task=HOSTILE)
    page = build([synthetic.write(tmp_path, plan, lines)]).read_text(encoding="utf-8")
    markup = Markup(page)
    assert "script" not in {tag for tag, _ in markup.tags}
    assert markup.unclosed == []
    assert any(HOSTILE in cell for row in markup.tables[0] for cell in row)
    assert f"manymax compare {HOSTILE}" in markup.text()
    assert "49" not in markup.text().split("How to read")[0].split("Reproduce")[1]


def test_report_goes_where_it_is_told(everything, page, tmp_path):
    target = build([everything], tmp_path / "elsewhere.html")
    assert target == tmp_path / "elsewhere.html"
    assert target.read_text(encoding="utf-8") == page  # and the same run always gives the same file


def test_full_disk_leaves_the_earlier_report(everything, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("earlier")

    def full(path, text, encoding):
        with path.open("w", encoding=encoding) as file:
            file.write(text[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        build([everything], target)
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "earlier"


def test_output_layer_has_no_section_over_length(tmp_path):
    lines = [synthetic.train(name, seed) for name in ("softmax", "relu") for seed in range(2)]
    lines.append(synthetic.speed({"softmax": (1, 1, 1), "relu": (1, 1, 1)}))
    run = synthetic.write(tmp_path, synthetic.plan(["softmax", "relu"], 2, site="output"), lines)
    page = build([run]).read_text(encoding="utf-8")
    assert 'id="length"' not in page
    assert "not finished" not in page
