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
from gcplib.analysis.smoothness import Smoothness, effective_smoothness, gradient_field, smoothness_while_training
from gcplib.analysis.statistics import Interval, mean_interval, paired_difference

__all__ = [
    "POOL_LABELS",
    "Interval",
    "Smoothness",
    "average_descriptors",
    "effective_smoothness",
    "gradient_field",
    "interval_plot",
    "mean_interval",
    "nearest_neighbour_hits",
    "paired_difference",
    "pool_palette",
    "power_descriptors",
    "root_estimate_error",
    "same_picture_hits",
    "smoothness_while_training",
    "spectra",
    "use_style",
]
