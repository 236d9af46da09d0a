"""`manymax report RUN [RUN...]`: rebuild the report of a run, or of several merged."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "rebuild a run's report, or merge several runs into one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run; more seeds of the same plan merge"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write; report.html in the first RUN by default"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table, write the report, and say where it is."""
    from manymax.compare.report import build, print_table  # noqa: PLC0415  (so that --help reads no result code)

    print_table(args.runs)
    print(f"report: {build(args.runs, args.out)}")
    return 0
