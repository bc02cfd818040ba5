"""The Typefaces benchmark: recognize the typeface of a few words in a small image, drawn on the user's machine."""

from __future__ import annotations

import functools
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image, features
from pydantic import AfterValidator, Field

from gcplib.lab.data import rendering
from gcplib.lab.data.dataset import Dataset, Seed
from gcplib.lab.data.fonts import CATEGORIES, Family, check_installed, find_family, pinned_families
from gcplib.lab.data.readers import SPLITS, Listing
from gcplib.lab.data.workers import draw_all
from gcplib.lab.files import cache_dir, digest, is_verified, locked, mark_verified, write_atomic
from gcplib.lab.validation import specification

__all__ = ["Pair", "Typefaces", "TypefacesSpec", "load_typefaces", "pair"]


def _no_more_than_are_pinned(families: int) -> int:
    if families > (most := len(pinned_families())):
        raise ValueError(f"data/typefaces.txt pins {most} families, got {families}")
    return families


# Every split needs an image of every family.
Count = Annotated[int, Field(ge=1, le=100_000)]


@specification
class TypefacesSpec:
    """The settings of the benchmark.

    Args:
        families: typeface families, the classes.
        train: training images per family.
        validation: validation images per family.
        test: test images per family.
        pixels: side of an image.
        seed: of everything random.

    Raises:
        SpecError: a setting is not an integer, or out of its range.
    """

    families: Annotated[int, Field(ge=2), AfterValidator(_no_more_than_are_pinned)] = 60
    train: Count = 40
    validation: Count = 10
    test: Count = 20
    pixels: Annotated[int, Field(ge=64, le=512)] = 224  # letters need room to be read
    seed: Seed = 0

    # Whether the square may be cropped at different places of an image: it is all there is.
    has_room: ClassVar = False

    @property
    def chosen(self) -> tuple[Family, ...]:
        """The families of this set, in the order of the classes.

        Smaller sets are nested in larger ones, and the categories keep their shares: two families are a sans and a
        serif, ten are mostly text faces.
        """
        pinned = pinned_families()
        shares = {}
        for category in CATEGORIES:
            members = [family for family in pinned if family.category == category]
            shares |= {family: (place + 0.5) / len(members) for place, family in enumerate(members)}
        # The sort is stable, and `shares` is in the order of the categories: that order breaks ties.
        taken = set(sorted(shares, key=lambda family: shares[family])[: self.families])
        return tuple(family for family in pinned if family in taken)

    @property
    def digest(self) -> str:
        """The name of the set, a digest of these settings, the families and their versions, and the renderer's."""
        settings = {
            "spec": asdict(self),
            "families": [[family.name, family.requirement, family.category] for family in self.chosen],
            "renderer": rendering.RENDERER,
            "pillow": [features.version(module) for module in ("pil", "freetype2", "jpg", "libjpeg_turbo")],
        }
        return digest(settings)


class Typefaces(Dataset):
    """A rendered set: images, labels and words; made by `load_typefaces`.

    Images are ordered by split (train, validation, test), then family. They are held as JPEG and decoded on demand.
    """

    def __init__(self, spec: TypefacesSpec, path: Path, jpegs: np.ndarray, offsets: np.ndarray, words: np.ndarray):
        counts = [getattr(spec, split) for split in SPLITS]
        groups = [family.category for family in spec.chosen]
        splits = np.repeat(SPLITS, np.multiply(counts, spec.families))
        classes = np.concatenate([np.repeat(np.arange(spec.families), count) for count in counts])
        listing = Listing(path, [], classes, splits, [family.name for family in spec.chosen], groups)
        super().__init__(spec, listing, [category for category in CATEGORIES if category in groups])
        self._jpegs, self._offsets, self._words = jpegs, offsets, words

    def images(self, indices: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the images at these places: (n, H, W, 3) uint8.

        Raises:
            IndexError: a place is not in 0 ... len - 1.
        """

        def one(_: int, row: int) -> Image.Image:
            return Image.open(io.BytesIO(self._jpegs[self._offsets[row] : self._offsets[row + 1]]))

        return self._decoded(indices, one)

    @functools.cached_property
    def words(self) -> list[str]:
        """The text of every image; its lines are separated by a line feed."""
        return self._words.tobytes().decode().split("\0")


def load_typefaces(spec: TypefacesSpec | None = None, workers: int | None = None) -> Typefaces:
    """Return the set of these settings, rendering it first if its file is missing, truncated or altered.

    The file is ``typefaces-<digest>.npz`` in `gcplib.lab.files.cache_dir`. ``workers`` (default: all cores) does not
    change its bytes. A finished file needs no fonts.

    Raises:
        MissingFamilyError: fonts are missing or in another version; the message holds one pip line for all.
    """
    spec = TypefacesSpec() if spec is None else spec
    path = cache_dir() / f"typefaces-{spec.digest}.npz"
    with locked(path):
        if path.exists():
            try:
                return Typefaces(spec, path, **_read(path))
            except Exception as error:  # damaged bytes raise whatever the zip, the header or the checksum meets first
                warnings.warn(f"{path} is truncated or altered ({error}); rendering it again", stacklevel=2)
        check_installed(spec.chosen)
        arrays = _render(spec, workers)
        with write_atomic(path) as temporary:
            np.savez(temporary, checksum=_checksum(arrays), **arrays)
    return Typefaces(spec, path, **arrays)


def _checksum(arrays: dict[str, np.ndarray]) -> np.ndarray:
    state = hashlib.sha256()
    for name in sorted(arrays):
        state.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        state.update(arrays[name].data)
    return np.frombuffer(state.digest(), dtype=np.uint8)


def _read(path: Path) -> dict[str, np.ndarray]:
    # Opened here: NumPy leaves the file open where it cannot be read.
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("jpegs", "offsets", "words")}
        checksum = file["checksum"]
    if not is_verified(path):
        if not np.array_equal(_checksum(arrays), checksum):
            raise ValueError("its checksum does not match")
        mark_verified(path)
    return arrays


def _render(spec: TypefacesSpec, workers: int | None) -> dict[str, np.ndarray]:
    """Draw every image and return the arrays of the file."""
    tasks = [
        (spec.seed, split, family, index, spec.pixels)
        for split in SPLITS
        for family in spec.chosen
        for index in range(getattr(spec, split))
    ]
    images = draw_all(tasks, workers)
    jpegs = [jpeg for _, jpeg in images]
    return {
        "jpegs": np.frombuffer(b"".join(jpegs), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
        "words": np.frombuffer("\0".join(text for text, _ in images).encode(), dtype=np.uint8),
    }


@dataclass(frozen=True, eq=False)
class Pair:
    """The same words, layout, background and noise in two families: a counterfactual pair.

    ``first`` and ``second`` are (H, W, 3) uint8; ``mask`` (H, W) bool marks the pixels that differ, which are the
    ground truth for attribution; ``ink`` (H, W) bool those under a letter of either family, before the blur;
    ``text`` are the words; ``families`` the two names.
    """

    first: np.ndarray
    second: np.ndarray
    mask: np.ndarray
    ink: np.ndarray
    text: str
    families: tuple[str, str]


def pair(first: str, second: str, spec: TypefacesSpec | None = None, seed: int = 0) -> Pair:
    """Draw the same scene, with words of the test split, in two families.

    The letters have one x-height, and every line one origin. The images are not compressed, so pixels away from
    the letters are equal. ``seed`` picks the scene; ``spec`` gives the size of the images.

    Raises:
        ValueError: a family is not pinned (the message lists near matches), or both are the same.
        MissingFamilyError: a family is not installed; the message holds the pip line.
    """
    spec = TypefacesSpec() if spec is None else spec
    families = find_family(first), find_family(second)
    if families[0] == families[1]:
        raise ValueError(f"a pair needs two different families; both are {families[0].name!r}")
    check_installed(families)
    # Four numbers, as `rendering.scene_rng` takes, with a split that does not exist: no image of the set recurs.
    rng = np.random.default_rng([spec.seed, len(SPLITS), 0, seed])
    scene = rendering.draw_scene(rng, "test", spec.pixels)
    inks = rendering.place_text(scene, families)
    first, second = (rendering.paint(scene, ink) for ink in inks)
    mask = (first != second).any(axis=-1)
    names = families[0].name, families[1].name
    return Pair(first, second, mask, np.maximum(*inks) > 0, scene.text, names)
