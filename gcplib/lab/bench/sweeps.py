"""Cost of the layers against channels, positions and batch size, as an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gcplib.lab.files import write_atomic

AXES, WHOSE = ("batch", "channels", "positions"), ("others", "gcplib")
SWEEPS = {
    "channels": tuple((8, channels, 196) for channels in (32, 64, 128, 256, 512)),
    "positions": tuple((8, 256, positions) for positions in (16, 49, 100, 196, 400, 784)),
    "batch": tuple((batch, 256, 49) for batch in (1, 2, 4, 8, 16, 32)),
}
SWEPT = ("covariance", "exact root, auto route", "exact root, torch eigh", "exact root, torchspd")
SWEPT += ("Newton-Schulz, products", "Newton-Schulz, eigenvalues", "Newton-Schulz, pytorchcv")


def sweep_table(rows: Sequence[dict]) -> pd.DataFrame:
    """Return the quartiles of all sweeps, of the rows of ``measure``: a row per sweep, size, method and quartile."""
    return pd.DataFrame(
        {"sweep": axis, "size": row[axis], "method": row["method"], "ms": value, "whose": WHOSE[row["ours"]]}
        for axis, sizes in SWEEPS.items()
        for row in rows
        if tuple(row[key] for key in AXES) in sizes
        for value in row["total_ms"].values()
    )


def plot_sweeps(rows: Sequence[dict], path: Path, where: str) -> Path:
    """Draw medians of forward plus backward with bars at the quartiles into a PNG file; ``where`` is for the title."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    # The median of the quartiles is the median, and all of them reach from the lowest to the highest.
    style = {"estimator": "median", "errorbar": ("pi", 100), "err_style": "bars", "palette": "colorblind"}
    looks = {"hue": "method", "hue_order": SWEPT, "style": "whose", "style_order": WHOSE[::-1], "markers": True}
    names = {"x": "size", "y": "ms", "col": "sweep"}
    grid = sns.relplot(sweep_table(rows), kind="line", **names, **looks, **style, facet_kws={"sharex": False})
    grid.set(xscale="log", yscale="log", xlabel="", ylabel="forward + backward, ms")
    for (axis, ax), sizes in zip(grid.axes_dict.items(), SWEEPS.values(), strict=True):
        fixed = ", ".join(f"{key} {n}" for key, n in zip(AXES, sizes[0], strict=True) if key != axis)
        ax.set_title(f"against {axis}: {fixed}")
        ax.set_xticks(ticks := [size[AXES.index(axis)] for size in sizes], map(str, ticks))
        ax.minorticks_off()
    grid.figure.suptitle(f"Median and quartiles; {where}", y=1.03)
    with write_atomic(path) as temporary:
        grid.savefig(temporary, dpi=150)
    plt.close(grid.figure)
    return path
