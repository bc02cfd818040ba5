"""``gcplib data check``: look through a data set on disk."""

from __future__ import annotations

import argparse

SUMMARY = "decode every image of a data set on your disk and report what is missing, corrupt, twice there or left out"
DETAIL = """Decode every image of a data set on your disk; print what is there beside the published counts, which
images are missing or corrupt, which are there twice in different splits or classes, and which files are left out. The
exit code is 0 if none is missing or corrupt, and 1 otherwise."""
EXAMPLE = "gcplib data check ~/data/CUB_200_2011"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    parser.add_argument(
        "path", nargs="?", default="", metavar="PATH", help="folder or CSV (none for elpv as it is installed)"
    )
    parser.add_argument("--dataset", metavar="NAME", help="such as cub or folder (default: what it looks like)")


def run(arguments: argparse.Namespace) -> int:
    """Check the images, and return 1 if any is missing or corrupt."""
    from gcplib.lab.data import ImagesSpec, check_images
    from gcplib.lab.data.readers import guess_dataset

    if not (arguments.path or arguments.dataset):
        raise ValueError("give the folder of the data set: gcplib data check PATH")
    report = check_images(ImagesSpec(arguments.dataset or guess_dataset(arguments.path), arguments.path))
    print(report, flush=True)
    return 0 if report.whole else 1
