"""Time the ways to a normalised covariance side by side: ``python -m gcplib.bench``.

Every method gets the same inputs in the same run; rounds are interleaved, so that whatever else the machine does hits
all of them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gcplib.files import runs_dir, write_atomic
from gcplib.linalg import covariance, covariance_map, newton_schulz, newton_schulz_function

__all__ = ["METHODS", "SIZES", "measure"]

# Batch, channels, positions: from few positions with many channels to the other way round.
SIZES = [(16, 256, 49), (16, 512, 49), (16, 256, 196), (8, 256, 784), (32, 64, 196), (16, 128, 196), (4, 2048, 49)]

METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "covariance": covariance,
    "exact root, auto route": covariance_map,
    "exact root, full route": lambda x: covariance_map(x, route="full"),
    "exact root, svd route": lambda x: covariance_map(x, route="svd"),
    "Newton-Schulz, products": lambda x: newton_schulz(covariance(x), 5),
    "Newton-Schulz, eigenvalues": lambda x: covariance_map(x, newton_schulz_function(5)),
}


def _step(method: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    if x.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    torch.autograd.grad(method(x), x, g)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(size: tuple[int, int, int], rounds: int, device: str = "cpu", slow: float = 5.0) -> list[dict]:
    """Return one row a method: median and quartiles of forward plus backward, in milliseconds.

    Args:
        size: batch, channels, positions; float32. rounds: timed passes of each method, after one warm-up.
        slow: seconds; a method whose warm-up takes longer is timed by that one pass.
    """
    batch, channels, positions = size
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, positions, generator=generator).to(device).requires_grad_()
    g = torch.randn(batch, channels, channels, generator=generator).to(device)
    times = {name: [_step(method, x, g)] for name, method in METHODS.items()}
    quick = [name for name in METHODS if times[name][0] < slow]
    for name in quick:
        times[name].clear()
    for _ in range(rounds):
        for name in quick:
            times[name].append(_step(METHODS[name], x, g))
    rows = []
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else 3 * values
        numbers = {"median_ms": 1e3 * middle, "low_ms": 1e3 * low, "high_ms": 1e3 * high, "rounds": len(values)}
        rows.append({"method": name, "batch": batch, "channels": channels, "positions": positions, **numbers})
    return rows


def main() -> None:
    """Print a table a size and write ``runs/bench/<device>.json`` with machine and versions."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed passes of each method (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {arguments.rounds}")
    from gcplib.study.machine import describe_machine, machine_line

    machine = describe_machine()
    print(
        f"{machine_line(machine)}, {torch.get_num_threads()} threads, {arguments.device}; forward + backward, float32"
    )
    rows = []
    for size in SIZES:
        found = measure(size, arguments.rounds, arguments.device)
        rows += found
        print(f"\nbatch {size[0]}, {size[1]} channels, {size[2]} positions")
        for row in found:
            over = row["median_ms"] / found[0]["median_ms"]
            spread = f"[{row['low_ms']:.1f}, {row['high_ms']:.1f}]"
            print(f"  {row['method']:26s} {row['median_ms']:9.1f} ms {spread:>18s}  {over:6.1f} x covariance")
    path: Path = runs_dir() / "bench" / f"{arguments.device}.json"
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"\nWritten: {path}")


if __name__ == "__main__":
    main()
