"""GPUs of a job: which there are, and one for a job alone."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["VISIBLE", "own_device", "visible_devices"]

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_devices(limit: int | None = None) -> list[str]:
    """Return the GPUs that this process may use, in the words of ``CUDA_VISIBLE_DEVICES``, at most so many.

    Raises:
        ValueError: there are fewer than ``limit``.
    """
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get(VISIBLE, ",".join(map(str, range(count))))
    # CUDA itself stops at the first that is no device.
    names = itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, given.split(",")))
    devices = list(names)[:count]
    if limit is not None and limit > len(devices):
        raise ValueError(f"{limit} GPUs are asked for, but torch sees {len(devices)}; give at most that many")
    return devices[:limit]


@contextlib.contextmanager
def own_device(gpus: int) -> Iterator[str | None]:
    """Hold a GPU (if ``gpus`` is 1 and there is one) and make it the only one that this process sees; yield its name.

    To be entered before the process uses CUDA for the first time: afterwards the choice would have no effect.
    """
    devices = visible_devices() if gpus else []
    with contextlib.ExitStack() as stack:
        # A single device needs no lock. It may be one that a cluster gave this job alone, and such devices can have
        # the same name in two jobs of one machine.
        device = devices[0] if len(devices) == 1 else _first_free(devices, stack) if devices else None
        os.environ[VISIBLE] = device or ""
        yield device


def _first_free(devices: list[str], stack: contextlib.ExitStack) -> str:
    """Lock the first free device, waiting for one; the system frees it whatever way the process ends."""
    # Of this machine, not of the runs' folder: machines of a cluster share that, and not their GPUs.
    folder = Path(tempfile.gettempdir()) / f"gcplib-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    while True:
        for device in devices:
            with contextlib.suppress(Timeout):
                lock = FileLock(folder / f"gpu-{device.replace('/', '-')}.lock")
                stack.enter_context(lock.acquire(blocking=False))
                return device
        time.sleep(1)
