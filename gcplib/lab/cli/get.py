"""``gcplib data get``: download a published data set."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

SUMMARY = "download a published data set, such as cub, verify it and unpack it"
DETAIL = """Download a published data set, verify size and checksum, unpack it to FOLDER/NAME and check every image. A
download that broke off is continued, and what is there is not downloaded again. Names: cub, aircraft, dogs, flowers,
pets, grocery, ucm, dtd. Their licenses are their publishers'. The exit code is 0 if the images are sound and as many
as published, 1 if not, and 2 if the data set cannot be had."""
EXAMPLE = "gcplib data get cub --to ~/data"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    parser.add_argument("name", metavar="NAME", help="such as cub")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="of data sets (default: data/cache/published)")


def run(arguments: argparse.Namespace) -> int:
    """Get the data set, check it, and say what to do with it."""
    from gcplib.lab.data import ImagesSpec, check_images
    from gcplib.lab.data.download import get_dataset
    from gcplib.lab.files import cache_dir

    root = get_dataset(arguments.name, arguments.to or cache_dir() / "published")
    print(f"{arguments.name}: {root}", flush=True)
    report = check_images(ImagesSpec(arguments.name, str(root)))
    print(report, flush=True)
    listing = report.listing
    counts = {split: listing.splits.count(split) for split in set(listing.splits)}
    counts |= {"images": len(listing.paths), "classes": len(listing.names)}
    if not report.whole or any(counts.get(key, 0) != count for key, count in report.published.items()):
        print(f"\nThis is not what was published. Remove {root} and run the same command again.")
        return 1
    place = shlex.quote(str(root))
    print(
        f"\nNext, what covariances gain on it, or a network trained on it:\n  gcplib probe {place}\n  gcplib train "
        f"--set data.dataset={arguments.name} --set data.root={place}"
    )
    return 0
