"""Benchmarks: layers from features to a pooled matrix beside other packages, and whole networks in training."""
