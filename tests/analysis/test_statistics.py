import numpy as np
import pytest
from scipy import stats

from gcplib.analysis import crossed_interval, mean_interval, paired_difference


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


def draw_tables(count, rows, columns, by_row, by_column, residual):
    rng = np.random.default_rng(0)
    return (
        by_row * rng.normal(size=(count, rows, 1))
        + by_column * rng.normal(size=(count, 1, columns))
        + residual * rng.normal(size=(count, rows, columns))
    )


@pytest.mark.parametrize("spread", [(1, 0.3, 0.3), (0.3, 1, 0.3), (0.7, 0.7, 1), (0, 0, 1)])
@pytest.mark.parametrize(("rows", "columns"), [(3, 12), (5, 30)])
def test_crossed_interval_covers_the_mean(rows, columns, spread):
    found = [crossed_interval(table) for table in draw_tables(2000, rows, columns, *spread)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in found])
    # Too often where there is only a residual, which is counted twice; never too seldom.
    assert 0.93 < covered <= (1 if spread[2] > spread[0] else 0.985)


def test_intervals_that_leave_a_way_out_are_too_narrow():
    tables = draw_tables(500, 3, 30, 1, 0.3, 0.3)
    covered = np.mean([(i := mean_interval(t.ravel())).low <= 0 <= i.high for t in tables])
    assert covered < 0.5


def test_crossed_interval_of_one_seed_or_one_picture():
    values = [1.0, 2.0, 4.0]
    for table in ([values], np.transpose([values])):
        assert crossed_interval(table) == mean_interval(values)
    assert crossed_interval([[3.0]]).high == float("inf")
    constant = crossed_interval(np.full((3, 4), 2.5))
    assert (constant.low, constant.mean, constant.high, constant.n) == (2.5, 2.5, 2.5, 12)


def test_crossed_interval_of_rows_alone_is_students():
    # Columns that are all equal have no variance: what is left is Student's over the rows.
    table = np.array([1.0, 2.0, 4.0])[:, None].repeat(6, 1)
    got, want = crossed_interval(table), mean_interval([1.0, 2.0, 4.0])
    assert (got.low, got.high) == pytest.approx((want.low, want.high))


def test_crossed_interval_bad_input():
    for bad in ([1.0, 2.0], np.zeros((0, 3)), [[1.0, float("nan")]]):
        with pytest.raises(ValueError, match="need a table"):
            crossed_interval(bad)
