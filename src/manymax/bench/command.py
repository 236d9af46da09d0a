"""`manymax bench attention|maps|heads`: speed beside peers, as ratios, and what it is limited by or grows with."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

SUMMARY = "time attention, maps or output layers side by side with peers"
DTYPES = ("float32", "bfloat16", "float16", "float64")
PEERS = {"attention": ("sdpa", "eager", "flex", "entmax"), "maps": ("torch", "entmax")}
SLOW_PEERS = {"flex"}  # compiles for seconds, so it runs when named
CLASSES = [1000, 10_000, 100_000]
PACKAGES = {"entmax"}  # peers that are packages of their own


def installed(what: str) -> list[str]:
    """Return the peers that run without being named."""
    return [
        peer for peer in PEERS[what] if peer not in SLOW_PEERS and (peer not in PACKAGES or find_spec(peer) is not None)
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax bench`."""
    what = parser.add_subparsers(dest="what", metavar="attention|maps|heads", required=True)
    attention = what.add_parser("attention", help="queries, keys and values to outputs, beside torch's own")
    maps = what.add_parser("maps", help="scores to weights, beside torch and the entmax package")
    for one, name in ((attention, "attention"), (maps, "maps")):
        one.add_argument("--lengths", type=int, nargs="+", metavar="N", help="tokens, or scores in a row")
        one.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32"], metavar="DTYPE")
        one.add_argument("--maps", nargs="+", metavar="MAP", help="names, with options as entmax:alpha=1.3")
        one.add_argument("--peers", nargs="*", choices=PEERS[name], metavar="PEER", help=", ".join(PEERS[name]))
        one.add_argument("--backward", action="store_true", help="time forward and backward together")
    attention.add_argument("--causal", action="store_true", help="a query sees no later key")
    attention.add_argument("--batch", type=int, default=1)
    attention.add_argument("--heads", type=int, default=8)
    attention.add_argument("--head-dim", type=int, default=64)
    attention.add_argument("--backend", default="auto", help="the backend of mm.attention (default: auto)")
    maps.add_argument("--rows", type=int, default=1024)
    heads = what.add_parser("heads", help="a training step of output layers, over the number of classes")
    heads.add_argument("--classes", type=int, nargs="+", default=CLASSES, metavar="C", help="numbers of classes")
    heads.add_argument("--heads", nargs="+", metavar="HEAD", help="names, with options as z-loss-spherical:loss=mse")
    heads.add_argument("--tokens", type=int, default=128, help="in a batch (default: 128)")
    heads.add_argument("--features", type=int, default=128, help="of a token (default: 128)")
    heads.add_argument("--chart", metavar="FILE", help="draw time and memory over the number of classes as SVG")
    for one in (attention, maps, heads):
        one.add_argument("--threads", type=int, metavar="N", help="torch's threads (default: torch's own)")
        one.add_argument("--device", default="cpu")
        one.add_argument("--seconds", type=float, default=25.0, help="for everything together (default: 25)")
        one.add_argument("--json", metavar="FILE", help="write the results there, too")


def run(args: argparse.Namespace) -> int:
    """Time everything and print one table a case."""
    from manymax.bench import heads_report, report  # noqa: PLC0415 -- the command line's help needs no torch

    (heads_report if args.what == "heads" else report).bench(args)
    return 0
