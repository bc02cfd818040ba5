"""The command line, ``gcplib`` or ``python -m gcplib``: one module per command, with its name.

Each has ``SUMMARY``, ``DETAIL`` and ``EXAMPLE``, ``add_options(parser)`` and ``run(arguments)``, which gives the exit
code (None for 0); none imports anything heavy before it runs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from gcplib.lab import remedy
from gcplib.lab.cli import (
    bench,
    check,
    data,
    docs,
    export,
    get,
    learner,
    params,
    predict,
    probe,
    report,
    slides,
    study,
    train,
)

__all__ = ["main", "make_parser"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors about options and choices have the nearest one."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """Parse, after a look at the options in front of a command's own."""
        commands = {name for action in self._actions if action.nargs == argparse.PARSER for name in action.choices}
        options = [name for name in self._option_string_actions if name.startswith("--")]
        words = sys.argv[1:] if args is None else args
        for word in itertools.takewhile(lambda word: word not in commands and word != "--", words):
            if word.startswith("--") and not any(name.startswith(word.split("=")[0]) for name in options):
                self.error(_unknown("option", word, options))
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, _unknown("value", value, action.choices))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (2 for an error in what was asked for)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names that a terminal has no letters for are shown in escapes
            stream.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # commands write files; the caller's backend may need a display or a kernel
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        print("\nInterrupted; the same command continues.", file=sys.stderr)
        return 130
    except Exception as error:
        # What is raised on purpose; anything else is a bug and keeps its traceback.
        is_ours = type(error).__module__.startswith("gcplib.") or isinstance(error, ValueError | OSError | KeyError)
        extra = remedy(error.name) if isinstance(error, ModuleNotFoundError) and error.name else ""
        if arguments.traceback or not (is_ours or extra):
            raise
        # str() of a KeyError is its argument in quotes.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"gcplib: error: {message}{extra}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser, without importing anything heavy."""
    about = "Global covariance pooling: data, training, the study of the papers' claims, and its report."
    parser = Parser(prog="gcplib", description=about)
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    working, teaching = (data, probe, train, predict, export, study, report, bench, docs), (learner, params, slides)
    added = {module: _add(commands, module) for module in (*working, *teaching)}
    below = added[data].add_subparsers(title="commands", metavar="COMMAND")
    for module in (get, check):
        _add(below, module)
    return parser


def _add(commands: Any, module: Any) -> argparse.ArgumentParser:
    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": f"example:\n  {module.EXAMPLE}"}
    name = module.__name__.rpartition(".")[2]
    parser = commands.add_parser(name, help=module.SUMMARY, description=module.DETAIL, **layout)
    parser.set_defaults(run=module.run)
    module.add_options(parser)
    return parser


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    from gcplib.linalg.calls import unknown  # torch comes with it

    return unknown(what, name, known)
