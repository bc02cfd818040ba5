"""Is a data set whole? Every image is decoded once, so that a corrupt one is met before a long run, not within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from gcplib.lab.data.images import Images, ImagesSpec, listed
from gcplib.lab.data.readers import DATASETS, SPLITS, Listing
from gcplib.lab.data.soundness import corrupt_images, known_corrupt
from gcplib.lab.data.twins import Twins, find_twins, fingerprint

__all__ = ["Report", "check_images", "require_sound"]

_SHOWN, _FEW = 20, 5


@dataclass(frozen=True)
class Report:
    """What a check of a data set found."""

    dataset: str  # how it lies on disk
    listing: Listing  # its images, before validation images are held out
    missing: list[str]  # listed images that are not on the disk
    corrupt: dict[str, str]  # why each of these cannot be decoded, by path
    name: str | None  # of the published data set, or None where it is not known
    published: Mapping[str, int]  # its counts, by ``train``, ``test``, ``images`` and ``classes``
    twins: list[Twins]  # images that are there twice, in different splits or under different labels

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
        for kind, title in ((True, "equal files"), (False, "look alike")):
            own = [pair for pair in self.twins if pair.equal == kind]
            across, labels = (sum(bool(getattr(pair, what)) for pair in own) for what in ("splits", "labels"))
            rows[title] = f"{across:,} pairs across splits, {labels:,} under different labels"
        lines = [f"{self.name or 'Images'} (dataset {self.dataset!r}) in {listing.base}"]
        lines += [f"  {key + ':':<22}{text}" for key, text in rows.items()]
        lines += _shortened("  missing: ", self.missing) + _shortened("  corrupt: ", self.corrupt)
        lines += _shortened("  twice there: ", list(map(str, self.twins)), _FEW)
        beside = listing.left_out.lines() if listing.left_out else []
        lines += [f"  left out: {line}" for line in beside]
        if not self.whole:
            verdict = (
                "Not whole: restore the images above from the archive, or leave them out by ImagesSpec.skip, or all "
                "corrupt ones by skip_corrupt."
            )
        elif any(counts.get(key, 0) != count for key, count in self.published.items()):
            verdict = (
                "Every listed image is sound, but the counts are not the published ones: a subset, which can be "
                "trained on, or a copy that was cut off."
            )
        else:
            verdict = "Whole."
        return "\n".join([*lines, verdict])


def check_images(spec: ImagesSpec) -> Report:
    """Decode every image of a data set and return what is there, missing, corrupt, twice there and left out.

    If all are sound, that is remembered for ``require_sound``.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: the data set cannot be listed; see ``list_images``.
    """
    listing = listed(spec, whole=True)
    missing = [path for path in listing.paths if not (listing.base / path).exists()]
    marks: dict[str, int] = {}

    def look(path: str, image: Image.Image) -> None:
        if (mark := fingerprint(image)) is not None:
            marks[path] = mark

    corrupt = corrupt_images(listing, missing, look)
    published = DATASETS[spec.dataset].published
    name = listing.edition or next(iter(published), None)
    twins = find_twins(listing, marks)
    return Report(spec.dataset, listing, missing, corrupt, name, published.get(name, {}), twins)


def require_sound(images: Images) -> None:
    """Decode every image of a data set, unless that was done before with these files.

    Call it once before anything that takes long. It is remembered by the names and sizes of the files, whatever the
    other settings: a data set is decoded once, not for each size of images or seed.

    Raises:
        ValueError: images are corrupt; the message lists them with the reasons, and says what to do.
    """
    if corrupt := known_corrupt(images.listing):
        raise ValueError(
            f"{len(corrupt)} of the {len(images)} images in {images.path} cannot be decoded. Restore them from the "
            "archive of the data set, or leave them out: all by skip_corrupt of ImagesSpec (--skip-corrupt, "
            "--set data.skip_corrupt=true), or by these paths in skip.\n" + "\n".join(_shortened("  ", corrupt))
        )


def _shortened(start: str, items: list[str] | dict[str, str], shown: int = _SHOWN) -> list[str]:
    lines = [f"{path}: {reason}" for path, reason in items.items()] if isinstance(items, dict) else items
    rest = len(lines) - shown
    return [f"{start}{line}" for line in lines[:shown] + ([f"... and {rest} more"] if rest > 0 else [])]
