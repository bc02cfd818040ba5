"""Images that a CSV lists."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gcplib.lab.data.readers.listing import UNDECIDED, Listing, Reader, first, listing_of
from gcplib.lab.data.readers.reading import ENCODING, names_of, split_of

# By these names, in any case; of several, the first counts.
_COLUMNS = {
    "path": ("path", "file", "filename", "filepath", "image"),
    "label": ("label", "class", "name", "species"),
    "split": ("split", "set", "subset"),
    "coarse": ("coarse",),
}
_NEEDED = ("path", "label")


def _rows(table: Path) -> list[list[str]]:
    try:
        with open(table, newline="", encoding=ENCODING) as file:
            header = file.readline()
            file.seek(0)
            # Spreadsheets write semicolons where the comma is for decimals.
            return list(csv.reader(file, delimiter=max(",;\t", key=header.count)))
    except UnicodeDecodeError as error:
        raise ValueError(f"{table.name} is not in UTF-8; save it as a CSV in UTF-8 ({error})") from error


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Return the place of each column that is there."""
    names = [name.strip().lower() for name in header]
    found = {
        kind: next((names.index(name) for name in options if name in names), None) for kind, options in _COLUMNS.items()
    }
    return {kind: place for kind, place in found.items() if place is not None}


def _is_listing(table: Path) -> bool:
    try:
        with open(table, encoding=ENCODING) as file:
            header = file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    return _columns(next(csv.reader([header], delimiter=max(",;\t", key=header.count)), [])).keys() >= set(_NEEDED)


def _tables(root: Path) -> list[Path]:
    tables = [root] if root.is_file() else sorted(path for path in root.glob("*.csv") if path.is_file())
    return [table for table in tables if _is_listing(table)]


def _read(root: Path) -> Listing:
    """Read a CSV with a header and one line for each image.

    Its columns are ``path`` (or ``file``, ``filename``, ``filepath``, ``image``), relative to the CSV, and ``label``
    (or ``class``, ``name``, ``species``); where they are there, ``split`` (or ``set``, ``subset``) with train,
    validation (or val, valid, dev) and test, and ``coarse`` with the coarse class. Without a column for the split, a
    fraction ``ImagesSpec.test`` of every class is for test, drawn by the seed.
    """
    tables = _tables(root)
    if len(tables) != 1:
        what = f"several fit ({first([table.name for table in tables])}); give one of them as root" if tables else ""
        needed = " and ".join(f"a column {' or '.join(_COLUMNS[kind])}" for kind in _NEEDED)
        raise ValueError(what or f"no CSV whose header has {needed}")
    (table,) = tables
    header, *lines = _rows(table)
    columns = _columns(header)
    seen: dict[str, int] = {}
    rows = []
    for number, line in enumerate(lines, 2):
        if not any(map(str.strip, line)):
            continue
        values = {kind: line[place].strip() if place < len(line) else "" for kind, place in columns.items()}
        where = f"{table.name}, line {number}"
        if empty := [header[columns[kind]].strip() for kind, value in values.items() if not value]:
            raise ValueError(f"{where}: nothing in the column {' and '.join(empty)}; fill it in, or take the line away")
        path = PurePosixPath(values["path"].replace("\\", "/")).as_posix()
        if path.startswith("/") or path[1:2] == ":":
            raise ValueError(f"{where}: {path} is no path relative to the CSV; write where it lies from there")
        if seen.setdefault(path, number) != number:
            raise ValueError(f"{where}: {path} is in line {seen[path]} already; take one of them away")
        split = split_of(values["split"]) if "split" in values else UNDECIDED
        if split is None:
            raise ValueError(
                f"{where}: the split {values['split']!r} is none of train, validation (val, valid, dev) and test"
            )
        key = (values["coarse"], values["label"]) if "coarse" in values else (values["label"],)
        rows.append((path, key, split))
    if not rows:
        raise ValueError(f"{table.name} lists no images")
    return listing_of(table.parent, rows, *names_of(sorted({key for _, key, _ in rows})))


def _find(root: Path) -> Path | None:
    return root if len(_tables(root)) == 1 else None


READER = Reader(
    _read,
    "a CSV, or a folder with one, whose header has path and label, and split and coarse where they are known; paths "
    "are relative to it",
    _find,
    generic=True,
    file=".csv",
)
