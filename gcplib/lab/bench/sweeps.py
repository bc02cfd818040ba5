"""Cost of the layers against channels, positions and batch size, as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gcplib.lab.bench.measure import Size
from gcplib.lab.files import write_atomic

__all__ = ["SWEEPS", "SWEPT", "plot_sweep", "sweep_table"]

AXES = {"batch": "batch size B", "channels": "channels d", "positions": "positions M"}
SWEEPS: dict[str, tuple[Size, ...]] = {
    "channels": tuple((8, channels, 196) for channels in (32, 64, 128, 256, 512)),
    "positions": tuple((8, 256, positions) for positions in (16, 49, 100, 196, 400, 784)),
    "batch": tuple((batch, 256, 49) for batch in (1, 2, 4, 8, 16, 32)),
}
SWEPT = ("covariance", "exact root, auto route", "exact root, torch eigh", "exact root, torchspd")
SWEPT += ("Newton-Schulz, products", "Newton-Schulz, eigenvalues", "Newton-Schulz, pytorchcv")


def sweep_table(rows: Sequence[dict], axis: str) -> pd.DataFrame:
    """Return the quartiles of one sweep: a row per method, size and quartile, of the rows of ``measure``."""
    found = [row for row in rows if tuple(row[key] for key in AXES) in SWEEPS[axis] and row["method"] in SWEPT]
    return pd.DataFrame(
        [
            {"method": row["method"], axis: row[axis], "ms": value, "whose": "gcplib" if row["ours"] else "others"}
            for row in sorted(found, key=lambda row: (SWEPT.index(row["method"]), row[axis]))
            for value in row["total_ms"].values()
        ]
    )


def plot_sweep(rows: Sequence[dict], axis: str, path: Path, where: str) -> None:
    """Draw medians of forward plus backward with bars at the quartiles, both axes logarithmic, into a PNG file.

    Args:
        rows: of ``measure``, at the sizes of ``SWEEPS[axis]`` and any others.
        axis: what is swept: a key of ``SWEEPS``.
        path: of the file.
        where: the machine, for the title.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    figure, ax = plt.subplots(figsize=(9.5, 5))
    # The median of the quartiles is the median, and all of them reach from the lowest to the highest.
    style = {"estimator": "median", "errorbar": ("pi", 100), "err_style": "bars", "palette": "colorblind"}
    data = sweep_table(rows, axis)
    sns.lineplot(data, x=axis, y="ms", hue="method", style="whose", markers=True, ax=ax, **style)
    fixed = ", ".join(f"{AXES[key]} = {n}" for key, n in zip(AXES, SWEEPS[axis][0], strict=True) if key != axis)
    title = f"Cost against {axis}: {fixed}\nmedian and quartiles; {where}"
    ax.set(xscale="log", yscale="log", xlabel=AXES[axis], ylabel="forward + backward, ms", title=title)
    ax.set_xticks(ticks := sorted(data[axis].unique()), map(str, ticks))
    ax.minorticks_off()
    sns.move_legend(ax, "center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")
    plt.close(figure)
