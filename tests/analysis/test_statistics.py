import numpy as np
import pytest
from scipy import stats

from gcplib.analysis import mean_interval, paired_difference


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=7)
    got = mean_interval(values)
    want = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((want.low, want.high))
    assert got.n == 7


def test_pairing_removes_what_pairs_share():
    shared = np.array([50.0, 60.0, 70.0])
    got = paired_difference(shared + np.array([1, 1.1, 0.9]), shared)
    assert got.low > 0.5
    assert got.mean == pytest.approx(1)


def test_one_seed_has_no_interval():
    assert mean_interval([3.0]).high == float("inf")
    assert "no interval" in str(mean_interval([3.0]))


def test_bad_input():
    with pytest.raises(ValueError, match="at least one finite value"):
        mean_interval([])
    with pytest.raises(ValueError, match="at least one finite value"):
        mean_interval([1.0, float("nan")])
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1, 2], [1, 2, 3])
