"""``gcplib data``: render the Typefaces benchmark; ``gcplib data check``: look through a data set on disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

NAME = "data"
SUMMARY = "render the Typefaces benchmark, or check a data set of yours"
DETAIL = (
    "Render the Typefaces benchmark into data/cache/ (once; the same settings are read back the next time).\n"
    "What is left out keeps the library's default."
)
EXAMPLE = "gcplib data --families 60 --train 40 --validation 10 --test 20 --samples samples.png"

FIELDS = {
    "families": "typeface families, the classes",
    "train": "training images per family",
    "validation": "validation images per family",
    "test": "test images per family",
    "pixels": "width and height of an image",
    "seed": "seed of everything random",
}
BACKBONE = "tf_efficientnet_lite0"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    from gcplib.lab.cli import add_command

    for name, what in FIELDS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=what)
    parser.add_argument("--samples", type=Path, metavar="OUT.png", help="also write a figure of sample images")
    parser.add_argument("--features", action="store_true", help=f"also cache the features of {BACKBONE}")
    add_command(parser.add_subparsers(title="commands", metavar="COMMAND"), CHECK)


def run(arguments: argparse.Namespace) -> int:
    """Render the images, and what else is asked for."""
    from gcplib.lab.data import TypefacesSpec, load_typefaces

    given = {name: getattr(arguments, name) for name in FIELDS if getattr(arguments, name) is not None}
    dataset = load_typefaces(TypefacesSpec(**given))
    print(f"Typefaces: {dataset.path}", flush=True)
    if arguments.samples:
        arguments.samples.parent.mkdir(parents=True, exist_ok=True)
        dataset.show().savefig(arguments.samples, dpi=150, bbox_inches="tight")
        print(f"Samples: {arguments.samples}", flush=True)
    if arguments.features:
        from gcplib.lab.training import cache_features

        cache_features(dataset, backbone=BACKBONE)
        print(f"Features of {BACKBONE}: ready", flush=True)
    return 0


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", default="", metavar="PATH", help="folder (none for elpv as it is installed)")
    parser.add_argument("--layout", metavar="NAME", help="layout, such as cub or folder (default: what it looks like)")


def _check(arguments: argparse.Namespace) -> int:
    from gcplib.lab.data import ImagesSpec, check_images
    from gcplib.lab.data.layouts import guess_layout

    if not (arguments.path or arguments.layout):
        raise ValueError("give the folder of the data set: gcplib data check PATH")
    report = check_images(ImagesSpec(arguments.layout or guess_layout(arguments.path), arguments.path))
    print(report, flush=True)
    return 0 if report.whole else 1


CHECK = SimpleNamespace(
    NAME="check",
    SUMMARY="decode every image of a data set on your disk and report what is missing or corrupt",
    DETAIL="Decode every image of a data set on your disk; print what is there beside the published counts, and which\n"
    "images are missing or corrupt. The exit code is 0 if none is, and 1 otherwise.",
    EXAMPLE="gcplib data check ~/data/CUB_200_2011",
    add_options=_check_options,
    run=_check,
)
