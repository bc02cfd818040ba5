"""``gcplib slides``: write the notebooks as slides."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "write the notebooks as slides for a lecture"
DETAIL = """Write slides of notebooks to slides/, each a page of HTML that needs no network (reveal.js): headings,
formulas, predictions, tasks and figures; all other text is in the speaker's notes (key S). Figures are those of a
study, if it has run."""
EXAMPLE = "python -m gcplib slides 00 01"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="such as 06 (default: all)")
    add("--to", type=Path, metavar="FOLDER", help="of the slides (default: slides)")
    what = "of the study whose executed notebooks are shown (default: %(default)s)"
    add("--profile", default="study", metavar="NAME", help=what)


def run(arguments: argparse.Namespace) -> None:
    """Write the slides, and say where they are."""
    from gcplib.lab.course.deck import write_slides

    for path, has_figures in write_slides(arguments.notebooks, arguments.to, profile=arguments.profile):
        missing = f" (without figures: it has not run in the study {arguments.profile!r})"
        print(f"Slides: {path}{'' if has_figures else missing}")
