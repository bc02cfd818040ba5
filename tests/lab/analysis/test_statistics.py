import numpy as np
import pytest
from scipy import stats

from gcplib.lab.analysis import crossed_interval, mean_interval, paired_difference
from gcplib.lab.holm import holm


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


def test_p_value_is_scipys_and_agrees_with_the_interval():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0, 2.0):
        first, second = rng.normal(shift, 1, 6), rng.normal(size=6)
        interval = paired_difference(first, second)
        assert interval.p_value == pytest.approx(stats.ttest_1samp(first - second, 0).pvalue)
        assert (interval.p_value < 0.05) == (interval.low > 0 or interval.high < 0)


def test_p_value_of_two_pairs_by_hand():
    # Student's with one degree of freedom is Cauchy's: p = 1 - 2 arctan(t) / pi, and differences 1 and 3 have t = 2.
    assert paired_difference([1.0, 3.0], [0.0, 0.0]).p_value == pytest.approx(1 - 2 * np.arctan(2) / np.pi)


def test_p_value_without_spread():
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).p_value == 1
    assert mean_interval([0.1 + 0.2 - 0.3] * 3).p_value == 1  # 6e-17, alike for every seed
    assert paired_difference([2.0, 3.0], [1.0, 2.0]).p_value == 0
    assert np.isnan(mean_interval([1.0]).p_value)


def test_p_value_of_a_crossed_interval_has_its_degrees_of_freedom():
    values = np.random.default_rng(0).normal(0.2, 1, (4, 50))
    found = crossed_interval(values)
    a, b = values.mean(1).var(ddof=1) / 4, values.mean(0).var(ddof=1) / 50
    freedom = (a + b) ** 2 / (a**2 / 3 + b**2 / 49)
    assert found.freedom == pytest.approx(freedom)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(values.mean()) / np.sqrt(a + b), freedom))
    assert found.shift(1.0).freedom == found.freedom


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, 2 x 0.03 and 1 x 0.04, which may not be below the 0.06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == pytest.approx([0.2])
    assert holm([0.4, 0.9, 0.5]) == pytest.approx([1, 1, 1])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])


def test_holm_is_between_nothing_and_bonferroni_and_keeps_the_order():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 30):
        p = rng.uniform(size=size) ** 3
        got = holm(p)
        assert (got >= p).all()
        assert (got <= np.minimum(1, size * p) + 1e-15).all()
        assert (np.diff(got[p.argsort()]) >= 0).all()
        shuffled = rng.permutation(size)
        assert holm(p[shuffled]) == pytest.approx(got[shuffled])


def test_holm_rejects_what_the_step_down_test_rejects():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = rng.uniform(size=6) ** 4
        rejected, rest = set(), sorted(range(6), key=lambda place: p[place])
        while rest and p[rest[0]] * len(rest) <= 0.05:
            rejected.add(rest.pop(0))
        assert set(np.flatnonzero(holm(p) <= 0.05)) == rejected


def test_holm_makes_few_false_rejections():
    p = np.random.default_rng(2).uniform(size=(2000, 8))
    assert np.mean([(holm(row) < 0.05).any() for row in p]) < 0.065
    assert np.mean((p < 0.05).any(1)) > 0.3


@pytest.mark.parametrize("bad", [[], [0.5, float("nan")], [1.5], [-0.1], [[0.1]]])
def test_holm_bad_input(bad):
    with pytest.raises(ValueError, match="p value from 0 to 1"):
        holm(bad)


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


def test_crossed_interval_of_one_seed_or_one_image():
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
