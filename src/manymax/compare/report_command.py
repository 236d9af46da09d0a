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
    """Print the table, write the report, and say where it is; of a series of runs do so for each, then for all."""
    from manymax.compare import report, series  # noqa: PLC0415  (so that --help reads no result code)

    parts = series.runs_in(args.runs[0]) if len(args.runs) == 1 else []
    for folders in [[part] for part in parts] or [args.runs]:
        report.print_table(folders)
        print(f"report: {report.build(folders, None if parts else args.out)}")
    if parts:
        report.print_overview(parts)
        print(f"report: {report.build_overview(parts, args.runs[0], args.out)}")
    return 0
