"""The ways from features to a normalized covariance, side by side: time, memory and error.

``python -m gcplib.lab.bench`` measures, ``--sweep`` draws cost against size, ``--keep`` renews the table of the README.
"""

from gcplib.lab.bench.measure import SIZES, measure, relative_error, saved_bytes
from gcplib.lab.bench.methods import METHODS, REFERENCES, Method, load_methods
from gcplib.lab.bench.readme import keep, readme_block
from gcplib.lab.bench.report import Report

__all__ = [
    "METHODS",
    "REFERENCES",
    "SIZES",
    "Method",
    "Report",
    "keep",
    "load_methods",
    "measure",
    "readme_block",
    "relative_error",
    "saved_bytes",
]
