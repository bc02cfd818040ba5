"""Training: specs, cached features, the loop, and runs as files."""

from gcplib.lab.training.engine import Engine, PeerLost
from gcplib.lab.training.features import cache_all_features, cache_features
from gcplib.lab.training.recipe import PoolSwitch, Recipe, learning_rate_factor
from gcplib.lab.training.runs import Run, ensure, ensure_all, metrics_table, results_table
from gcplib.lab.training.spec import RunSpec
from gcplib.lab.training.state import slow_optimizer
from gcplib.lab.training.tuning import Tuned, tune, with_rate

__all__ = [
    "Engine",
    "PeerLost",
    "PoolSwitch",
    "Recipe",
    "Run",
    "RunSpec",
    "Tuned",
    "cache_all_features",
    "cache_features",
    "ensure",
    "ensure_all",
    "learning_rate_factor",
    "metrics_table",
    "results_table",
    "slow_optimizer",
    "tune",
    "with_rate",
]
