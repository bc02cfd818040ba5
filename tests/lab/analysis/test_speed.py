import pandas as pd
import pytest

from gcplib.lab.analysis.speed import censored_mean, epochs_to, seconds_to


def history(*accuracies, seconds=2.0):
    return pd.DataFrame({"epoch": range(len(accuracies)), "seconds": seconds, "validation_accuracy": accuracies})


def test_the_first_epoch_that_reaches_it_counts():
    run = history(0.1, 0.3, 0.2, 0.5, seconds=[1.0, 2.0, 4.0, 8.0])
    # Reached is at least: and a fall afterwards does not take it back.
    for target, epochs, seconds in ((0, 1, 1), (0.1, 1, 1), (0.11, 2, 3), (0.3, 2, 3), (0.31, 4, 15), (0.5, 4, 15)):
        assert epochs_to(run, target) == epochs
        assert seconds_to(run, target) == pytest.approx(seconds)


def test_never_reached_is_none():
    assert epochs_to(history(0.1, 0.2), 0.21) is None
    assert seconds_to(history(0.1, 0.2), 0.21) is None
    # A run that diverged in its first epoch has a table without rows.
    assert epochs_to(history(), 0.1) is None
    assert seconds_to(history(), 0.1) is None


def test_order_of_rows_and_other_columns():
    run = history(0.1, 0.3, 0.5, seconds=[1.0, 2.0, 4.0]).assign(train_accuracy=[0.2, 0.6, 0.9])
    assert epochs_to(run[::-1], 0.3) == 2
    assert seconds_to(run[::-1], 0.3) == pytest.approx(3)
    assert epochs_to(run, 0.8, "train_accuracy") == 3


def test_bad_histories():
    with pytest.raises(KeyError, match="top5"):
        epochs_to(history(0.1), 0.1, "top5")
    with pytest.raises(ValueError, match=r"of one run, got \[0, 0, 1, 1\]"):
        epochs_to(pd.concat([history(0.1, 0.2)] * 2), 0.1)
    with pytest.raises(ValueError, match="target is NaN"):
        epochs_to(history(0.1), float("nan"))


def test_censored_runs_count_as_the_whole_and_are_counted():
    mean, never = censored_mean([3, None, 5], [12, 10, 12])
    assert (mean.mean, mean.n, never) == (6, 3, 1)
    mean, never = censored_mean([3, 5], [12, 12])
    assert (mean.mean, never) == (4, 0)


def test_censored_bad_input():
    with pytest.raises(ValueError, match="2 values and 1 limits"):
        censored_mean([1, 2], [3])
    with pytest.raises(ValueError, match="took 4 to the target, but 3 altogether"):
        censored_mean([1, 4], [3, 3])
    with pytest.raises(ValueError, match="at least one finite value"):
        censored_mean([], [])
