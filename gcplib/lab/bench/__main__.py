"""``python -m gcplib.lab.bench``: measure, draw the sweeps, keep the result for the README."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from gcplib.lab.bench.measure import ROUNDS, SIZES, Size, measure
from gcplib.lab.bench.methods import METHODS, Method, load_methods
from gcplib.lab.bench.plots import SWEEPS, SWEPT, plot_sweep
from gcplib.lab.bench.readme import DEVICES, keep
from gcplib.lab.bench.report import Report, report_path, table
from gcplib.lab.machine import machine_line
from gcplib.lab.progress import track

__all__ = ["main"]


def _size(text: str) -> Size:
    try:
        batch, channels, positions = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not BATCHxCHANNELSxPOSITIONS, for example 16x256x49") from None
    if min(batch, channels) < 1 or positions < 2:
        raise argparse.ArgumentTypeError(f"{text!r} needs at least one image, one channel and two positions")
    return batch, channels, positions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gcplib.lab.bench", description="Time the ways from features to a normalized covariance."
    )
    parser.add_argument("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help=f"timed passes of each method (default: {ROUNDS})")
    parser.add_argument("--sizes", type=_size, nargs="+", metavar="BxDxM", help="only these, for example 16x256x49")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only methods with one of these in their names")
    parser.add_argument("--sweep", action="store_true", help="cost against channels, positions and batch, as images")
    parser.add_argument("--keep", action="store_true", help="measure nothing; put the last result into the README")
    return parser


def _chosen(names: Sequence[str] | None) -> tuple[Method, ...]:
    """Return the methods with one of these in their names, and the covariance, which the others are compared with.

    Raises:
        ValueError: nothing has such a name.
    """
    if names is None:
        return METHODS
    for name in names:
        if not any(name.lower() in method.name.lower() for method in METHODS):
            raise ValueError(f"no method has {name!r} in its name; known: {'; '.join(m.name for m in METHODS)}")
    return METHODS[:1] + tuple(m for m in METHODS[1:] if any(name.lower() in m.name.lower() for name in names))


def _measure(
    sizes: Sequence[Size], functions: dict[Method, Callable], skipped: dict[str, str], device: str, rounds: int
) -> Report:
    """Measure and print a table a size."""
    from tqdm.auto import tqdm

    report = Report(device, torch.get_num_threads(), rounds, [], skipped)
    print(f"{machine_line(report.machine)}; {device}, {report.threads} threads")
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})")
    for size in track(sizes, "benchmark", unit="size"):
        rows = measure(size, functions, rounds, device)
        report.rows.extend(rows)
        tqdm.write(f"\n{table(rows)}")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write ``runs/bench/<device>.json``, or do what ``--sweep`` and ``--keep`` say."""
    parser = _parser()
    options = parser.parse_args(arguments)
    limits = [f"--{name}" for name in ("rounds", "sizes", "methods", "sweep") if getattr(options, name)]
    if options.keep:
        if limits:
            parser.error(f"--keep measures nothing, so {', '.join(limits)} cannot go with it")
        try:
            print("Written:", *keep(options.device), sep="\n  ")
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        return
    rounds = ROUNDS if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error(f"--rounds must be at least 1, got {rounds}")
    if options.sweep and (options.sizes or options.methods):
        parser.error("--sweep has sizes and methods of its own")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; use --device cpu")
    try:
        methods = tuple(m for m in METHODS if m.name in SWEPT) if options.sweep else _chosen(options.methods)
    except ValueError as error:
        parser.error(str(error))
    sizes = options.sizes or SIZES
    if options.sweep:
        sizes = tuple(dict.fromkeys(size for sweep in SWEEPS.values() for size in sweep))
    report = _measure(sizes, *load_methods(methods), options.device, rounds)
    path = report_path(options.device + "_sweep" * options.sweep)
    report.write(path)
    written = [path]
    if options.sweep:
        where = (
            report.machine["gpu"] if options.device == "cuda" else f"{report.machine['cpu']}, {report.threads} threads"
        )
        for axis in SWEEPS:
            written.append(path.with_name(f"{options.device}_{axis}.png"))
            plot_sweep(report.rows, axis, written[-1], where)
    print("\nWritten:", *written, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
