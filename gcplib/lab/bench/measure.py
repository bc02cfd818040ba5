"""Time, memory and error of forward and backward: the same inputs for all, rounds interleaved."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor

from gcplib.lab.analysis.speed import now
from gcplib.lab.bench.methods import REFERENCES, Function, Method
from gcplib.lab.progress import track

Size = tuple[int, int, int]
T = TypeVar("T")

# Batch, channels, positions: from few positions with many channels to the other way round.
SIZES: tuple[Size, ...] = ((16, 256, 49), (16, 512, 49), (16, 256, 196), (8, 256, 784), (32, 64, 196), (16, 128, 196))
SIZES += ((4, 2048, 49),)


def one_pass(function: Function, x: Tensor, g: Tensor) -> tuple[float, float, Tensor, Tensor]:
    """Return milliseconds of the forward and the backward pass, the result and ``dl/dX`` for ``dl/dC = g``."""
    start = now(x.device)
    out = function(x)
    middle = now(x.device)
    (grad,) = torch.autograd.grad(out, x, g)
    return middle - start, now(x.device) - middle, out.detach(), grad


def saved_bytes(function: Function, x: Tensor) -> int:
    """Return the bytes that the forward pass keeps for the backward pass: distinct storages other than the input's."""
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    storages.pop(x.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def relative_error(value: Tensor, reference: Tensor) -> float | None:
    """Return ``|value - reference| / |reference|`` (Frobenius, over the whole batch); None where it is not finite.

    >>> relative_error(torch.tensor([3.0, 0.0]), torch.tensor([4.0, 0.0]))
    0.25
    """
    error = ((value.double() - reference).norm() / reference.norm()).item()
    return error if math.isfinite(error) else None


def smallest_ridge(function: Callable[[Tensor, float], Tensor], x: Tensor, g: Tensor) -> float:
    """Return 0, or the smallest power of ten that makes the result and its gradient finite.

    Raises:
        RuntimeError: not even a ridge of 1 does.
    """
    for ridge in (0.0, *(10.0**power for power in range(-8, 1))):
        _, _, out, grad = one_pass(partial(function, ridge=ridge), x, g)
        if bool(torch.isfinite(out).all() and torch.isfinite(grad).all()):
            return ridge
    raise RuntimeError(f"no ridge up to 1 makes the method finite for features of shape {tuple(x.shape)}")


def shuffled(things: Iterable[T], rounds: int) -> list[T]:
    """Return all things ``rounds`` times, after the first round in random order.

    What ran just before leaves threads spinning and caches full, so it must not be the same neighbor every time.
    """
    chance, things = random.Random(0), list(things)
    return things + [thing for _ in range(rounds - 1) for thing in chance.sample(things, len(things))]


def measure(
    size: Size,
    functions: Mapping[Method, Callable],
    rounds: int,
    device: str = "cpu",
    slow: float = 5.0,
    each_round: bool = False,
) -> list[dict]:
    """Return one row per method: quartiles of the times, memory, errors of the matrix and of ``dl/dX``.

    Args:
        size: batch, channels, positions of the features, which are random normal in float32.
        functions: of ``load_methods``.
        rounds: timed passes of each method, after the first ones.
        device: ``cpu`` or ``cuda``.
        slow: seconds; a method whose first pass takes longer is timed by that one pass.
        each_round: whether rows also hold ``rounds_ms``, the total of every round, for ratios within a round.

    Returns:
        Times in milliseconds, memory in megabytes. ``error`` and ``gradient_error`` are relative, against the same
        function in float64; ``root_distance`` and ``root_gradient_distance`` are those of the other functions from the
        exact root. None stands for what is not finite, or does not apply.
    """
    batch, channels, positions = size
    label = f"{batch} x {channels} x {positions}"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, positions, generator=generator).to(device).requires_grad_()
    g = torch.randn(batch, channels, channels, generator=generator).to(device)
    kinds = {method.kind for method in functions}
    # The distance from the root is of interest for what stands in for it.
    wanted = kinds | {"exact root"} if kinds - {"covariance"} else kinds
    exact = x.detach().double().requires_grad_()
    references = {kind: one_pass(REFERENCES[kind], exact, g.double())[2:] for kind in wanted}
    rows, times, ready = {}, {}, dict(functions)
    for method in track(list(functions), f"{label}, first passes", unit="pass"):
        ridge = smallest_ridge(functions[method], x, g) if method.ridge else None
        if ridge is not None:
            ready[method] = partial(functions[method], ridge=ridge)
        row = {"method": method.name, "kind": method.kind, "ours": method.ours}
        row |= {"batch": batch, "channels": channels, "positions": positions, "ridge": ridge}
        row |= {"saved_mb": saved_bytes(ready[method], x) / 1e6, "peak_mb": None}
        if x.is_cuda:
            torch.cuda.reset_peak_memory_stats(x.device)
            before = torch.cuda.memory_allocated(x.device)
        *first, out, grad = one_pass(ready[method], x, g)
        if x.is_cuda:
            row["peak_mb"] = (torch.cuda.max_memory_allocated(x.device) - before) / 1e6
        row["error"], row["gradient_error"] = map(relative_error, (out, grad), references[method.kind])
        apart = method.kind not in ("covariance", "exact root")
        distances = map(relative_error, (out, grad), references["exact root"]) if apart else (None, None)
        row["root_distance"], row["root_gradient_distance"] = distances
        times[method], rows[method] = [first], row
    del references, exact
    quick = [method for method in functions if sum(times[method][0]) < 1e3 * slow]
    for method in track(shuffled(quick, rounds), label, unit="pass"):
        times[method].append(one_pass(ready[method], x, g)[:2])
    for method, row in rows.items():
        # The first pass counts where it is the only one.
        passes = pd.DataFrame(times[method][1:] or times[method], columns=["forward_ms", "backward_ms"])
        passes["total_ms"] = passes.sum(axis=1)
        quartiles = passes.quantile([0.25, 0.5, 0.75]).set_axis(["low", "median", "high"]).to_dict()
        row |= {"rounds": len(passes)} | quartiles
        row |= {"rounds_ms": passes["total_ms"].tolist()} if each_round else {}
    return list(rows.values())
