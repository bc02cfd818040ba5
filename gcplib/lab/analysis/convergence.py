"""Whether a run of training has converged, measured from guessing, and how far it came beside another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Convergence", "guessing", "progress_over", "standing"]

MEASURES = ["train_loss", "train_accuracy", "gradient_norm"]


def guessing(counts: np.ndarray) -> tuple[float, float]:
    """Return loss and accuracy of the frequencies of classes alone: their entropy in nats, and the largest.

    Args:
        counts: images of each class.

    >>> [round(value, 3) for value in guessing(np.array([3, 1]))]
    [0.562, 0.75]
    """
    fraction = counts[counts > 0] / counts.sum()
    return float(-(fraction * np.log(fraction)).sum()), float(fraction.max())


def standing(metrics: pd.DataFrame, counts: np.ndarray) -> tuple[float, float, float]:
    """Return how far a run got, NaN where it has no epoch.

    Args:
        metrics: a row per epoch with ``train_loss``, ``train_accuracy`` and ``gradient_norm``.
        counts: images of each class.

    Returns:
        The last loss over that of guessing, the last accuracy as a fraction of the way from guessing to 1, and the
        mean gradient norm of the last third of the epochs.
    """
    if not len(metrics):
        return math.nan, math.nan, math.nan
    loss, accuracy = guessing(counts)
    last, third = metrics.iloc[-1], math.ceil(len(metrics) / 3)
    gained = (last.train_accuracy - accuracy) / (1 - accuracy)
    return last.train_loss / loss, gained, metrics.gradient_norm[-third:].mean()


def progress_over(metrics: pd.DataFrame, twin: pd.DataFrame, counts: np.ndarray) -> float:
    """Return how far the loss came from guessing, over how far the twin's did.

    What a run that ended before its twin had learned is lost: 0. NaN where the twin has learned nothing.

    Args:
        metrics: a row per epoch with ``train_loss``.
        twin: the same of the run to compare with.
        counts: images of each class.
    """
    start = guessing(counts)[0]
    gained = start - twin.train_loss.iloc[-1]
    own = start - metrics.train_loss.iloc[-1] if len(metrics) else 0.0
    lost = len(metrics) < len(twin) or not math.isfinite(own)
    return (0.0 if lost else own) / gained if gained > 0 else math.nan


@dataclass(frozen=True)
class Convergence:
    """What converging means, by thresholds that are fixed before any run is looked at.

    Args:
        nothing: so much better than guessing, of the loss or of the way in accuracy, is still guessing.
        half: of the way from guessing, in both, that a run which converges has gone.
        clip: gradient norm that a run which converges ends below.
    """

    nothing: float
    half: float
    clip: float

    def judge(self, metrics: pd.DataFrame, counts: np.ndarray, outcome: str = "finished") -> tuple[str, list[str]]:
        """Return ``converges``, ``partly`` or ``fails`` by the history of a run, and the reasons where it falls short.

        Args:
            metrics: see ``standing``.
            counts: images of each class.
            outcome: of the run; one that diverged fails.
        """
        loss, accuracy, norm = standing(metrics, counts)
        finite = not len(metrics) or np.isfinite(metrics[MEASURES].astype(float)).all(axis=None)
        by_loss, by_accuracy = f"loss {loss:.2f} of guessing", f"accuracy {accuracy:.2f} of the way from guessing"
        fatal = {"diverged": outcome == "diverged", "metrics not finite": not finite}
        fatal |= {by_loss: loss >= 1 - self.nothing, by_accuracy: accuracy <= self.nothing}
        short = {by_loss: not loss <= 1 - self.half, by_accuracy: not accuracy >= self.half}
        failed = any(fatal.values())
        missed = (fatal if failed else short) | {f"gradient norm {norm:.3g}": norm > self.clip}
        reasons = [name for name, true in missed.items() if true]
        return ("fails" if failed else "partly") if reasons else "converges", reasons

    def row(self, run: Any, twin: Any, counts: np.ndarray) -> dict[str, Any]:
        """Return the verdict on a run with the measures behind it; accuracies are in percent.

        Accuracies of a run that diverged are those of guessing. ``progress`` is NaN where the twin has not finished.

        Args:
            run: a ``gcplib.lab.training.Run``.
            twin: the run that ``progress`` compares it with.
            counts: images of each class.
        """
        metrics, outcome, other = run.metrics, run.result["outcome"], twin.metrics
        verdict, reasons = self.judge(metrics, counts, outcome)
        row = {"outcome": outcome, "verdict": verdict, "reasons": "; ".join(reasons)}
        for name in ("train_accuracy", "test_accuracy"):
            row[name] = run.result[name] if outcome == "finished" else 100 * counts.max() / counts.sum()
        row["loss"], _, row["gradient_norm"] = standing(metrics, counts)
        whole = len(other) == twin.spec.recipe.epochs
        row["progress"] = progress_over(metrics, other, counts) if whole else math.nan
        row["first_norm"] = metrics.gradient_norm.iloc[0] if len(metrics) else math.nan
        row |= {"seconds": run.result["seconds"], "rate": run.spec.recipe.learning_rate}
        return row | {"correct": run.correct}
