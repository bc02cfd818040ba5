"""Training: specs, cached features, the loop, and runs as files."""

from gcplib.training.engine import Engine, PeerLost
from gcplib.training.features import cache_features
from gcplib.training.recipe import PoolSwitch, Recipe
from gcplib.training.runs import Run, ensure, ensure_all
from gcplib.training.schedules import learning_rate_factor
from gcplib.training.spec import RunSpec
from gcplib.training.tables import metrics_table, results_table

__all__ = [
    "Engine",
    "PeerLost",
    "PoolSwitch",
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
