r"""LaTeX as plain text for a terminal: $\frac{e^{x_i}}{\sum_j e^{x_j}}$ becomes e^(xᵢ) / (Σⱼ e^(xⱼ)).

It knows what formulas in docstrings use; an unknown command keeps its name, so that nothing vanishes from a formula.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from manymax.describe.symbols import (
    ACCENTS,
    BLACKBOARD,
    CLOSE,
    LETTERS,
    OPEN,
    PRODUCTS,
    RELATIONS,
    SILENT,
    SPACES,
    STYLES,
    SUBSCRIPT,
    SUMS,
    SUPERSCRIPT,
    WORDS,
)

_LEXEME = re.compile(r"\\(?:text|mathrm|operatorname\*?)\{[^{}]*\}|\\[A-Za-z]+|\\.|[^\s]", re.DOTALL)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
_LOOSE = {"sum", "relation", "comma", "space"}  # neighbours beside which a / b needs no brackets


@dataclass
class _Piece:
    """A stretch of output; its role decides about the spaces around it."""

    text: str
    role: str  # letter, word, sum, product, relation, open, close, comma, fraction or space


def _join(pieces: list[_Piece]) -> str:
    """Set the pieces side by side with the spaces that a reader expects."""
    out = ""
    before = "open"  # so that a leading minus is a sign
    for index, piece in enumerate(pieces):
        text, role = piece.text, piece.role
        after = pieces[index + 1].role if index + 1 < len(pieces) else "close"
        if role == "fraction":
            alone = before in {"open", *_LOOSE} and after in {"close", *_LOOSE}
            text, role = text if alone else f"({text})", "close"
            out += " " if before == "word" else ""
        if role in {"relation", "product"} or (role == "sum" and before in {"letter", "word", "close"}):
            out = f"{out.rstrip()} {text} "
        elif role == "comma":
            out += f"{text} "
        elif (before == "word" and role in {"letter", "word"}) or (role == "word" and before in {"letter", "close"}):
            out += f" {text}"
        else:
            out += text
        before = role if text else before
    return re.sub(r" {3,}", "   ", re.sub(r"(?<=\S) {2}(?=\S)", " ", out.replace(" ;", ";"))).strip()


def _bracket(text: str) -> str:
    """Put brackets around what would fall apart in front of or behind a division."""
    inside = re.sub(r"\([^()]*\)", "", text)
    return f"({text})" if " " in inside else text


def _script(text: str, mark: str, table: dict[str, str]) -> str:
    """Return a sub- or superscript in Unicode where every character has one."""
    tight = text.replace(" ", "")
    if tight and all(character in table for character in tight):
        return "".join(table[character] for character in tight)
    return f"{mark}{text}" if len(text) == 1 else f"{mark}({text})"


class _Reader:
    """A recursive-descent reader: one method for each thing that a formula nests."""

    def __init__(self, latex: str) -> None:
        self.lexemes: list[str] = _LEXEME.findall(latex)
        self.position = 0
        self.columns = ""  # what stands between the columns of an environment

    def _next(self) -> str:
        self.position += 1
        return self.lexemes[self.position - 1]

    def _peek(self) -> str:
        return self.lexemes[self.position] if self.position < len(self.lexemes) else ""

    def read(self, end: str = "") -> str:
        """Read up to the lexeme `end`, which is consumed, or to the end of the formula."""
        pieces: list[_Piece] = []
        while self._peek() and self._peek() != end:
            lexeme = self._next()
            if lexeme in {"^", "_"}:
                script = _script(self._argument(), lexeme, SUPERSCRIPT if lexeme == "^" else SUBSCRIPT)
                if pieces:
                    pieces[-1].text += script
                else:
                    pieces.append(_Piece(script, "letter"))
            else:
                pieces.append(self._piece(lexeme))
        self.position += 1
        return _join(pieces)

    def _argument(self) -> str:
        """Read one group or one lexeme."""
        lexeme = self._next() if self._peek() else ""
        return self.read("}") if lexeme == "{" else self._piece(lexeme).text

    def _environment(self) -> _Piece:
        """Read cases or aligned rows as text between braces."""
        name = "".join(iter(self._next, "}")).lstrip("{")
        depth, start = 1, self.position
        while depth:
            depth += {r"\begin": 1, r"\end": -1}.get(self._next(), 0)
        rows = self.lexemes[start : self.position - 1]
        inner = _Reader("")
        inner.lexemes = rows
        inner.columns = " if " if name == "cases" else ""
        while self._next() != "}":
            pass
        text = inner.read().rstrip("; ")
        return _Piece(f"{{ {text} }}" if name == "cases" else text, "letter")

    def _piece(self, lexeme: str) -> _Piece:
        """Turn a lexeme, and the groups that belong to it, into a piece."""
        name = lexeme.removeprefix("\\")
        if lexeme == "{":
            return _Piece(self.read("}"), "letter")
        if lexeme == "&":
            return _Piece(" " if self._peek().startswith(r"\text{") else self.columns, "space")
        if len(lexeme) > 2 and "{" in lexeme:
            text = name.partition("{")[2][:-1]
            return _Piece(text, "word" if text == text.strip() else "space")
        if name == "begin":
            return self._environment()
        if name in {"frac", "tfrac", "dfrac"}:
            return _Piece(f"{_bracket(self._argument())} / {_bracket(self._argument())}", "fraction")
        if name == "sqrt":
            return _Piece(f"√{_bracket(self._argument())}", "letter")
        if name in ACCENTS:
            return _Piece(self._argument() + ACCENTS[name], "letter")
        if name in STYLES:
            text = self._argument()
            return _Piece(BLACKBOARD.get(text, text) if name == "mathbb" else text, "letter")
        if name in SILENT:
            return _Piece("", "space")
        return self._symbol(lexeme, name)

    def _symbol(self, lexeme: str, name: str) -> _Piece:
        """Turn a lexeme that takes no argument into a piece."""
        if lexeme != name and name in SPACES:
            return _Piece(SPACES[name], "space")
        for table, role in (
            (LETTERS, "letter"),
            (SUMS, "sum"),
            (PRODUCTS, "product"),
            (RELATIONS, "relation"),
            (WORDS, "word"),
            (OPEN, "open"),
            (CLOSE, "close"),
        ):
            if name in table and (lexeme != name or len(name) == 1):
                return _Piece(table[name], role)
        if lexeme in {",", ";"}:
            return _Piece(lexeme, "comma")
        return _Piece(name, "word" if lexeme != name else "letter")


def plain(latex: str) -> str:
    """Return a formula as one line of plain text.

    Args:
        latex: LaTeX without dollar signs.
    """
    return _Reader(latex).read()


def plain_text(markdown: str) -> str:
    """Return Markdown with its formulas and code marks as plain text."""
    return _MATH.sub(lambda match: plain(match[1] or match[2]), markdown).replace("`", "")
