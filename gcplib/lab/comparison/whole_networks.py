"""Whole networks trained end to end, beside each other: accuracy by epoch and at the end, and images per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
import seaborn as sns

from gcplib.lab.analysis import Paired, legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gcplib.lab.comparison.methods import Trained

__all__ = ["draw_whole", "pace_of"]


def pace_of(curves: pd.DataFrame) -> pd.DataFrame:
    """Return images per second and the share of time waiting for images, a row per method and seed.

    The first of several epochs is left out, which warms up: libraries, caches, and the choice of kernels on a GPU.
    """
    steady = curves[curves.epoch >= min(1, curves.epoch.max())]
    by_run = steady.groupby(["method", "seed"], sort=False)
    return by_run[["images_per_second", "waiting_share"]].mean().reset_index()


def draw_whole(trained: Trained, colors: Mapping[str, object]) -> Figure:
    """Draw accuracy on training and validation images by epoch, on test images at the end, and images per second."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4), width_ratios=(1.2, 1, 1))
    training = trained.curves.assign(percent=100 * trained.curves.train_accuracy, images="training")
    both = pd.concat([training, trained.curves.assign(images="validation")])
    names = list(dict.fromkeys(both.method))
    look = {"hue": "method", "style": "images", "palette": {name: colors[name] for name in names}, "markers": True}
    sns.lineplot(both, x="epoch", y="percent", ax=axes[0], errorbar=("pi", 100), **look)
    axes[0].set(xlabel="epoch (from 0)", ylabel="accuracy (%)", title="while training")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    legend_below(fig, axes[0], len(names) + 4)
    axes[0].get_legend().remove()
    Paired(trained.results).draw_means(axes[1], names, colors=colors)
    axes[1].set_title("at the end")
    pace = Paired(pace_of(trained.curves), column="images_per_second")
    pace.draw_means(axes[2], names, "images per second", colors=colors, number="{:.0f}")
    axes[2].set(title="training speed", yticklabels=[])
    return fig
