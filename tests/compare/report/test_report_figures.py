"""The data reach the figures, and the names in them keep clear of each other."""

import re
from itertools import pairwise

import pytest
import synthetic

from manymax.compare.report import build
from manymax.compare.report.figures import curves, length, stability, tradeoff
from manymax.compare.report.figures.labels import LONGEST, shorten, spread
from manymax.compare.report.runs import load
from manymax.compare.report.summary import summarise
from manymax.compare.report.svg import COLOURS, colour, variable


@pytest.fixture(scope="module")
def figure(page):
    """Return the SVG of a figure by the prefix of its ids."""

    def find(name):
        found = [
            one for one in re.findall(r"<svg role.*?</svg>", page, flags=re.DOTALL) if f'id="{name}-figure_1"' in one
        ]
        assert len(found) == 1
        return found[0]

    return find


def marked(svg, what):
    """Return the positions of the groups that a figure marks so."""
    return sorted({int(one) for one in re.findall(rf'id="[a-z-]+-{what}-(\d+)', svg)})


def vertices(svg, what, position):
    """Return the path of a marked group as points."""
    group = re.search(rf'id="[a-z-]+-{what}-{position}">(.*?)</g>', svg, flags=re.DOTALL).group(1)
    path = re.search(r' d="([^"]*)"', group).group(1)
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)]


def test_every_curve_is_drawn(figure):
    everyone = list(range(len(synthetic.EVERYTHING)))
    assert marked(figure("curve-quality"), "line") == everyone
    assert marked(figure("curve-quality"), "band") == everyone
    assert marked(figure("curve-loss"), "line") == everyone
    assert marked(figure("curve-gradient"), "line") == everyone
    assert marked(figure("curve-difference"), "line") == everyone[1:]  # the baseline is the zero line
    for what in ("largest-score", "grad-norm-max", "entropy", "first-token-share"):
        svg = figure(f"stability-{what}")
        assert marked(svg, "dot") == everyone
        assert len(re.findall(r'id="[a-z-]+-dot-\d+-\d+', svg)) == 27


def test_points_over_length_and_crossovers(figure):
    assert marked(figure("length-time"), "line") == [0, 1, 2, 3, 4]
    assert marked(figure("length-time"), "crossover") == [1, 4]  # sigmoid at 700 and relu from the start
    assert marked(figure("length-memory"), "crossover") == []
    softmax, entmax = (vertices(figure("length-time"), "line", position) for position in (0, 3))
    assert (len(softmax), len(entmax)) == (6, 4)
    steps = [b[0] - a[0] for a, b in pairwise(softmax)]
    assert steps == pytest.approx([steps[0]] * 5)  # doublings are equally far apart
    rises = [a[1] - b[1] for a, b in pairwise(softmax)]
    assert rises == pytest.approx([rises[0]] * 5)  # and a power law is a line
    assert entmax[0][0] == softmax[0][0]


def test_ring_lies_on_the_candidates_line(figure):
    svg = figure("length-time")
    ring = re.search(r'id="length-time-crossover-1">.*?<use [^>]*x="([\d.]+)" y="([\d.]+)"', svg, flags=re.DOTALL)
    x, y = map(float, ring.groups())
    (x0, y0), (x1, y1) = vertices(svg, "line", 1)[2:4]  # 512 and 1024
    assert x0 < x < x1
    assert y == pytest.approx(y0 + (y1 - y0) * (x - x0) / (x1 - x0), abs=0.01)


def test_tradeoff_has_the_candidates_that_were_timed_and_trained(figure):
    assert marked(figure("tradeoff-train"), "point") == [0, 1, 2, 3, 4]
    assert marked(figure("tradeoff-generate"), "point") == [0, 1, 2, 3]  # relu was not timed there
    svg = figure("tradeoff-train")
    names = re.findall(r">([\w:.=]+)</text>", svg)
    assert set(synthetic.EVERYTHING[:5]) <= set(names)


def test_better_is_up_and_right(tmp_path):
    for better in ("lower", "higher"):
        quality = {"name": "score", "better": better, "unit": ""}
        sign = -1 if better == "lower" else 1
        data = [synthetic.train("softmax", seed, 2.0) for seed in range(2)]
        data += [synthetic.train("relu", seed, 2.0 + sign * 0.5, peak=50 << 20) for seed in range(2)]
        data.append(synthetic.speed({"softmax": (1, 1, 1), "relu": (1.4, 1.5, 1.6)}))
        runs = load([synthetic.write(tmp_path / better, synthetic.plan(["softmax", "relu"], 2, quality=quality), data)])
        for one in tradeoff(runs, summarise(runs)):
            places = re.findall(r'-point-(\d)">.*?<use [^>]*x="([\d.]+)" y="([\d.]+)"', one.svg, flags=re.DOTALL)
            where = {name: (float(x), float(y)) for name, x, y in places}
            assert where["1"][0] > where["0"][0]
            assert where["1"][1] < where["0"][1]  # SVG counts downwards


def test_difference_curve_is_paired_by_seed(tmp_path):
    """Seeds far apart, candidates exactly 0.5 apart: the band of the difference has no height."""
    data = [synthetic.train(name, seed, 2.0) for name in ("softmax", "relu") for seed in range(3)]
    for one in data:
        level = 10 * one["seed"] + 0.5 * (one["candidate"] == "relu")
        one["curves"]["quality"]["value"] = [level] * len(one["curves"]["quality"]["step"])
    runs = load([synthetic.write(tmp_path, synthetic.plan(["softmax", "relu"]), data)])
    quality, difference, _ = curves(runs, summarise(runs))
    assert len({y for _, y in vertices(difference.svg, "band", 1)}) == 1
    assert len({y for _, y in vertices(quality.svg, "band", 1)}) > 1


def test_nothing_recorded_draws_nothing(tmp_path):
    data = [synthetic.line("train/softmax/0", "train", candidate="softmax", seed=0, status="crashed")]
    runs = load([synthetic.write(tmp_path, synthetic.plan(["softmax", "relu"], 1), data)])
    rows = summarise(runs)
    assert tradeoff(runs, rows) == curves(runs, rows) == length(runs, rows) == stability(runs, rows) == []
    assert "Nothing to draw" in build([tmp_path]).read_text(encoding="utf-8")


def test_more_candidates_than_colours(tmp_path):
    names = ["softmax", *(f"candidate{i}" for i in range(20))]
    data = [synthetic.train(name, seed, 2 + 0.01 * i) for i, name in enumerate(names) for seed in range(2)]
    data.append(synthetic.speed({name: (1, 1 + 0.01 * i, 2) for i, name in enumerate(names)}))
    runs = load([synthetic.write(tmp_path, synthetic.plan(names, 2), data)])
    svg = curves(runs, summarise(runs))[0].svg
    assert len(re.findall(r">candidate\d+</text>", svg)) == 20
    assert colour(1) == colour(1 + COLOURS) != colour(2)
    assert (variable(0), variable(COLOURS), variable(COLOURS + 1)) == ("--ink", "--c8", "--c1")
    assert "stroke-dasharray" in svg


def labels_of(svg):
    """Return the left end, height and text of the names in a figure."""
    found = re.findall(r'<text [^>]*x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]*)</text>', svg)
    return [(float(x), float(y), text) for x, y, text in found]


def test_names_do_not_collide(tmp_path):
    """Eight candidates within a hair of each other."""
    names = ["softmax", *(f"mechanism-{i}" for i in range(8))]
    data = [synthetic.train(name, seed, 2 + 1e-4 * i) for i, name in enumerate(names) for seed in range(2)]
    data.append(synthetic.speed({name: (0.999, 1 + 1e-4 * i, 1.001) for i, name in enumerate(names)}))
    runs = load([synthetic.write(tmp_path, synthetic.plan(names, 2), data)])
    rows = summarise(runs)
    for one in (tradeoff(runs, rows)[0], curves(runs, rows)[0]):
        places = [(x, y, text) for x, y, text in labels_of(one.svg) if text in names]
        assert len(places) == 9
        for i, (x, y, text) in enumerate(places):
            for other_x, other_y, _ in places[:i]:
                apart_across = abs(x - other_x) > 6 * len(text)
                assert apart_across or abs(y - other_y) >= 9, text


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([0, 100, 50], [0, 100, 50]),
        ([50, 50], [45, 55]),
        ([50, 52, 51], [41, 61, 51]),
        ([0, 1], [0, 10]),
        ([100, 99], [100, 90]),
        ([20, 21, 80], [15.5, 25.5, 80]),
    ],
)
def test_spread_moves_labels_as_little_as_possible(heights, expected):
    assert spread(heights, 10, 0, 100) == pytest.approx(expected)


def test_long_names_are_cut_in_figures_only(tmp_path):
    name = "a-mechanism-with-a-very-long-name"
    assert shorten(name) == name[: LONGEST - 1] + "…"
    assert shorten(name[:LONGEST]) == name[:LONGEST]
    data = [synthetic.train(each, seed) for each in ("softmax", name) for seed in range(2)]
    page = build([synthetic.write(tmp_path, synthetic.plan(["softmax", name], 2), data)]).read_text(encoding="utf-8")
    assert f">{shorten(name)}</text>" in page
    assert f"{name}<" in page
