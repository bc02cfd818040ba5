"""Large arrays on disk: written batch by batch, and read through the system's cache, so that memory stays small."""

import errno
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from gcplib.lab.files import is_verified, locked, mark_verified, write_json

# Raised when files of an older version must not be read as new ones.
VERSION = 1
META = "arrays.json"  # written last: without it a folder is half of something
_ROWS = 256  # read at a time for a checksum

Batches = Iterator[dict[str, Tensor]]


def stored(folder: Path, count: int, compute: Callable[[], Batches], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return arrays from a folder, by name; computed and written there if they are not, or not whole.

    Args:
        folder: a name tells what is in it; whoever wants the same waits for who computes it.
        count: length of every array.
        compute: yields the rows of all arrays in order, some at a time, ``count`` in all.
        dtype: that they are stored in.

    Returns:
        Tensors that are mapped from the files; writing to one changes no file.

    Raises:
        OSError: they are larger than the free disk; known after the first batch.
        ValueError: values are not finite, or too large for ``dtype``.
    """
    with locked(folder):
        if folder.exists():
            if (found := _read(folder)) is not None:
                return found
            warnings.warn(
                f"{folder.name} is truncated, altered or of another version; computing it again", stacklevel=3
            )
            shutil.rmtree(folder)
        for left in folder.parent.glob(f".{folder.name}-*/"):  # by a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            _write(temporary, count, compute(), dtype)
            temporary.chmod(0o755)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        found = _read(folder)
    assert found is not None, folder
    return found


def _write(folder: Path, count: int, batches: Batches, dtype: torch.dtype) -> None:
    arrays: dict[str, np.ndarray] = {}
    sums: dict[str, int] = {}
    start = 0
    for batch in batches:
        if not arrays:
            _check_room(folder, count, batch, dtype)
            kind = np.dtype(str(dtype).removeprefix("torch."))
            for name, rows in batch.items():
                path = folder / f"{name}.npy"
                arrays[name], sums[name] = open_memmap(path, "w+", kind, (count, *rows.shape[1:])), 0
        size = len(next(iter(batch.values())))
        for name, rows in batch.items():
            small = rows.to(dtype)
            if not small.isfinite().all():
                largest = rows.abs().max().item()
                raise ValueError(
                    f"{name} of the images {start} to {start + size - 1} has values up to {largest:g}, which {dtype} "
                    "cannot hold; take float32"
                    if math.isfinite(largest)
                    else f"{name} has values that are not finite"
                )
            arrays[name][start : start + size] = small.numpy()
            sums[name] += _sum(small)
        start += size
    for array in arrays.values():
        array.flush()
    write_json(folder / META, {"version": VERSION, "count": count, "sums": sums})


def _check_room(folder: Path, count: int, batch: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Refuse what would fill the disk hours from now."""
    size = count * sum(math.prod(rows.shape[1:]) for rows in batch.values()) * dtype.itemsize
    if size > (free := shutil.disk_usage(folder).free):
        entries = ", ".join(" x ".join(map(str, rows.shape[1:])) for rows in batch.values())
        raise OSError(
            errno.ENOSPC,
            f"the features of {count} images, {entries} entries each, take {size / 1e9:.3g} GB, more than the "
            f"{free / 1e9:.3g} GB that are free in {folder.parent}. Train with stage='full', which keeps none, or take "
            "fewer pixels, a larger stride, or float16",
        )


def _read(folder: Path) -> dict[str, Tensor] | None:
    """Return the arrays, memory-mapped, or None where a file is not whole."""
    try:
        about = json.loads((folder / META).read_text())
        if about["version"] != VERSION:
            return None
        paths = {name: folder / f"{name}.npy" for name in about["sums"]}
        found = {name: torch.from_numpy(np.load(path, mmap_mode="c")) for name, path in paths.items()}
        for name, array in found.items():
            if not is_verified(paths[name]):
                total = sum(_sum(array[start : start + _ROWS]) for start in range(0, len(array), _ROWS))
                if len(array) != about["count"] or total != about["sums"][name]:
                    return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for path in paths.values():
        mark_verified(path)
    return found


def _sum(rows: Tensor) -> int:
    # Reading every byte (a tenth of a second for half a gigabyte) is cheaper than training on altered features.
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    return int(rows.contiguous().view(whole).sum(dtype=torch.int64))
