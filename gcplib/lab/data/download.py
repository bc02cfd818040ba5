"""Getting a published data set: download, resume, verify, unpack, and only then move it into place."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gcplib.lab.data.published import ELSEWHERE, PUBLISHED, File
from gcplib.lab.data.readers import DATASETS
from gcplib.lab.data.unpack import byte_bar, unpack
from gcplib.lab.files import locked, read_json, write_json
from gcplib.lab.validation import unknown

__all__ = ["DownloadError", "fetch", "get_dataset"]

ATTEMPTS = 5  # that break off one after the other without a byte more
PAUSE = 3.0  # seconds before the next
TIMEOUT = 60.0
_BLOCK = 1 << 20
# An archive of images is hardly smaller than what is in it; lists and masks are, and they are a small part.
_UNPACKED = 1.5
_BROKEN = (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError)


class DownloadError(OSError):
    """A file could not be had, or is not the one that was published."""


def get_dataset(name: str, parent: str | Path) -> Path:
    """Return the folder ``parent/name`` of a published data set, which is downloaded if it is not there.

    A download that broke off is continued by the next call. Archives are verified before they are unpacked, and the
    folder appears when it is whole.

    Args:
        name: a name of ``PUBLISHED``.
        parent: the folder of data sets.

    Raises:
        ValueError: an unknown name, a data set that cannot be downloaded (the message says whom to ask), an archive
            that is damaged or refused, or another folder in the place.
        DownloadError: a file could not be had, or has the wrong size or checksum.
        OSError: there is too little room on the disk.
    """
    if name in ELSEWHERE:
        raise ValueError(f"{name!r} cannot be downloaded from here: {ELSEWHERE[name]}")
    if name not in PUBLISHED:
        raise ValueError(unknown("data set", name, [*PUBLISHED, *ELSEWHERE]))
    parent = Path(parent).expanduser().resolve()
    folder, archives, half = parent / name, parent / f".{name}.download", parent / f".{name}.unpacking"
    parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if folder.is_dir() and any(folder.iterdir()):
            if not DATASETS[name].find(folder):
                raise ValueError(
                    f"{folder} is there, and is not {DATASETS[name].expected}; move it, or give another --to"
                )
            return folder
        files = PUBLISHED[name].files
        _check_room(files, archives, parent)
        shutil.rmtree(half, ignore_errors=True)  # of a process that was killed
        paths = [fetch(file, archives) for file in files]
        try:
            for path in paths:
                try:
                    unpack(path, half)
                except ValueError as error:
                    path.unlink()
                    raise ValueError(f"{error}. It was removed; the same command downloads it again") from error
            inner = half / PUBLISHED[name].inside
            if not DATASETS[name].find(inner):
                raise ValueError(f"what was unpacked for {name!r} is not {DATASETS[name].expected}")
            if folder.is_dir():
                folder.rmdir()
            inner.rename(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        shutil.rmtree(archives, ignore_errors=True)
    return folder


def fetch(file: File, folder: Path) -> Path:
    """Return the path of a file in a folder, downloaded unless it is there, of the right size and checksum.

    Raises:
        DownloadError: see ``get_dataset``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / file.filename, folder / f"{file.filename}.part"
    if not path.is_file():
        _download(file, part)
        _verify(file, part)
        part.replace(path)
        _note(part).unlink(missing_ok=True)
    else:
        _verify(file, path)
    return path


def _download(file: File, part: Path) -> None:
    """Fill the file, however often the connection breaks, as long as every other time brings something."""
    failures, error = 0, ""
    while failures < ATTEMPTS:
        before = _size(part)
        try:
            if error := _receive(file, part):
                raise http.client.HTTPException(error)
            return
        except urllib.error.HTTPError as refusal:
            refusal.close()
            error = f"the server answers {refusal.code} {refusal.reason}"
            if refusal.code < 500 and refusal.code not in (408, 429):
                raise DownloadError(
                    f"{file.url}: {error}. If it has moved, download {file.filename} by hand and put it into "
                    f"{part.parent}"
                ) from refusal
        except _BROKEN as broken:
            error = str(getattr(broken, "reason", broken)) or type(broken).__name__
        failures = 1 if _size(part) > before else failures + 1
        if failures < ATTEMPTS:
            time.sleep(PAUSE)
    raise DownloadError(
        f"{file.url}: {error}. {_size(part):,} bytes are kept in {part.parent}, and the same command continues there; "
        f"or put {file.filename} there by hand"
    )


def _receive(file: File, part: Path) -> str:
    """Receive what is missing, or all if that cannot be joined; return what went wrong, nothing if it is whole."""
    known = read_json(_note(part))
    have = _size(part) if known.get("url") == file.url and known.get("validator") else 0
    request = urllib.request.Request(file.url, headers={"User-Agent": "gcplib"})
    if have:
        # Without If-Range, the end of a file that has changed would be put behind the beginning of the old one.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known["validator"])
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if _total(error.headers) == have:
            return ""
        part.unlink()
        return "the part that was there is longer than the file"
    with answer:
        if answer.status == 206:
            start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if not start or int(start[1]) != have or _validator(answer.headers) not in ("", known["validator"]):
                part.unlink()
                return "the server sent another part than was asked for"
            total = _total(answer.headers)
        else:
            have, total = 0, int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        if file.size is not None and total not in (None, file.size):
            part.unlink(missing_ok=True)
            raise DownloadError(
                f"{file.url} has {total:,} bytes now, and {file.size:,} were published: it is another file, and was "
                "not downloaded. Tell us, or get the data set by hand"
            )
        if not have:
            part.unlink(missing_ok=True)  # before the note, which must never be about other bytes
        write_json(_note(part), {"url": file.url, "validator": _validator(answer.headers)})
        most = file.size if file.size is not None else total
        with open(part, "ab" if have else "wb") as out, byte_bar(f"Getting {file.filename}", most, have) as bar:
            while block := answer.read(_BLOCK):
                out.write(block)
                bar.update(len(block))
                if file.size is not None and out.tell() > file.size:
                    break  # the size is refused by whoever verifies it
        got = _size(part)
    return f"the connection broke off after {got:,} of {most:,} bytes" if most is not None and got < most else ""


def _verify(file: File, path: Path) -> None:
    """Remove a file that is not the published one, and say so."""
    wrong, size = "", path.stat().st_size
    if file.size is not None and size != file.size:
        wrong = f"has {size:,} bytes, and {file.size:,} were published"
    elif file.checksum:
        method, _, wanted = file.checksum.partition(":")
        state = hashlib.new(method, usedforsecurity=False)
        with open(path, "rb") as data, byte_bar(f"Verifying {file.filename}", size) as bar:
            while block := data.read(_BLOCK):
                state.update(block)
                bar.update(len(block))
        if state.hexdigest() != wanted:
            wrong = f"has the {method.upper()} {state.hexdigest()}, and {wanted} is the published one ({file.source})"
    if wrong:
        path.unlink()
        raise DownloadError(
            f"{file.filename} from {file.url} {wrong}. It was removed; try again, and if that is no better, the "
            "publishers have changed it: tell us"
        )


def _check_room(files: Iterable[File], archives: Path, parent: Path) -> None:
    """Refuse to begin what cannot end; what is not known takes no room here and is met as a full disk."""
    sizes = {file.filename: file.size or 0 for file in files}
    there = sum(_size(archives / name) + _size(archives / f"{name}.part") for name in sizes)
    needed = int(sum(sizes.values()) * (1 + _UNPACKED)) - there
    if needed > (free := shutil.disk_usage(parent).free):
        raise OSError(
            f"{parent} has {free / 1e9:.1f} GB free, and about {needed / 1e9:.1f} GB are needed for the archives and "
            "what is in them; make room, or give another --to"
        )


def _note(part: Path) -> Path:
    """Return where it is written of which version of the file on the server a part is."""
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _total(headers: Any) -> int | None:
    """Return the size of the whole file that a part belongs to."""
    found = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _validator(headers: Any) -> str:
    """Return what tells a version of the file; weak tags, which do not tell bytes, are not good for ranges."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
