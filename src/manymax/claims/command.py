"""`manymax claims list | run NAME... | run all | report`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from manymax._records import plain, write_whole
from manymax.claims.claim import Claim
from manymax.claims.progress import shown, spell
from manymax.claims.registry import list_claims, load_claim
from manymax.claims.report import DATA, PAGE, collect, page, table
from manymax.claims.report import data as report_data
from manymax.claims.runner import pending, run_all

SUMMARY = "check claims of papers at the scale of a laptop"
FOLDER = Path("runs/claims")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax claims`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="list the claims, the minutes they take, and the verdicts so far")
    running = actions.add_parser("run", help="run claims; what is already measured is not measured again")
    running.add_argument("names", nargs="+", metavar="NAME", help="claims by name, or: all")
    running.add_argument("--fresh", action="store_true", help="measure again what is already measured")
    reporting = actions.add_parser("report", help="print claimed against measured, and write it as a page and as JSON")
    reporting.add_argument("names", nargs="*", metavar="NAME", help="claims by name; default all")
    for action in actions.choices.values():
        action.add_argument("--folder", type=Path, default=FOLDER, help="where results are kept (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """List, run or report claims."""
    actions = {"list": _list, "run": _run, "report": _report}
    return actions[args.action](args)


def _chosen(names: list[str]) -> list[Claim]:
    return [load_claim(name) for name in (list_claims() if names in ([], ["all"]) else dict.fromkeys(names))]


def _list(args: argparse.Namespace) -> int:
    claims = _chosen([])
    wide = max(len(claim.name) for claim in claims)
    for judgement, _ in collect(claims, args.folder):
        claim = judgement.claim
        print(f"{claim.name:<{wide}}  {claim.minutes:>4g} min  {judgement.verdict:<17}  {claim.source}")
    return 0


def _run(args: argparse.Namespace) -> int:
    claims = _chosen(args.names)
    runs = pending(claims, args.folder, fresh=args.fresh)
    total = sum(len(claim.seeds) for claim in claims)
    if len(runs) < total:
        print(f"already measured and kept: {total - len(runs)} of {total} runs; --fresh measures them again")
    crashed = 0
    try:
        with shown(runs) as watcher:
            for record in run_all(runs, args.folder, watcher):
                crashed += record["status"] == "crashed"
    except KeyboardInterrupt:
        print("manymax: the finished runs are kept; the same command goes on from there", file=sys.stderr)
        raise
    _write(claims, args.folder)
    return 1 if crashed else 0


def _report(args: argparse.Namespace) -> int:
    _write(_chosen(args.names), args.folder)
    return 0


def _write(claims: list[Claim], folder: Path) -> None:
    """Print the report of some claims, and write the page and the JSON of all of them."""
    print(table(collect(claims, folder)))
    everything = collect(_chosen([]), folder)
    write_whole(folder / PAGE, page(everything))
    write_whole(folder / DATA, json.dumps(plain(report_data(everything)), indent=1) + "\n")
    seconds = sum(line["seconds"] for _, results in everything for line in results.values())
    print(f"\n{folder / PAGE} and {folder / DATA} hold all claims ({spell(seconds)} of measuring)")
