"""The command line: `manymax COMMAND`. Importing this imports no torch; a command does when it runs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from importlib import import_module

from manymax import __version__

COMMANDS = {
    "list": "manymax.describe.list_command",
    "show": "manymax.describe.show_command",
    "compare": "manymax.compare.command",
    "validate": "manymax.compare.validate_command",
    "report": "manymax.compare.report_command",
    "claims": "manymax.claims.command",
    "bench": "manymax.bench.command",
    "diagnose": "manymax.diagnose.command",
}
INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended
READER_GONE = 141  # the same for SIGPIPE
USER_ERRORS = (ValueError, TypeError, ImportError, OSError)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command's arguments."""
    parser = argparse.ArgumentParser(prog="manymax", description="Everything that turns scores into weights.")
    parser.add_argument("--version", action="version", version=f"manymax {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, path in COMMANDS.items():
        module = import_module(path)
        command = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code. A user's mistake is one line on stderr and code 2, never a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(given)
    options.command_line = shlex.join(["manymax", *given])
    try:
        return int(options.run(options))
    except KeyboardInterrupt as interruption:
        print(f"manymax: {interruption}" if interruption.args else "manymax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
        return READER_GONE
    except USER_ERRORS as error:
        if options.debug:
            raise
        print(f"manymax: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
