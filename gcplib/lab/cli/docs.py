"""``gcplib docs``: write the generated pages of ``docs/``."""

from __future__ import annotations

import argparse

SUMMARY = "write the generated pages of docs/"
DETAIL = (
    "Write the pages of docs/ that come from kept measurements, docstrings, recipes, notebooks and profiles.\n"
    "The exit code of --check is 1 if one of them is out of date."
)
EXAMPLE = "python -m gcplib docs --check"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    parser.add_argument("--check", action="store_true", help="write nothing; name the pages that are out of date")


def run(arguments: argparse.Namespace) -> int:
    """Write or check the pages, and return the exit code."""
    from gcplib.lab.doc_pages import PAGES, stale_pages, write_page

    paths = stale_pages() if arguments.check else [write_page(name) for name in PAGES]
    for path in paths:
        print(f"{'Out of date' if arguments.check else 'Written'}: {path}")
    return int(arguments.check and bool(paths))
