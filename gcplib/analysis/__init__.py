"""Measuring: statistics over seeds and pictures, descriptors without training, and figures."""

from gcplib.analysis.descriptors import (
    average_descriptors,
    nearest_neighbour_hits,
    power_descriptors,
    root_estimate_error,
    same_picture_hits,
    spectra,
)
from gcplib.analysis.plots import POOL_LABELS, interval_plot, pool_palette, use_style
from gcplib.analysis.statistics import Interval, mean_interval, paired_difference

__all__ = [
    "POOL_LABELS",
    "Interval",
    "average_descriptors",
    "interval_plot",
    "mean_interval",
    "nearest_neighbour_hits",
    "paired_difference",
    "pool_palette",
    "power_descriptors",
    "root_estimate_error",
    "same_picture_hits",
    "spectra",
    "use_style",
]
