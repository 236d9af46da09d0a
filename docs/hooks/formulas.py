"""Formulas become MathML while the site is built, so that it needs no script and no network to show them."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_LEFT_OVER = re.compile(r"\\[A-Za-z]+")


def to_mathml(latex: str, *, block: bool) -> str:
    """Return MathML.

    Raises:
        PluginError: if a command is unknown to the converter, which would print it as it stands.
    """
    known = latex.replace(r"\arg", r"\operatorname{arg}").replace(r"\bigl", "").replace(r"\bigr", "")
    mathml = convert(known, display="block" if block else "inline")
    left = _LEFT_OVER.search(mathml)
    if left:
        raise PluginError(f"formula: {left[0]} is not known to latex2mathml in {latex!r}")
    return mathml


def on_page_content(content: str, **_: object) -> str:
    """Replace what arithmatex marked on a page."""

    def replace(match: re.Match[str]) -> str:
        return to_mathml(html.unescape(match[2]).strip(), block=match[1] == "div")

    return _FORMULA.sub(replace, content)
