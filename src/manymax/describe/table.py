"""Aligned plain text, the same on a terminal, in a pipe and in a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = "  "


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> list[str]:
    """Return the lines of a table; a column with nothing below the first row is left out.

    Args:
        rows: cells; the first row is the header.
        right: columns that hold numbers, aligned to the right.
    """
    shown = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    width = {column: max(len(row[column]) for row in rows) for column in shown}
    return [
        GAP.join(
            row[column].rjust(width[column]) if column in right else row[column].ljust(width[column])
            for column in shown
        ).rstrip()
        for row in rows
    ]
