"""`manymax list ROOM`: one line for each system."""

from __future__ import annotations

import argparse

from manymax.describe.plain import plain_text
from manymax.describe.systems import ROOMS, System, systems
from manymax.describe.table import aligned

SUMMARY = "list the maps, attention mechanisms, heads, tasks or claims that there are"
_SUM = {None: "", True: "1", False: "any"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax list`."""
    parser.add_argument("room", choices=list(ROOMS), help="what to list")


def _row(system: System) -> tuple[str, ...]:
    also = f" Also: {', '.join(system.companions)}." if system.companions else ""
    return system.name, system.kind, _SUM[system.sums_to_one], plain_text(system.text.summary) + also


def run(args: argparse.Namespace) -> int:
    """Print the room's systems."""
    header = ("NAME", "KIND", "ROW SUM", "WHAT IT DOES")
    print("\n".join(aligned([header, *map(_row, systems(args.room))])))
    return 0
