"""Unpacking archives from elsewhere: nothing lands outside the folder, and there are no links."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from gcplib.lab.progress import LOG_INTERVAL, progress_wanted

__all__ = ["byte_bar", "unpack"]

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)


def byte_bar(description: str, total: int | None, initial: int = 0) -> Any:
    """Return a progress bar of bytes with the time that remains; in logs a line twice a minute, as `track` has."""
    from tqdm.auto import tqdm

    log = {} if sys.stderr.isatty() or "ipykernel" in sys.modules else {"mininterval": LOG_INTERVAL, "miniters": 1}
    options = {"unit": "B", "unit_scale": True, "disable": not progress_wanted(), **log}
    return tqdm(desc=description, total=total, initial=initial, **options)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive into a folder; any other file is copied there.

    Raises:
        ValueError: the archive is damaged, or has a member that is a link or device or would land outside the folder.
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.name.endswith((".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")):
            members = _untar(archive, folder)
        elif archive.name.endswith(".zip"):
            members = _unzip(archive, folder)
        else:
            shutil.copy2(archive, folder / archive.name)
            return
        with byte_bar(f"Unpacking {archive.name}", archive.stat().st_size) as bar:
            for done in members:
                bar.update(done - bar.n)
    except _DAMAGE as error:
        raise ValueError(f"the archive {archive.name} is damaged: {type(error).__name__}: {error}") from error


def _untar(archive: Path, folder: Path) -> Iterator[int]:
    """Unpack member by member; yield how far in the archive we are."""
    # Not by seeking: one pass is enough, and the place in the file tells how much is left.
    with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            kind = (
                "" if member.isreg() or member.isdir() else "a link" if member.issym() or member.islnk() else "a device"
            )
            _check(archive, member.name, kind)
            _check_room(archive, member.size, folder)
            tar.extract(member, folder, filter="data")
            yield file.tell()


def _unzip(archive: Path, folder: Path) -> Iterator[int]:
    with zipfile.ZipFile(archive) as packed:
        # All names are in one place, so that a bad one is met before anything is written.
        for member in packed.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)
            kind = {0: "", stat.S_IFREG: "", stat.S_IFDIR: "", stat.S_IFLNK: "a link"}.get(mode, "a device")
            # `orig_filename` is what the archive says; reading has already cut it at a null byte.
            _check(archive, member.orig_filename, kind or ("encrypted" if member.flag_bits & 1 else ""))
        _check_room(archive, sum(member.file_size for member in packed.infolist()), folder)
        done = 0
        for member in packed.infolist():
            packed.extract(member, folder)
            done += member.compress_size
            yield done


def _check(archive: Path, name: str, kind: str) -> None:
    """Refuse a member by its name or kind."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]|^[A-Za-z]:", name)
    if outside or kind:
        raise ValueError(
            f"the archive {archive.name} is refused: its member {name!r} "
            + (f"is {kind}" if kind else "would land outside the folder")
        )


def _check_room(archive: Path, size: int, folder: Path) -> None:
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(f"{archive.name} unpacks to {size:,} bytes more, and {folder} has {free:,} free; make room")
