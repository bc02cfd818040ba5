"""Measuring: statistics over seeds, and figures."""

from gcplib.analysis.statistics import Interval, mean_interval, paired_difference

__all__ = ["Interval", "mean_interval", "paired_difference"]
