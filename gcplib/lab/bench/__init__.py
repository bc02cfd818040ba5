"""Benchmarks: layers from features to a pooled matrix beside other packages, and whole networks in training."""

from gcplib.lab.bench.layers import Report, keep, speed_page
from gcplib.lab.bench.measure import SIZES, measure
from gcplib.lab.bench.methods import METHODS, REFERENCES, Method, load_methods

__all__ = ["METHODS", "REFERENCES", "SIZES", "Method", "Report", "keep", "load_methods", "measure", "speed_page"]
