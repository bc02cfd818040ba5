"""Cost against size: one image for channels, one for positions, one for the batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.bench.measure import Size
from gcplib.lab.files import write_atomic

__all__ = ["SWEEPS", "SWEPT", "plot_sweep", "sweep_rows"]

SWEEPS: dict[str, tuple[Size, ...]] = {
    "channels": tuple((8, channels, 196) for channels in (32, 64, 128, 256, 512)),
    "positions": tuple((8, 256, positions) for positions in (16, 49, 100, 196, 400, 784)),
    "batch": tuple((batch, 256, 49) for batch in (1, 2, 4, 8, 16, 32)),
}
AXES = {"batch": "batch size B", "channels": "channels d", "positions": "positions M"}
# The methods of the images and their marks; color and mark of a method are the same in all of them.
SWEPT = {
    "covariance": "s",
    "exact root, auto route": "o",
    "exact root, torch eigh": "v",
    "exact root, torchspd": "^",
    "Newton-Schulz, products": "D",
    "Newton-Schulz, eigenvalues": "P",
    "Newton-Schulz, pytorchcv": "X",
}


def sweep_rows(rows: Sequence[dict], axis: str) -> dict[str, list[dict]]:
    """Return the rows of one sweep by method, in ascending order of what is swept."""
    found: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row[axis]):
        if tuple(row[key] for key in AXES) in SWEEPS[axis]:
            found.setdefault(row["method"], []).append(row)
    return found


def plot_sweep(rows: Sequence[dict], axis: str, path: Path, where: str) -> None:
    """Draw medians of forward plus backward with bars at the quartiles, both axes logarithmic, into a PNG file.

    Args:
        rows: of ``measure``, at the sizes of ``SWEEPS[axis]`` and any others. where: the machine, for the title.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    from gcplib.lab.analysis.plots import use_style

    use_style()
    colors = dict(zip(SWEPT, sns.color_palette("colorblind"), strict=False))
    figure, ax = plt.subplots(figsize=(9.5, 5))
    for name, found in sweep_rows(rows, axis).items():
        total = [row["total_ms"] for row in found]
        middle = [time["median"] for time in total]
        bars = [[time["median"] - time["low"] for time in total], [time["high"] - time["median"] for time in total]]
        style = {"color": colors[name], "marker": SWEPT[name], "linestyle": "-" if found[0]["ours"] else "--"}
        label = f"{name} (gcplib)" if found[0]["ours"] else name
        ax.errorbar([row[axis] for row in found], middle, yerr=bars, label=label, capsize=3, markersize=6, **style)
    fixed = dict(zip(AXES, SWEEPS[axis][0], strict=True))
    shape = ", ".join(f"{AXES[key]} = {value}" for key, value in fixed.items() if key != axis)
    title = f"Cost against {axis}: {shape}\nmedian and quartiles; {where}"
    ax.set(xscale="log", yscale="log", xlabel=AXES[axis], ylabel="forward + backward, ms", title=title)
    ticks = [size[list(AXES).index(axis)] for size in SWEEPS[axis]]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.tick_params(axis="x", which="minor", labelbottom=False)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    # In the order of the lines at the right edge, from the slowest down.
    lines = sorted(zip(*ax.get_legend_handles_labels(), strict=True), key=lambda line: -line[0][0].get_ydata()[-1])
    ax.legend(*zip(*lines, strict=True), loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)
