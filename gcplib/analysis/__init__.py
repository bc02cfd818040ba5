"""Measuring: statistics over seeds and pictures, and figures."""

from gcplib.analysis.plots import POOL_LABELS, interval_plot, pool_palette, use_style
from gcplib.analysis.statistics import Interval, mean_interval, paired_difference

__all__ = [
    "POOL_LABELS",
    "Interval",
    "interval_plot",
    "mean_interval",
    "paired_difference",
    "pool_palette",
    "use_style",
]
