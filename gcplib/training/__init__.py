"""Training: specs, cached features, the loop, and runs as files."""

from gcplib.training.features import cache_features
from gcplib.training.loop import learning_rate_factor
from gcplib.training.runs import Run, ensure, ensure_all
from gcplib.training.spec import Recipe, RunSpec
from gcplib.training.tables import metrics_table, results_table

__all__ = [
    "Recipe",
    "Run",
    "RunSpec",
    "cache_features",
    "ensure",
    "ensure_all",
    "learning_rate_factor",
    "metrics_table",
    "results_table",
]
