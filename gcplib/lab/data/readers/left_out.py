"""What lies beside the images of a data set: files that no reader took, counted by the reason."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gcplib.suffixes import PICTURES, SUFFIXES

__all__ = ["LeftOut", "is_shown", "left_out"]

OUTSIDE = "images outside the lists and class folders"
UNUSED = "images in folders that are no split or class"
UNREAD = "images with a suffix that is not read"
DEAD = "dead links"
ASIDE = "published images that have no part in it"
OTHER = "other files"
HIDDEN = "hidden and system files"

# What somebody may miss; the others are told by the check alone.
_MISSED = (OUTSIDE, UNUSED, UNREAD, DEAD)
_SHOWN = 3
# What systems leave in folders, beside names that begin with a dot.
_SYSTEM = frozenset(
    ("$recycle.bin", "@eadir", "__macosx", "desktop.ini", "lost+found", "system volume information", "thumbs.db")
)


@dataclass(frozen=True)
class LeftOut:
    """Files below the folder of a data set that are none of its images."""

    counts: dict[str, int]  # by reason
    examples: dict[str, list[str]]  # the first paths of each reason

    @property
    def pictures(self) -> int:
        """How many of them are images that somebody may miss."""
        return sum(self.counts.get(reason, 0) for reason in _MISSED)

    def lines(self, missed_only: bool = False) -> list[str]:
        """Return one line for each reason, with examples."""
        lines = []
        for reason, count in self.counts.items():
            if reason in _MISSED or not missed_only:
                names = self.examples[reason]
                more = ", ..." if count > len(names) else ""
                lines.append(f"{count:,} {reason}" + (f": {', '.join(names)}{more}" if reason != HIDDEN else ""))
        return lines


def is_shown(name: str) -> bool:
    """Return whether a file or folder is people's own: not hidden, and not left behind by a system."""
    return not name.startswith(".") and name.lower() not in _SYSTEM


def left_out(base: Path, paths: Sequence[str], aside: Sequence[str] = ()) -> LeftOut:
    """Compare what lies below a folder with the paths that were taken; no file is opened.

    Args:
        base: the folder.
        paths: what was taken, relative to it, with forward slashes.
        aside: names of folders there that are published with the data set and have no part in it.
    """
    taken = set(paths)
    used = {path.split("/", 1)[0] for path in paths}
    counts: Counter[str] = Counter()
    examples: defaultdict[str, list[str]] = defaultdict(list)
    for path, reason in _files(base):
        if path in taken:
            continue
        top, _, rest = path.partition("/")
        if not reason and rest and top in aside and top not in used:
            reason = ASIDE
        elif not reason:
            suffix = os.path.splitext(path)[1].lower()
            if suffix not in PICTURES:
                reason = OTHER
            elif suffix not in SUFFIXES:
                reason = UNREAD
            else:
                reason = UNUSED if rest and top not in used else OUTSIDE
        counts[reason] += 1
        examples[reason].append(path)
        # In the order of names, and not of the disk.
        examples[reason] = sorted(examples[reason])[:_SHOWN]
    order = (*_MISSED, ASIDE, OTHER, HIDDEN)
    return LeftOut({reason: counts[reason] for reason in order if counts[reason]}, dict(examples))


def _files(base: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of every file, with the reason why it is none of the images where its name or link says so."""
    seen = {os.path.realpath(base)}
    folders = [("", False)]
    for folder, hidden in folders:  # grows by the folders within
        with os.scandir(base / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                unseen = hidden or not is_shown(entry.name)
                if entry.is_dir():
                    # A link may lead back to a folder above it.
                    if not entry.is_symlink() or (place := os.path.realpath(entry.path)) not in seen:
                        folders.append((path, unseen))
                        if entry.is_symlink():
                            seen.add(place)
                elif unseen:
                    yield path, HIDDEN
                else:
                    yield path, "" if not entry.is_symlink() or os.path.exists(entry.path) else DEAD
