"""Scores against the ground truth: closed forms, other routes to the same number, chance, and refusals."""

import numpy as np
import pytest
import torch

from gcplib.lab.analysis import auc, energy_inside, enlarge, near, pointing_game, score_maps

MASK = np.zeros((6, 8), dtype=bool)
MASK[1:3, 2:5] = True


def random_maps(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 6, 8))


def test_auc_is_the_probability_of_the_right_order():
    maps = random_maps(2, 3).round(1)  # with ties
    inside, outside = maps[1, 2][MASK], maps[1, 2][~MASK]
    order = np.sign(inside[:, None] - outside[None])
    assert auc(maps, MASK).shape == (2, 3)
    assert auc(maps, MASK)[1, 2] == pytest.approx((order + 1).mean() / 2)


def test_auc_at_its_ends_and_under_monotone_change():
    maps = random_maps()
    assert auc(MASK.astype(float), MASK) == 1
    assert auc(-MASK.astype(float), MASK) == 0
    assert auc(np.ones((6, 8)), MASK) == 0.5
    assert auc(np.exp(maps), MASK) == pytest.approx(auc(maps, MASK))
    assert auc(-maps, MASK) == pytest.approx(1 - auc(maps, MASK))


def test_within_counts_only_what_it_says():
    maps, around = random_maps(), near(MASK, 1)
    assert around.sum() == 6 + 2 * 3 + 2 * 2
    changed = np.where(around, maps, 100.0)
    assert auc(changed, MASK, around) == pytest.approx(auc(maps, MASK, around))
    assert auc(changed, MASK) < auc(maps, MASK)
    # A map of the neighborhood, which finds text and nothing else, is at chance there.
    assert auc(around.astype(float), MASK) > 0.85
    assert auc(around.astype(float), MASK, around) == 0.5
    assert energy_inside(around.astype(float), MASK, around, relative=True) == pytest.approx(1)


def test_energy_is_a_share_of_the_positive_part():
    maps = random_maps(4)
    positive = np.maximum(maps[2], 0)
    share = positive[MASK].sum() / positive.sum()
    assert energy_inside(maps, MASK)[2] == pytest.approx(share)
    assert energy_inside(maps, MASK, relative=True)[2] == pytest.approx(share / MASK.mean())
    assert energy_inside(MASK - 0.5, MASK) == 1
    with pytest.raises(ValueError, match="1 of 2 maps have no positive value"):
        energy_inside(np.stack([maps[0], -np.ones((6, 8))]), MASK)


def test_pointing_game():
    maps = np.zeros((3, 6, 8))
    maps[0, 1, 2] = maps[1, 4, 4] = maps[2, 5, 7] = 1
    assert pointing_game(maps, MASK).tolist() == [True, False, False]
    assert pointing_game(maps, MASK, 2).tolist() == [True, True, False]
    # The largest value within: the corner does not count.
    maps[2, 2, 4] = 0.5
    assert pointing_game(maps, MASK, within=near(MASK, 2)).tolist() == [True, False, True]


def test_enlarging_keeps_constants_and_order():
    small = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    big = enlarge(small.expand(2, 3, 2, 2), 8, 8)
    assert big.shape == (2, 3, 8, 8)
    assert big.dtype == np.float64
    assert (np.diff(big[0, 0], axis=1) >= 0).all()
    assert big[0, 0][[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(enlarge(torch.ones(3, 3), 7, 5), np.ones((7, 5)))


@pytest.mark.parametrize("function", [auc, energy_inside, pointing_game])
def test_bad_input(function):
    maps = random_maps()
    with pytest.raises(ValueError, match="image without a counterfactual"):
        function(maps, None)
    with pytest.raises(ValueError, match=r"no pixel differs of the 48.*no ground truth"):
        function(maps, np.zeros((6, 8), dtype=bool))
    with pytest.raises(ValueError, match="every pixel differs"):
        function(maps, MASK, within=MASK)
    with pytest.raises(ValueError, match=r"\(6, 8\) does not fit the mask \(6, 7\)"):
        function(maps, MASK[:, :7])
    with pytest.raises(ValueError, match=r"within has shape \(5, 8\)"):
        function(maps, MASK, within=MASK[:5])
    with pytest.raises(ValueError, match="1 values of the map"):
        function(np.where(MASK & (np.cumsum(MASK).reshape(6, 8) == 1), np.nan, maps), MASK)


def test_a_table_of_scores_has_those_of_every_map():
    maps = torch.from_numpy(random_maps(2, 3, 2))
    differs, inside = np.stack([MASK] * 3), np.stack([near(MASK, 1)] * 3)
    table = score_maps(maps, ["one", "two"], differs, inside, step=1)
    assert len(table) == 2 * 3 * 2
    (row,) = table[(table["seed"] == 1) & (table["image"] == 2) & (table["set"] == "two")].to_dict("records")
    heat = maps[1, 2, 1].numpy()
    assert row["auc"] == pytest.approx(auc(abs(heat), MASK))
    assert row["auc_within"] == pytest.approx(auc(abs(heat), MASK, inside[0]))
    assert row["auc_signed"] == pytest.approx(auc(heat, MASK, inside[0]))
    assert row["energy"] == pytest.approx(energy_inside(abs(heat), MASK, inside[0]))
    assert row["pointing"] == pointing_game(abs(heat), MASK, within=inside[0])
