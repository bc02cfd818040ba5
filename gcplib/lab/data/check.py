"""Is a data set whole? Every image is decoded once, so that a corrupt one is met before a long run, not within it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gcplib.lab.data.decoding import DECODER, problem
from gcplib.lab.data.images import Images, ImagesSpec
from gcplib.lab.data.readers import DATASETS, SPLITS, Listing, list_images
from gcplib.lab.data.readers.listing import file_sizes
from gcplib.lab.files import cache_dir, digest, locked, write_json
from gcplib.lab.machine import cpu_count
from gcplib.lab.progress import track

__all__ = ["Report", "check_images", "require_sound"]

_SHOWN = 20
_BATCH = 32


@dataclass(frozen=True)
class Report:
    """What a check of a data set found."""

    dataset: str  # how it lies on disk
    listing: Listing  # its images, before validation images are held out
    missing: list[str]  # listed images that are not on the disk
    corrupt: dict[str, str]  # why each of these cannot be decoded, by path
    name: str | None  # of the published data set, or None where it is not known
    published: Mapping[str, int]  # its counts, by ``train``, ``test``, ``images`` and ``classes``

    @property
    def whole(self) -> bool:
        """Whether no listed image is missing or corrupt."""
        return not (self.missing or self.corrupt)

    def __str__(self) -> str:
        listing = self.listing
        splits = {split: listing.splits.count(split) for split in SPLITS if split in listing.splits}
        counts = {**splits, "images": len(listing.paths), "classes": len(listing.names)}
        rows = {}
        for key, count in counts.items():
            beside = f" of {self.published[key]:,}" if key in self.published else ""
            rows[f"{key} images" if key in splits else key] = f"{count:,}{beside}"
        if listing.groups:
            rows["coarse classes"] = f"{len(set(listing.groups)):,}"
        train = Counter(label for label, split in zip(listing.classes, listing.splits, strict=True) if split == "train")
        fewest, smallest = min((count, label) for label, count in train.items())
        rows["smallest class"] = f"{listing.names[smallest]}: {fewest:,} training images"
        rows |= {"missing": f"{len(self.missing):,}", "corrupt": f"{len(self.corrupt):,}"}
        lines = [f"{self.name or 'Images'} (dataset {self.dataset!r}) in {listing.base}"]
        lines += [f"  {key + ':':<22}{text}" for key, text in rows.items()]
        lines += _shortened("  missing: ", self.missing) + _shortened("  corrupt: ", self.corrupt)
        if not self.whole:
            verdict = "Not whole: restore the images above from the archive, or leave them out by ImagesSpec.skip."
        elif any(counts.get(key, 0) != count for key, count in self.published.items()):
            verdict = (
                "Every listed image is sound, but the counts are not the published ones: a subset, which can be "
                "trained on, or a copy that was cut off."
            )
        else:
            verdict = "Whole."
        return "\n".join([*lines, verdict])


def check_images(spec: ImagesSpec) -> Report:
    """Decode every image of a data set and return what is there, missing and corrupt.

    If all are sound, that is remembered for ``require_sound``.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: the data set cannot be listed; see ``list_images``.
    """
    listing = list_images(spec.dataset, spec.root, spec.skip)
    missing = [path for path in listing.paths if not (listing.base / path).exists()]
    corrupt = _corrupt(listing, missing)
    published = DATASETS[spec.dataset].published
    name = listing.edition or next(iter(published), None)
    return Report(spec.dataset, listing, missing, corrupt, name, published.get(name, {}))


def require_sound(images: Images) -> None:
    """Decode every image of a data set, unless that was done before with these files.

    Call it once before anything that takes long. It is remembered by the names and sizes of the files, whatever the
    other settings: a data set is decoded once, not for each size of images or seed.

    Raises:
        ValueError: images are corrupt; the message lists them with the reasons, and says what to do.
    """
    record = _record(images.listing)
    # Of several runs that start together, one checks and the others wait for what it finds.
    with locked(record):
        corrupt = {} if record.is_file() else _corrupt(images.listing)
    if corrupt:
        raise ValueError(
            f"{len(corrupt)} of the {len(images)} images in {images.path} cannot be decoded. Restore them from the "
            "archive of the data set, or leave them out: name them in ImagesSpec.skip, by these paths.\n"
            + "\n".join(_shortened("  ", corrupt))
        )


def _corrupt(listing: Listing, missing: Sequence[str] = ()) -> dict[str, str]:
    """Return why images cannot be decoded, by path; remember it if none is corrupt or missing."""
    gone = set(missing)
    paths = [path for path in listing.paths if path not in gone]
    # Some at a time: a million futures would take a gigabyte, and one for each image is slower.
    batches = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
    pool = ThreadPoolExecutor(cpu_count())
    try:
        found = pool.map(lambda batch: [problem(listing.base / path) for path in batch], batches)
        reasons = track(itertools.chain.from_iterable(found), "Checking images", total=len(paths), unit=" images")
        corrupt = {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}
    finally:
        # Who interrupts a check of a million images does not wait for the rest.
        pool.shutdown(cancel_futures=True)
    if not (missing or corrupt):
        write_json(_record(listing), {"images": len(paths), "corrupt": 0})
    return corrupt


def _record(listing: Listing) -> Path:
    files = list(zip(listing.paths, file_sizes(listing), strict=True))
    return cache_dir() / f"checked-{digest({'files': files, 'reader': DECODER})}.json"


def _shortened(start: str, items: list[str] | dict[str, str]) -> list[str]:
    lines = [f"{path}: {reason}" for path, reason in items.items()] if isinstance(items, dict) else items
    rest = len(lines) - _SHOWN
    return [f"{start}{line}" for line in lines[:_SHOWN] + ([f"... and {rest} more"] if rest > 0 else [])]
