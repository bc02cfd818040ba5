"""Twins of the most confused typefaces, what their maps are scored by, and the lengths of vectors."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from gcplib.lab.analysis import confused_pairs, confused_twins, draw_evidence, mean_squared_length, twin_scores
from gcplib.lab.data import TypefacesSpec, load_typefaces

LOOK = TypefacesSpec(families=3, train=1, validation=1, test=1, pixels=64)


def told(*rows):
    return pd.DataFrame(rows, columns=["label", "prediction"])


@pytest.fixture(scope="module")
def twins():
    names = load_typefaces(LOOK).class_names("fine")
    return confused_twins([told((0, 2), (2, 0))], names, LOOK, 2)


def test_the_most_confused_come_first_each_once_whatever_the_direction():
    runs = [told((0, 1), (3, 3)), told((2, 1), (1, 2), (3, 0))]
    assert confused_pairs(runs, 5) == [(1, 2), (0, 3)]
    assert confused_pairs([told((0, 0))], 2) == [(0, 1)]


def test_twins_are_of_the_confused_typefaces_and_differ_in_their_words(twins):
    names = load_typefaces(LOOK).class_names("fine")
    assert [twin.families for twin in twins] == [(names[0], names[2])] * 2
    assert not np.array_equal(twins[0].first, twins[1].first)


def test_a_map_of_what_differs_beats_an_even_one_and_one_of_the_rest(twins):
    differs = torch.tensor(twins[0].mask).float()
    best, even, rest = (twin_scores(heat, twins[0]) for heat in (differs, torch.ones_like(differs), 1 - differs))
    assert even == pytest.approx({"auc": 50, "inside": 100, "on_letters": 100})
    for name in ("auc", "inside"):
        assert best[name] > even[name] > rest[name]
    assert twin_scores(-differs, twins[0]) is None


def test_evidence_is_drawn_over_the_image(twins):
    _, ax = plt.subplots()
    draw_evidence(ax, torch.randn(4, 4), twins[0])
    assert [drawn.get_array().shape for drawn in ax.images] == [(64, 64), (64, 64)]
    plt.close()


def test_squared_lengths_of_averages_are_by_hand():
    x = torch.rand(5, 4, 3, 3)
    want = x.mean((2, 3)).square().sum(1).mean().item()
    assert mean_squared_length("gap", x) == pytest.approx(want)
    longer = mean_squared_length("mpn_cov", x, amplify="released")
    assert longer > mean_squared_length("mpn_cov", x)
