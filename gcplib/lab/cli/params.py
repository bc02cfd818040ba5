"""``gcplib params``: list the parameters of a notebook."""

from __future__ import annotations

import argparse

SUMMARY = "list the parameters of a notebook: name, type, default, meaning"
DETAIL = """List the parameters of notebooks: name, type, default and meaning. Below a parameter that is a dict of
options stand these, as the notebook's check names them. `--set` of `gcplib study` and profiles change them."""
EXAMPLE = "python -m gcplib params 06"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="such as 06")


def run(arguments: argparse.Namespace) -> None:
    """Print a table for each notebook."""
    from gcplib.lab.course.parameters import chosen, parameters_text
    from gcplib.lab.study.notebooks import Notebook

    print("\n\n".join(parameters_text(Notebook(path)) for path in chosen(arguments.notebooks).values()))
