"""``gcplib data``: render the Typefaces benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "render the Typefaces benchmark, download a published data set (get), or check one of yours (check)"
DETAIL = """Render the Typefaces benchmark into data/cache/ (once; the same settings are read back the next time).
What is left out keeps the library's default."""
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
    for name, what in FIELDS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=what)
    parser.add_argument("--samples", type=Path, metavar="OUT.png", help="also write a figure of sample images")
    parser.add_argument("--features", action="store_true", help=f"also cache the features of {BACKBONE}")


def run(arguments: argparse.Namespace) -> None:
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
