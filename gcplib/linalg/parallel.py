"""A batch of matrices shared out over the CPU threads: each thread works through its own part, one matrix at a time."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import cache

import torch
from torch import Tensor

from gcplib.linalg.tolerance import one_look

__all__ = ["batch_parts", "over_batch", "use_threads"]

Work = Callable[[slice, Tensor | None], tuple[Tensor, ...]]

# Smaller matrices are decomposed before the threads of the last operation stop spinning for more work. Measured on two
# cores, root and gradient: side by side takes 1.3 of the time at 64 rows after a convolution, 0.8 with nothing before
# it; 1.1 and 0.8 at 128 rows, 0.8 and 0.7 at 196 and 256. Where other processes use the cores, it is always faster.
FEWEST_ROWS = 128
# With two threads there is little to share, and what torch's own threads do before costs as much. On two cores of an
# AMD EPYC side by side took 1.1 to 1.5 of the time after a product, 0.8 to 0.9 after nothing, at 128 and 256 rows.
FEWEST_THREADS = 4


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return the OpenMP that torch itself uses, found through its own library; None where torch has none."""
    torch_library = ctypes.CDLL(torch._C.__file__)
    return torch_library if hasattr(torch_library, "omp_set_num_threads") else None


def use_threads(count: int) -> AbstractContextManager:
    """Let what torch computes in *this* thread take so many threads of its own, for good or within ``with``.

    Unlike ``torch.set_num_threads``, which reaches into the whole process: on MKL it makes later decompositions in
    other threads several times slower, and a batched ``torch.linalg.solve`` after it may never return (pytorch issues
    142815, 141358). OpenMP's own limit belongs to the thread. Torch obeys it, and MKL too unless the process has called
    ``torch.set_num_threads`` before: then parts of a batch are still decomposed side by side, but gain nothing by it.
    A torch without OpenMP keeps its threads; results are the same.
    """
    torch.get_num_threads()  # torch sets up a new thread at its first call, and would undo the limit
    openmp, undo = _openmp(), ExitStack()
    if openmp is not None:
        undo.callback(openmp.omp_set_num_threads, openmp.omp_get_max_threads())
        openmp.omp_set_num_threads(count)
    return undo


def batch_parts(x: Tensor, rows: int) -> list[slice]:
    """Return the parts of the batch ``(n, ...)`` to work on at the same time: one per thread on a CPU, else one in all.

    LAPACK takes one matrix of a batch after another, and has little to share out within one of 100 to 500 rows.

    Args:
        x: the batch.
        rows: of the matrices to decompose.
    """
    batch = x.shape[0]
    # A graph cannot hold a number of threads, so a compiler is asked before it.
    if x.device.type != "cpu" or torch.compiler.is_compiling() or rows < FEWEST_ROWS:
        return [slice(0, batch)]
    if (threads := torch.get_num_threads()) < FEWEST_THREADS:
        return [slice(0, batch)]
    count = max(1, min(threads, batch))
    return [slice(batch * i // count, batch * (i + 1) // count) for i in range(count)]


def over_batch(work: Work, parts: list[slice], like: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return the results of all parts put together: the batch is the first dimension of each.

    Args:
        work: ``work(part, out)`` computes one part without recording gradients, the first result into ``out`` unless
            that is None, and returns its results.
        parts: of the batch.
        like: gives dtype and device.
        shape: of the whole first result.

    Raises:
        The first error of any part, after all of them have ended.
    """
    if len(parts) == 1:
        with one_look():
            return work(parts[0], None)
    out, inference = like.new_empty(shape), torch.is_inference_mode_enabled()

    def alone(part: slice) -> tuple[Tensor, ...]:
        with torch.inference_mode(inference), torch.no_grad(), one_look():
            return work(part, out[part])

    # One thread each: with more, they get in each other's way.
    with ThreadPoolExecutor(len(parts), initializer=use_threads, initargs=(1,)) as threads:
        found = list(threads.map(alone, parts))
    # On this thread alone: others would spin for more work, and take cores from the parts of the next batch.
    with use_threads(1):
        return out, *(torch.cat(values) for values in list(zip(*found, strict=True))[1:])
