"""The command line, ``gcplib`` or ``python -m gcplib``: one module per command.

Each has ``NAME``, ``SUMMARY``, ``DETAIL`` and ``EXAMPLE``, ``add_options(parser)`` and ``run(arguments)``, which returns
the exit code; none imports anything heavy before it runs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from gcplib.lab.cli import bench, data, docs, report, study, train

__all__ = ["main", "make_parser"]

COMMANDS = (data, train, study, report, bench, docs)
# Packages whose modules have other names.
PACKAGES = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors about choices have the nearest one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, _unknown("value", value, action.choices))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (2 for an error in what was asked for)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names that a terminal has no letters for are shown in escapes
            stream.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # commands write files; the caller's backend may need a display or a kernel
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        options = [name for name in arguments.parser._option_string_actions if name.startswith("--")]
        arguments.parser.error(_unknown("option" if rest[0].startswith("-") else "argument", rest[0], options))
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("\nInterrupted; the same command continues.", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.traceback or not _is_known(error):
            raise
        # str() of a KeyError is its argument in quotes.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"gcplib: error: {message}{_remedy(error)}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser, without importing anything heavy."""
    parser = Parser(
        prog="gcplib",
        description="Global covariance pooling: data, training, the study of the papers' claims, and its report.",
    )
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in COMMANDS:
        add_command(commands, module)
    return parser


def add_command(commands: Any, module: Any) -> argparse.ArgumentParser:
    """Add a command to those of a parser: a module, or anything with the same names."""
    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": f"example:\n  {module.EXAMPLE}"}
    parser = commands.add_parser(module.NAME, help=module.SUMMARY, description=module.DETAIL, **layout)
    parser.set_defaults(run=module.run, parser=parser)
    module.add_options(parser)
    return parser


def _is_known(error: Exception) -> bool:
    """Say whether it was raised on purpose; anything else is a bug and keeps its traceback."""
    ours = type(error).__module__.startswith("gcplib.")
    return ours or isinstance(error, ValueError | OSError | KeyError) or bool(_remedy(error))


def _remedy(error: Exception) -> str:
    """Return the command that installs a missing package of an extra."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = PACKAGES.get(error.name.split(".")[0], error.name.split(".")[0].replace("_", "-"))
    for line in importlib.metadata.requires("gcplib") or ():
        if found := re.match(rf"{re.escape(package)}\b.*extra == ['\"](\w+)['\"]", line):
            return f"; it comes with: pip install 'gcplib[{found[1]}]'"
    return ""


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    from gcplib.linalg.calls import unknown  # torch comes with it

    return unknown(what, name, known)
