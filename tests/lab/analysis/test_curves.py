"""Curves of intervals and quantiles, and means of logarithms: the numbers that are drawn."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from gcplib.lab.analysis import Interval, Paired, interval_curve, mean_logs, quantile_curve, share_interval


@pytest.mark.parametrize("decades", [False, True])
def test_interval_curve_draws_means_and_ends(decades):
    found = {2: Interval(1.0, 0.5, 2.0, 3), 5: Interval(2.0, 1.0, 3.0, 3)}
    _, ax = plt.subplots()
    interval_curve(ax, found, decades=decades, fmt="o-")
    line, _, (bars,) = ax.containers[0]
    ends = np.array([[1.0, 0.5, 2.0], [2.0, 1.0, 3.0]])
    expected = 10**ends if decades else ends
    np.testing.assert_allclose(line.get_ydata(), expected[:, 0])
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], expected[:, 1:])
    plt.close()


def test_quantile_curve_draws_the_median():
    _, ax = plt.subplots()
    quantile_curve(ax, [1, 2], np.arange(10.0).reshape(5, 2), label="rows")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [4, 5])
    plt.close()


def test_mean_logs_are_of_groups_and_take_what_is_infinite():
    rows = [{"rule": "a", "beta": 1.0, "gradient_norm": 10.0}, {"rule": "a", "beta": 100.0, "gradient_norm": 10.0}]
    rows += [{"rule": "b", "beta": math.inf, "gradient_norm": 1.0}]
    found = mean_logs(rows, ["rule"]).set_index("rule")
    assert found.loc["a"].tolist() == pytest.approx([1, 1])
    assert found["log beta"]["b"] == pytest.approx(math.log10(np.finfo(np.float32).max))


def test_share_interval_is_exact_at_both_ends():
    found = share_interval([True, False, False, False])
    assert (found.mean, found.n) == (25, 4)
    assert found.low == pytest.approx(100 * (1 - 0.975**0.25))
    assert share_interval([False] * 3).low == 0


def test_decades_compare_logarithms():
    table = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "score": [10.0, 100.0, 1.0, 10.0]})
    assert Paired(table).decades().gain("a", "b").mean == pytest.approx(1)
