from argparse import ArgumentParser

import pytest

from manymax import cli
from manymax.describe import list_command, show_command
from manymax.describe.docstring import parse
from manymax.describe.systems import ROOMS, Option, System, options, signature, systems
from manymax.describe.table import aligned


def printed(capsys, *arguments):
    assert cli.main(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("room", ROOMS)
def test_list_has_a_line_for_each_system_and_its_summary(room, capsys):
    lines = printed(capsys, "list", room).splitlines()
    names = [line.split()[0] for line in lines[1:]]
    assert names == sorted(names) == [system.name for system in systems(room)]
    assert all(len(line.split()) > 3 for line in lines[1:])


def test_list_maps_shows_kind_sum_and_companions(capsys):
    lines = {line.split()[0]: line for line in printed(capsys, "list", "maps").splitlines()}
    assert lines["softmax"].split()[1:3] == ["ratio", "1"]
    assert "Also: log_softmax, logsumexp." in lines["softmax"]
    assert lines["sigmoid"].split()[1:3] == ["pointwise", "any"]
    assert "Also" not in lines["sigmoid"]


def test_show_prints_formula_symbols_options_and_source(capsys):
    text = printed(capsys, "show", "sigmoid")
    assert "sigmoid  (map, pointwise, rows need not sum to 1)" in text
    assert "    wᵢ = σ(xᵢ / T + b) = 1 / (1 + e^(-(xᵢ / T + b))),   b = -log n" in text
    assert "with T the temperature" in text
    assert "bias         None  b; None is -log n." in text
    assert "mm.sigmoid(x, dim=-1, *, mask=None, bias=None, temperature=1.0)" in text
    assert "arXiv:2409.04431" in text
    assert "$" not in text


def test_show_finds_a_companion_by_its_own_name(capsys):
    assert "Beside   log_softmax, logsumexp" in printed(capsys, "show", "logsumexp")


def test_show_prints_every_room_that_has_the_name(capsys):
    text = printed(capsys, "show", "stablemax")
    assert "stablemax  (map, ratio" in text
    assert "stablemax  (head)" in text
    assert "stablemax  (claim)" in text
    assert "manymax claims run stablemax" in text


def test_an_unknown_name_is_one_line_with_the_closest(capsys):
    assert cli.main(["show", "sparsemx"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'sparsemx'; did you mean sparsemax" in error


def test_a_name_like_no_other_points_to_the_list():
    with pytest.raises(ValueError, match="nothing here is named 'qqqq'; see `manymax list maps`"):
        show_command.find("qqqq")


def test_arguments_name_every_room():
    parser = ArgumentParser()
    list_command.add_arguments(parser)
    assert parser.parse_args(["claims"]).room == "claims"
    assert set(ROOMS) == {"maps", "attentions", "heads", "tasks", "claims"}


def test_a_table_aligns_and_drops_empty_columns():
    rows = [("NAME", "KIND", "N"), ("a", "", "1"), ("long", "", "20")]
    assert aligned(rows, right={2}) == ["NAME   N", "a      1", "long  20"]


def test_signature_has_defaults_and_no_annotations():
    def function(x: int, *, y: float = 2.0, **rest: str) -> None: ...

    assert signature(function) == "(x, *, y=2.0, **rest)"


def test_options_take_their_meaning_from_args():
    def function(x, y, z="a"):
        """One.

        Args:
            x: left out.
            y, z: both.
        """

    found = options(function, {"x"})
    assert found == (Option("y", "", "both."), Option("z", "'a'", "both."))
    assert [str(one) for one in found] == ["y", "z = 'a'"]


def test_an_option_that_must_be_given_says_so():
    system = System("maps", "m", "", parse("One."), "m()", "here", (Option("size", "", "of it."),))
    assert "size  (required)  of it." in show_command.show(system)


def test_rest_options_keep_their_stars_and_are_not_required():
    def function(**rest):
        """One.

        Args:
            **rest: what else.
        """

    assert options(function) == (Option("**rest", "", "what else."),)
    system = System("maps", "m", "", parse("One."), "m()", "here", options(function))
    assert "**rest    what else." in show_command.show(system)
