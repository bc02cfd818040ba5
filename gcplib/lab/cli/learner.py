"""``gcplib learner``: write the learner's copies of the notebooks."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "write the learner's copies of the notebooks"
DETAIL = """Write copies of the notebooks to learner/, in which tasks are yours to write and solutions are folded. Where
a study has finished, copies get its parameters, so that its runs are read and not trained again. A copy that you have
changed is left alone."""
EXAMPLE = "python -m gcplib learner 00 01"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="such as 06 (default: all)")
    add("--to", type=Path, metavar="FOLDER", help="of the copies (default: learner)")
    what = "of the study whose parameters they get (default: %(default)s)"
    add("--profile", default="study", metavar="NAME|PATH.yaml", help=what)
    add("--nbgrader", action="store_true", help="sources of assignments, NAME/NAME.ipynb, with the solutions of tasks")
    add("--force", action="store_true", help="write over copies that were changed, too")


def run(arguments: argparse.Namespace) -> None:
    """Write the copies, and say what became of each."""
    if arguments.nbgrader and not arguments.to:
        raise ValueError("say where nbgrader keeps its sources: --nbgrader --to COURSE/source")
    print("Writing copies; the first takes some seconds.", flush=True)  # for the packages that this needs
    from gcplib.lab.course.copies import learner_dir, write_copies

    how = {"profile": arguments.profile, "graded": arguments.nbgrader, "force": arguments.force}
    for copy in write_copies(arguments.notebooks, arguments.to, **how):
        print(copy)
    print(f"Copies: {arguments.to or learner_dir()}")
