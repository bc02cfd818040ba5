"""Relative scores by hand: the ratios that notebook 08 compares two networks by."""

import math

import pytest
import torch
from notebook_code import definitions

notebook = definitions("08")
OURS, THEIRS = ("covariance", 0), ("average", 0)
# Rows are fog and jpeg, columns two severities.
ERRORS = {
    OURS: torch.tensor([[0.2, 0.4], [0.3, 0.6]], dtype=torch.float64),
    THEIRS: torch.tensor([[0.3, 0.5], [0.2, 0.4]], dtype=torch.float64),
}


def test_ratios_of_sums_over_severities():
    assert notebook.ratios(ERRORS, 0).tolist() == pytest.approx([0.6 / 0.8, 0.9 / 0.6])
    turned = {key: table.flip(1) for key, table in ERRORS.items()}
    torch.testing.assert_close(notebook.ratios(turned, 0), notebook.ratios(ERRORS, 0))


def test_network_against_itself_is_one():
    same = dict.fromkeys(ERRORS, ERRORS[OURS])
    assert notebook.ratios(same, 0).tolist() == [1, 1]
    assert notebook.ratios(same, 0, dict.fromkeys(ERRORS, 0.1)).tolist() == [1, 1]


def test_relative_error_takes_the_clean_ones_off():
    found = notebook.ratios(ERRORS, 0, {OURS: 0.1, THEIRS: 0.15})
    assert found.tolist() == pytest.approx([0.4 / 0.5, 0.7 / 0.3])


def test_kinds_that_the_reference_does_not_notice_are_missing():
    fog, jpeg = notebook.ratios(ERRORS, 0, {OURS: 0.1, THEIRS: 0.3})
    assert jpeg.isnan()
    assert fog.item() == pytest.approx(0.4 / 0.2)
    means = notebook.below_one({0: torch.stack([fog, jpeg]), 1: torch.tensor([math.nan])})
    assert means == {0: pytest.approx(100 * (1 - 0.4 / 0.2))}
    assert notebook.ratios(ERRORS, 0, {OURS: 0.1, THEIRS: 0.9}).isnan().all()
    tiny = {OURS: torch.ones(2, 1), THEIRS: torch.tensor([[1e-16], [0.5]])}
    assert notebook.ratios(tiny, 0).isnan().tolist() == [True, False]


def test_flips_of_films_and_of_noise():
    films = [[1, 1, 2, 2, 1], [4, 4, 4, 4, 4]]
    assert notebook.flip_rate(films, "rotate") == pytest.approx(2 / 8)
    assert notebook.flip_rate(films, "gaussian_noise") == pytest.approx(2 / 8)
    assert notebook.flip_rate([[1, 2, 2, 2]], "rotate") == pytest.approx(1 / 3)
    assert notebook.flip_rate([[1, 2, 2, 2]], "gaussian_noise") == 1.0
