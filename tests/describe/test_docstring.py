import pytest

from manymax.describe.docstring import Entry, describe, parse

FULL = r"""Weigh each score.

    $$w_i = x_i / T$$

    with $T$ the temperature. Second sentence.

    $$v = 1$$

    Args:
        x: scores, any shape
            and dtype.
        bias, scale: both: added.
        **params: the rest.

    Returns:
        Weights.

    Raises:
        ValueError: if x is
            empty.
        TypeError: if it is not.

    Example:
        >>> def f():
        ...     return 1
        >>> f()
        1

    Source:
        Somebody et al., 2024, A Title, arXiv:2401.00001.
    """


def test_every_part_is_found():
    text = parse(FULL)
    assert text.summary == "Weigh each score."
    assert text.body.startswith("$$w_i = x_i / T$$\n\nwith $T$ the temperature.")
    assert text.equations == ("w_i = x_i / T", "v = 1")
    assert text.arguments == (
        Entry("x", "scores, any shape and dtype."),
        Entry("bias, scale", "both: added."),
        Entry("**params", "the rest."),
    )
    assert text.returns == "Weights."
    assert text.raises == (Entry("ValueError", "if x is empty."), Entry("TypeError", "if it is not."))
    assert text.example == ">>> def f():\n...     return 1\n>>> f()\n1"
    assert text.source == "Somebody et al., 2024, A Title, arXiv:2401.00001."


def test_a_summary_alone_has_no_other_part():
    text = parse("Only this.")
    assert text == type(text)("Only this.")


def test_attributes_count_as_arguments():
    assert parse("One.\n\nAttributes:\n    name: what it is.").arguments == (Entry("name", "what it is."),)


def test_a_heading_inside_a_sentence_is_no_section():
    assert parse("One.\n\nSee Args: below.").body == "See Args: below."


def test_a_first_line_that_names_nothing_is_refused():
    with pytest.raises(ValueError, match="expected 'name: text', got 'no colon here'"):
        parse("One.\n\nArgs:\n    no colon here")


def test_an_object_without_a_docstring_has_empty_parts():
    assert describe(lambda: None) == parse("")
