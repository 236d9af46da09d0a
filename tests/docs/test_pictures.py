"""Pictures show the kernels as they are, and tables the results as they are."""

import importlib.util
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "src" / "manymax" / "kernels" / "cpu" / "attention"


def hook(name):
    spec = importlib.util.spec_from_file_location(f"hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def constant(file, pattern):
    return int(re.search(pattern, (KERNELS / file).read_text(encoding="utf-8"))[1])


def test_the_tiling_is_that_of_the_kernels():
    pictures = hook("pictures")
    assert constant("tile.h", r"kRows = (\d+);") == pictures.ROWS
    assert constant("forward.h", r"kEntries == 1 \? (\d+) :") == pictures.COLUMNS
    assert constant("products.h", r"kStrip = (\d+);") == pictures.STRIP
    assert constant("products.h", r"kPanelVectors = (\d+);") * pictures.LANES == pictures.PANEL


def test_tiles_cover_what_is_seen_and_no_tile_is_empty():
    pictures = hook("pictures")
    seen = {(i, j) for i in range(0, 768, 32) for j in range(0, i + 32, 32)}
    covered = set()
    for i, j, columns, kind in pictures.tiles():
        pairs = {(r, c) for r in range(i, i + 96) for c in range(j, j + columns)}
        visible = sum(r >= c for r, c in pairs)
        assert visible > 0
        assert (visible == len(pairs)) == (kind == "whole")
        covered |= {(r, c) for r, c in pairs if r % 32 == 0 and c % 32 == 0}
    assert seen <= covered


def test_pictures_are_well_formed_and_without_blank_lines():
    pictures = hook("pictures")
    for name in ("tiling", "roofline"):
        text = pictures.draw(name)
        ET.fromstring(text)
        assert "\n\n" not in text


def test_the_roofline_has_both_sides_of_each_case():
    case = {"reached": 2.0, "seconds": 1e-3, "peer_seconds": 2e-3, "operations": 1e8, "bytes": 1e6}
    cases = [
        {"goal": "forward/float32", "case": "N 1024, D 64, float32", **case},
        {"goal": "decode", "case": "MHA, D 64, bfloat16", **case},
        {"goal": "forward/float32", "case": "N 1024, D 64, float32, causal", **case},
        {"goal": "forward/float32/share", "case": "N 4096, D 64, float32", **case},
        {"goal": "maps/forward", "case": "N 1024, D 64, float32, relu", **case},
    ]
    pictures = hook("pictures")
    limits = {"read": 6e10, "float32": 5e11, "bfloat16": 1e12}
    text = pictures.roofline({"measurements": cases, "limits": limits})
    key = 4
    assert text.count("<circle") == 2 * 2 + key
    x, y = pictures.Axes(1, 100, 1e9, 1e11).at(10, 1e10)
    assert (x, y) == (395, 205)


def test_an_unknown_table_fails_the_build():
    tables = hook("benchmarks")
    results = json.loads(tables.RESULTS.read_text(encoding="utf-8"))
    with pytest.raises(Exception, match="there is no goal 'nothing'"):
        tables.fill("<!-- benchmarks: nothing -->", results)
    assert tables.fill("no mark", results) == "no mark"


def test_cells_have_the_units_of_their_goal():
    tables = hook("benchmarks")
    one = {
        "goal": "decode",
        "case": "MHA",
        "reached": 0.72,
        "low": 0.7,
        "high": 0.74,
        "seconds": 2e-3,
        "message": "",
        "operations": 1e9,
        "bytes": 1e8,
        "limited_by": "bytes",
        "limit": 6.25e10,
    }
    assert tables._case(one, "%") == ["MHA", "72%", "70% to 74%", "2.0 ms", "50 GB/s", "80%"]
    computed = {**one, "limited_by": "operations", "seconds": 5e-4, "reached": 12.3, "low": None, "limit": None}
    assert tables._case(computed, "x") == ["MHA", "12x", "", "500 us", "2000 GFLOP/s", ""]
    failed = {**one, "reached": None, "message": "out of memory"}
    assert tables._case(failed, "x")[:2] == ["MHA", "out of memory"]
