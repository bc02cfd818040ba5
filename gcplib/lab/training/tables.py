"""Tidy tables over many runs, for seaborn and for statistics."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from gcplib.lab.training.runs import Run

__all__ = ["metrics_table", "results_table"]


def _describe(run: Run) -> dict:
    spec = run.spec
    return {
        "pool": spec.pool,
        **spec.options,
        **({"then": "+".join(entry.pool for entry in spec.recipe.switch)} if spec.recipe.switch else {}),
        **({"systems": "+".join(spec.systems)} if spec.systems else {}),
        "labels": spec.labels,
        "stage": spec.stage,
        "seed": spec.seed,
        "learning_rate": spec.recipe.learning_rate,
    }


def results_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row a run: what it was, its outcome, its accuracies in percent (missing where it diverged).

    ``then`` names the pools of a hybrid run that take over, ``systems`` what else is built in; the best epoch is there
    where the recipe asks for it.
    """
    keys = ("outcome", "reason", "test_accuracy", "validation_accuracy", "train_accuracy", "seconds", "parameters")
    more = ("test_top5", "best_epoch", "best_test_accuracy", "device", "devices")
    rows = [(run, {key: run.result[key] for key in keys}) for run in runs]
    # What older runs did not write, and what only some recipes ask for.
    return pd.DataFrame(
        [_describe(run) | row | {k: run.result[k] for k in more if k in run.result} for run, row in rows]
    )


def metrics_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row an epoch of every run: what it was, and the columns of ``metrics.csv``.

    A run that diverged in its first epoch has no row.
    """
    tables = []
    for run in runs:
        # The peak learning rate of the run would hide the epoch's own.
        description = {key: value for key, value in _describe(run).items() if key != "learning_rate"}
        tables.append(run.metrics.assign(**description))
    return pd.concat([table for table in tables if len(table)], ignore_index=True)
