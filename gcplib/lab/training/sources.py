"""Where batches come from: cached features, or images that are decoded while the network computes."""

import multiprocessing
import multiprocessing.connection
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gcplib.lab.data import Images, Typefaces
from gcplib.lab.machine import cpu_count

# A loader that dies is replaced so many times; one that dies again and again has a reason.
MOST_RESTARTS = 3


@dataclass(frozen=True)
class Batch:
    """Some images of a step."""

    indices: Tensor  # their places in the data set (n,)
    flips: Tensor | None = None  # which are mirrored (n,)
    places: Tensor | None = None  # where each is cropped, (n, 2) from 0 (top, left) to 1; None for the center

    def __len__(self) -> int:
        return len(self.indices)

    def split(self, size: int) -> list["Batch"]:
        """Return it in parts of ``size`` images, the last of which may be smaller."""
        return [self.take(slice(start, start + size)) for start in range(0, len(self), size)]

    def parts(self, count: int) -> list["Batch"]:
        """Return it in at most ``count`` parts of nearly equal size."""
        return self.split(-(-len(self) // count))

    def take(self, which: slice) -> "Batch":
        """Return some of its images."""
        return Batch(*(None if values is None else values[which] for values in (self.indices, self.flips, self.places)))


@dataclass(frozen=True)
class Source:
    """Inputs in memory: ``inputs(indices)`` gives the network's input, ``labels`` all labels (N,)."""

    inputs: Callable[[Tensor], Tensor]
    labels: Tensor
    device: torch.device

    def batches(self, wanted: Sequence[Batch]) -> Iterator[Tensor]:
        """Yield the input of every batch, on the device."""
        for batch in wanted:
            yield _mirror(self.inputs(batch.indices), batch.flips)


@dataclass(frozen=True)
class ImageSource:
    """Images of a data set, decoded by other processes ahead of time; ``labels`` are all labels (N,)."""

    dataset: Typefaces | Images
    prepare: Callable[[Tensor], Tensor]  # from uint8 images to the network's input
    labels: Tensor
    device: torch.device
    loaders: int = 0  # processes; 0 decodes in this one, on its threads

    def batches(self, wanted: Sequence[Batch]) -> Iterator[Tensor]:
        """Yield the input of every batch, on the device.

        Raises:
            ValueError: an image cannot be decoded.
            RuntimeError: loaders keep dying.
        """
        done = restarts = 0
        while done < len(wanted):
            others = set(multiprocessing.active_children())
            loader = DataLoader(
                _Decoded(self.dataset, wanted),
                sampler=range(done, len(wanted)),
                batch_size=None,
                num_workers=min(self.loaders, len(wanted) - done),
                pin_memory=self.device.type == "cuda",
                # Otherwise it draws a number from the generator that dropout uses, in the first step after any start.
                generator=torch.Generator(),
            )
            # Held by a name: it would end its processes, were it gone before they are looked at.
            batches = _quietly(loader)
            processes = set(multiprocessing.active_children()) - others
            try:
                for images in batches:
                    if isinstance(images, ValueError):
                        raise images
                    yield _mirror(self.prepare(images.to(self.device, non_blocking=True)), wanted[done].flips)
                    done += 1
            except (RuntimeError, OSError, EOFError) as error:
                # The order of the batches is fixed, so another process can go on where one has died.
                sentinels = [process.sentinel for process in processes]
                if not sentinels or not multiprocessing.connection.wait(sentinels, timeout=1):
                    raise
                restarts, reason = restarts + 1, str(error) or type(error).__name__
                where = f"batch {done} of {len(wanted)}"
                if restarts > MOST_RESTARTS:
                    message = f"the loaders died {restarts} times, at last in {where} ({reason}); "
                    raise RuntimeError(message + "is there memory for them? Fewer loaders need less") from error
                warnings.warn(f"a loader died ({reason}); starting the loaders again at {where}", stacklevel=2)


@dataclass(frozen=True)
class _Decoded(Dataset):
    """The decoded images of every batch: (n, H, W, 3) uint8."""

    dataset: Typefaces | Images
    wanted: Sequence[Batch]

    def __getitem__(self, place: int) -> Tensor | ValueError:
        batch = self.wanted[place]
        where = {} if batch.places is None else {"places": batch.places.numpy()}
        try:
            images = self.dataset.images(batch.indices.numpy(), **where)
        except ValueError as error:
            return error  # raised by who asked: torch would bury the message in the traceback of the other process
        return torch.from_numpy(np.ascontiguousarray(images))


def _quietly(loader: DataLoader) -> Iterator:
    """Start the loader's processes without torch's handler of SIGCHLD.

    The handler raises wherever the main thread is when a process dies, which may be within a step of the optimizer;
    without it the iterator raises, when the next batch is asked for.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _mirror(inputs: Tensor, flips: Tensor | None) -> Tensor:
    if flips is None:
        return inputs
    return torch.where(flips.to(inputs.device).view(-1, 1, 1, 1), inputs.flip(-1), inputs)


def default_loaders(device: torch.device, from_disk: bool) -> int:
    """Return how many processes should decode: on a CPU they take cores from the network, on a GPU there are plenty."""
    if device.type == "cuda":
        return max(1, min(12, cpu_count() - 1))
    return int(from_disk and cpu_count() > 1)
