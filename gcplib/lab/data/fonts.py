"""The pinned font families: which they are, whether they are installed, and how they are opened."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import statistics
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from gcplib.lab.files import project_root
from gcplib.linalg.calls import unknown

CATEGORIES = ("sans", "serif", "mono", "display", "script")
# Weight is drawn from this range in every image, so that it tells nothing about the family.
WEIGHTS = (350.0, 500.0)
CHARACTERS = string.ascii_letters + string.digits
_LINE = re.compile(
    r"^(?P<package>fontpkg-[a-z0-9-]+)==(?P<version>\S+)\s+#\s*(?P<category>\w+)\s*\|\s*(?P<name>.+?)\s*$"
)


class MissingFamilyError(RuntimeError):
    """Font packages are not installed, or not in the pinned version; the message holds the pip line."""


@dataclass(frozen=True)
class Family:
    """One font family: its name, the package and version that hold it, and its coarse category."""

    name: str
    package: str
    version: str
    category: str

    @property
    def requirement(self) -> str:
        """The line of a pip requirements file, without the comment."""
        return f"{self.package}=={self.version}"


def read_families(path: Path) -> tuple[Family, ...]:
    """Return the families of a list, whose lines are pip requirements with category and name as a comment.

    Raises:
        ValueError: a line is something else.
    """
    families = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None or match["category"] not in CATEGORIES:
            raise ValueError(
                f"{path.name}, line {number}: {line!r} should read 'fontpkg-NAME==VERSION  # CATEGORY | Family' "
                f"with a category of {', '.join(CATEGORIES)}"
            )
        families.append(Family(**match.groupdict()))
    return tuple(families)


@functools.cache
def pinned_families() -> tuple[Family, ...]:
    """Return the families of the benchmark, in the order of ``typefaces.txt``, which is the order of the classes."""
    packaged = Path(__file__).with_name("typefaces.txt")
    return read_families(packaged if packaged.is_file() else project_root() / "data" / "typefaces.txt")


def find_family(name: str) -> Family:
    """Return the pinned family of this name (case does not matter).

    Raises:
        ValueError: there is no such family; the message has the nearest and all that there are.
    """
    for family in pinned_families():
        if family.name.lower() == str(name).lower():
            return family
    raise ValueError(unknown("typeface", name, [family.name for family in pinned_families()]))


def _installed_version(package: str) -> str | None:
    try:
        # Some wheels write 3.013 where pip lists 3.13: the same version, in the form that pip prints.
        return re.sub(r"(?<!\w)0+(?=\d)", "", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return None


def check_installed(families: Sequence[Family]) -> None:
    """Check that every family is installed in its pinned version: another version would draw other images.

    Raises:
        MissingFamilyError: some are not; the message names all of them and holds one pip line for all.
    """
    problems, requirements = [], []
    if _installed_version("fontpkg") is None:
        problems.append("fontpkg itself is not installed")
        requirements.append("fontpkg")
    for family in families:
        version = _installed_version(family.package)
        if version != family.version:
            state = "is not installed" if version is None else f"is version {version}, pinned is {family.version}"
            problems.append(f"{family.name} {state}")
            requirements.append(family.requirement)
    if problems:
        raise MissingFamilyError(
            f"the images need {len(families)} font families: {'; '.join(problems)}.\n"
            f"Run: pip install {' '.join(requirements)}"
        )


@functools.cache
def font_source(name: str) -> tuple[str, tuple[tuple[str, float, float, float], ...]]:
    """Return the path of a family's upright regular font, and its axes (tag, low, default, high)."""
    import fontpkg
    from fontTools.ttLib import TTFont

    path = str(fontpkg.path(name, weight=400, nearest=True))
    with TTFont(path, lazy=True) as font:
        missing = sorted(set(map(ord, CHARACTERS)) - set(font.getBestCmap()))
        if missing:
            raise ValueError(f"{name} has no glyph for {''.join(map(chr, missing))!r}: leave this family out")
        axes = font["fvar"].axes if "fvar" in font else ()
        return path, tuple((a.axisTag, a.minValue, a.defaultValue, a.maxValue) for a in axes)


# Axes that fontpkg's files may have besides weight. The defaults of some are a display cut: Bricolage opens at
# optical size 96, Fraunces with its wonky letters. We want the cut meant for text.
_AXES = {"opsz": 14.0, "wdth": 100.0, "WONK": 0.0}


def open_font(family: Family, size: float, weight: float = 400.0) -> ImageFont.FreeTypeFont:
    """Open a family at ``size`` pixels an em, its weight axis (if it has one) at ``weight`` clipped to what it offers.

    A variable font opens at its default instance, which may be ExtraLight, so every axis is set.
    """
    path, axes = font_source(family.name)
    # The basic layout needs FreeType only: Raqm is not in every build of Pillow, and would change the bytes.
    font = ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    if axes:
        wanted = {**_AXES, "wght": weight}
        font.set_variation_by_axes([min(max(wanted.get(tag, default), low), high) for tag, low, default, high in axes])
    return font


@functools.cache
def x_height(family: Family) -> float:
    """Return the height of the small letters as a part of the em."""
    font = open_font(family, 400)
    # The median over letters without ascenders: the x of a script may be a flourish.
    return statistics.median(-font.getbbox(letter, anchor="ls")[1] for letter in "acemnorsuvxz") / 400
