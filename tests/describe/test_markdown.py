import pytest

import manymax as mm
from manymax.describe.docstring import parse
from manymax.describe.markdown import cell, definition, page, reference, table
from manymax.describe.systems import Option, System

SYSTEM = System(
    room="maps",
    name="half",
    kind="ratio",
    text=parse(
        "Halve.\n\n$$w = |x| / 2$$\n\nArgs:\n    x: in.\n\nReturns:\n    Half.\n\nRaises:\n    ValueError: if odd.\n\n"
        "Example:\n    >>> 1\n    1\n\nSource:\n    A, 2020, B | C, arXiv:2001.12345."
    ),
    usage="mm.half(x)",
    module="manymax.maps.half",
    options=(Option("by", "2", "the divisor"),),
    sums_to_one=False,
)


def test_a_page_has_every_part_in_order():
    text = page(SYSTEM, {"softmax": mm.softmax})
    parts = [
        "# half\n",
        "*map, ratio, rows need not sum to 1*",
        "Halve.",
        "$$w = |x| / 2$$",
        "```python\nmm.half(x)\n```",
        "**Options**\n\n`by = 2`\n:   the divisor",
        "**Returns**\n\nHalf.",
        "**Raises**\n\n`ValueError`\n:   if odd.",
        "```pycon\n>>> 1\n1\n```",
        "[arXiv:2001.12345](https://arxiv.org/abs/2001.12345)",
        "Written in `manymax.maps.half`.",
        "## softmax\n",
        "mm.softmax(x, dim=-1",
    ]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_a_command_is_shown_as_one():
    system = System("tasks", "t", "", parse("One."), "manymax compare --task t", "here")
    assert "```bash\nmanymax compare --task t\n```" in page(system, {})


def test_bars_do_not_end_a_cell():
    assert cell("a | b\n $|x| + |y|$") == r"a \| b $\vert x\vert  + \vert y\vert $"


def test_a_table_links_names_and_leaves_out_empty_columns():
    plain = System("heads", "other", "", parse("Other."), "", "")
    lines = table([plain], lambda system: f"{system.name}.md").splitlines()
    assert lines == ["| name | what it does |", "| --- | --- |", "| [other](other.md) | Other. |"]
    assert r"| $w = \vert x\vert  / 2$ |" in table([SYSTEM, plain], lambda _: "x")


def test_a_table_shows_the_clause_that_gives_one_weight():
    text = parse("Cut.\n\n$$w = 1, \\qquad\nw_i = 2, \\quad b = 3$$")
    system = System("maps", "cut", "threshold", text, "", "")
    assert "| $w_i = 2$ |" in table([system], lambda _: "x")


def test_a_formula_that_all_share_tells_none_apart():
    assert "formula" in table([SYSTEM], lambda _: "x")
    assert "formula" not in table([SYSTEM, SYSTEM], lambda _: "x")


@pytest.mark.parametrize(("meaning", "expected"), [("one", "`a`\n:   one"), ("one\n\ntwo", "`a`\n:   one\n\n    two")])
def test_a_definition_keeps_its_paragraphs_together(meaning, expected):
    assert definition("a", meaning) == expected


def test_the_reference_names_public_methods_of_classes():
    class Counter:
        """Count."""

        def up(self):
            """Go up."""

        def _hidden(self):
            """Stay away."""

    text = reference({"Counter": Counter})
    assert "## Counter" in text
    assert "`.up`\n:   Go up." in text
    assert "_hidden" not in text
