"""Relative scores by hand: the ratios that notebook 08 compares two networks by."""

import numpy as np
import pandas as pd
import pytest
from notebook_code import definitions

notebook = definitions("08")
METHODS = ("covariance", "average")


def table(ours, theirs):
    rows = [
        (method, kind, severity + 1, error)
        for method, errors in zip(METHODS, (ours, theirs), strict=True)
        for kind, values in errors.items()
        for severity, error in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["method", "kind", "severity", "error"])


ERRORS = table({"fog": [0.2, 0.4], "jpeg": [0.3, 0.6]}, {"fog": [0.3, 0.5], "jpeg": [0.2, 0.4]})


def clean(ours, theirs):
    return pd.Series(dict(zip(METHODS, (ours, theirs), strict=True)))


def test_ratios_of_sums_over_severities():
    found = notebook.error_ratios(ERRORS)
    assert found.to_dict() == pytest.approx({"fog": 0.6 / 0.8, "jpeg": 0.9 / 0.6})
    mixed = notebook.error_ratios(ERRORS.sample(frac=1, random_state=0))
    assert mixed.to_dict() == pytest.approx(found.to_dict())


def test_network_against_itself_is_one():
    same = {"fog": [0.2, 0.4], "jpeg": [0.3, 0.6]}
    assert notebook.error_ratios(table(same, same)).tolist() == [1, 1]
    assert notebook.error_ratios(table(same, same), clean(0.1, 0.1)).tolist() == [1, 1]


def test_relative_error_takes_the_clean_ones_off():
    found = notebook.error_ratios(ERRORS, clean(0.1, 0.15))
    assert found.to_dict() == pytest.approx({"fog": 0.4 / 0.5, "jpeg": 0.7 / 0.3})


def test_kinds_that_the_reference_does_not_notice_are_missing():
    found = notebook.error_ratios(ERRORS, clean(0.1, 0.3))
    assert np.isnan(found["jpeg"])
    assert found["fog"] == pytest.approx(0.4 / 0.2)
    means = notebook.below_one({0: found, 1: found * np.nan})
    assert means == {0: pytest.approx(100 * (1 - 0.4 / 0.2))}
    assert notebook.error_ratios(ERRORS, clean(0.1, 0.9)).isna().all()
    rounding = notebook.ratio_of(pd.Series([1.0, 1.0]), pd.Series([1e-16, 0.5]))
    assert rounding.isna().tolist() == [True, False]


def test_flips_of_films_and_of_noise():
    films = [[1, 1, 2, 2, 1], [4, 4, 4, 4, 4]]
    assert notebook.flip_rate(films, "rotate") == pytest.approx(2 / 8)
    assert notebook.flip_rate(films, "gaussian_noise") == pytest.approx(2 / 8)
    assert notebook.flip_rate([[1, 2, 2, 2]], "rotate") == pytest.approx(1 / 3)
    assert notebook.flip_rate([[1, 2, 2, 2]], "gaussian_noise") == 1.0
