"""Relative scores by hand, and tables that cannot be compared."""

import math

import pandas as pd
import pytest

from gcplib.lab.analysis.robustness import corruption_error, flip_rate, relative_flip_rate


def table(values):
    return pd.DataFrame(
        [(k, s + 1, e) for k, row in values.items() for s, e in enumerate(row)], columns=["kind", "severity", "error"]
    )


OURS, THEIRS = table({"fog": [0.2, 0.4], "jpeg": [0.3, 0.6]}), table({"fog": [0.3, 0.5], "jpeg": [0.2, 0.4]})


def test_mean_of_ratios_of_sums():
    found = corruption_error(OURS, THEIRS)
    assert found.by_kind == pytest.approx({"fog": 0.6 / 0.8, "jpeg": 0.9 / 0.6})
    assert found.value == pytest.approx((0.75 + 1.5) / 2)
    assert found.left_out == ()
    assert corruption_error(OURS.sample(frac=1, random_state=0), THEIRS).value == pytest.approx(found.value)


def test_network_against_itself_is_one():
    assert corruption_error(OURS, OURS).value == pytest.approx(1)
    assert corruption_error(OURS, OURS, (0.1, 0.1)).value == pytest.approx(1)


def test_relative_error_takes_the_clean_ones_off():
    found = corruption_error(OURS, THEIRS, (0.1, 0.15))
    assert found.by_kind == pytest.approx({"fog": 0.4 / 0.5, "jpeg": 0.7 / 0.3})


def test_kinds_that_the_reference_does_not_notice_are_named():
    found = corruption_error(OURS, THEIRS, (0.1, 0.3))
    assert found.left_out == ("jpeg",)
    assert found.by_kind == pytest.approx({"fog": 0.4 / 0.2})
    with pytest.raises(ValueError, match="the reference has no loss under any of fog, jpeg"):
        corruption_error(OURS, THEIRS, (0.1, 0.9))
    with pytest.raises(ValueError, match="the reference has no error under any of fog, jpeg"):
        corruption_error(OURS, THEIRS.assign(error=0.0))


def test_tables_that_do_not_fit():
    with pytest.raises(ValueError, match="a table of errors has no column 'error'"):
        corruption_error(OURS.drop(columns="error"), THEIRS)
    with pytest.raises(ValueError, match="a table has fog of severity 1 twice"):
        corruption_error(pd.concat([OURS, OURS[:1]]), THEIRS)
    with pytest.raises(ValueError, match=r"only one has \[\('fog', 1\)\]"):
        corruption_error(OURS[1:], THEIRS)
    with pytest.raises(ValueError, match="need finite numbers of every kind"):
        corruption_error(OURS.assign(error=math.inf), THEIRS)


def test_flips_of_films_and_of_noise():
    films = [[1, 1, 2, 2, 1], [4, 4, 4, 4, 4]]
    assert flip_rate(films, "rotate") == pytest.approx(2 / 8)
    assert flip_rate(films, "gaussian_noise") == pytest.approx(2 / 8)
    assert flip_rate([[1, 2, 2, 2]], "rotate") == pytest.approx(1 / 3)
    assert flip_rate([[1, 2, 2, 2]], "gaussian_noise") == 1.0
    for bad in ([1, 2, 3], [[1], [2]], []):
        with pytest.raises(ValueError, match=r"need predictions \(films, length\) with a length of 2 or more"):
            flip_rate(bad, "rotate")


def test_relative_flips():
    found = relative_flip_rate(
        {"rotate": 0.1, "translate": 0.3, "fog": 0.2}, {"rotate": 0.2, "translate": 0.2, "fog": 0}
    )
    assert found.value == pytest.approx((0.5 + 1.5) / 2)
    assert found.left_out == ("fog",)
    with pytest.raises(ValueError, match="need the same kinds of both networks"):
        relative_flip_rate({"rotate": 0.1}, {"fog": 0.1})
    with pytest.raises(ValueError, match="the reference has no flip under any of rotate"):
        relative_flip_rate({"rotate": 0.1}, {"rotate": 0.0})
    with pytest.raises(ValueError, match="need the same kinds"):
        relative_flip_rate({}, {})
