"""`manymax diagnose`: let a model read a text and say what its attention, activations and scores are like."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SUMMARY = "show what a model's attention, activations and output scores do on a text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `manymax diagnose`."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL_DIR", help="folder of a transformers model and its tokenizer"
    )
    parser.add_argument("--text", type=Path, metavar="FILE", required=True, help="text for the model to read")
    parser.add_argument("--length", type=int, default=256, metavar="N", help="tokens in a sample (256)")
    parser.add_argument("--samples", type=int, default=32, metavar="N", help="samples at most (32)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="samples at a time (4)")
    parser.add_argument("--epsilon", type=float, default=0.3, help="mean weight that makes a sink (0.3)")
    parser.add_argument("--out", type=Path, default=Path("diagnosis.html"), help="the page (diagnosis.html)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, too")


def run(args: argparse.Namespace) -> int:
    """Load, read, print and write the page."""
    for name in ("length", "samples", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(args, name)}")
    if not args.model.is_dir():
        raise FileNotFoundError(f"model: no folder {args.model}")
    text = args.text.read_text(encoding="utf-8", errors="replace")
    from manymax._extras import require  # noqa: PLC0415

    for package in ("rich", "jinja2"):  # asked for before the model has read anything
        require(package, "compare")
    from manymax.diagnose import loading, one_pass, page, terminal  # noqa: PLC0415  (they import torch)

    model, tokenizer = loading.load(args.model)
    batches = loading.batches(model, tokenizer, text, args.length, args.samples, args.batch)
    found = one_pass.run(model, batches, epsilon=args.epsilon)
    terminal.print_diagnosis(found)
    if args.json:
        args.json.write_text(json.dumps(_plain(found.to_dict()), indent=1), encoding="utf-8")
    path = page.save(found, args.out, source=args.text.name, command=args.command_line)
    print(f"page: {path}")
    return 0


def _plain(x: Any) -> Any:
    """Return data that JSON has words for: numbers that are not finite become null."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(value) for value in x]
    return None if isinstance(x, float) and x - x != 0 else x
