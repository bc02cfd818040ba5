"""The command ``predict``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SUMMARY = "say what is in pictures, by a finished run"
DETAIL = """Print the likeliest classes of pictures, prepared as the run's own were; neither its data set nor a network
connection is needed. A picture that cannot be read is named, the others are predicted, and the exit code is 1."""
EXAMPLE = "python -m gcplib predict mpn_cov-fine-head-0-0123456789ab new_pictures/ one_more.jpg --csv answers.csv"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    add = parser.add_argument
    add("run_folder", metavar="RUN", help="the folder of the run, or its name in runs/train")
    add("pictures", nargs="+", metavar="PICTURE", help="a file, or a folder with pictures at any depth")
    add("--top", type=int, default=3, metavar="N", help="tell the N likeliest classes (default: %(default)s)")
    add("--csv", type=Path, metavar="OUT.csv", help="write the table to a file instead")
    add("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Predict, and return the exit code."""
    from gcplib.lab.files import write_text
    from gcplib.lab.training import Run

    table = Run.load(arguments.run_folder).predict(arguments.pictures, arguments.top, arguments.accelerator)
    bad = table[table.problem != ""]
    if arguments.csv:
        write_text(arguments.csv, table.to_csv(index=False))
        print(f"Written: {arguments.csv} ({len(table)} pictures)")
    elif len(bad) < len(table):
        good = table[table.problem == ""].drop(columns="problem")
        percent = {name: "{:.1%}".format for name in good if name.startswith("probability")}
        print(good.to_string(index=False, formatters=percent))
    for problem in bad.problem:
        print(f"gcplib: error: {problem}", file=sys.stderr)
    return int(len(bad) > 0)
