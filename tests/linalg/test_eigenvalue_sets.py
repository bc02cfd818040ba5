import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcplib.linalg import band, bottom, get_eigenvalue_set, list_eigenvalue_sets, random_set, top
from gcplib.linalg.eigenvalue_sets import SETS, energy_bottom, energy_random, energy_top

LAM = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("name", "rank", "expected"),
    [
        ("top(2)", 6, "000011"),
        ("bottom(2)", 6, "110000"),
        ("bottom(2)", 4, "001100"),  # of the four that can differ from zero
        ("band(1, 3)", 4, "000110"),
        ("band(0, 4)", 4, "001111"),
        ("all_but_smallest(2)", 6, "001111"),
        ("energy_top(0.5)", 6, "000011"),
        ("energy_top(0.4)", 6, "000001"),
        ("energy_bottom(0.5)", 6, "111100"),
        ("energy_bottom(0.5)", 4, "001100"),
    ],
)
def test_sets_are_what_their_names_say(name, rank, expected):
    mask = get_eigenvalue_set(name).mask(LAM, rank)
    assert "".join(str(int(bit)) for bit in mask) == expected
    assert torch.equal(get_eigenvalue_set(name).mask(LAM.expand(2, 3, 6), rank), mask.expand(2, 3, 6))


def test_random_sets_follow_their_seed_and_size():
    masks = {tuple(random_set(3, seed).mask(LAM).tolist()) for seed in range(20)}
    assert len(masks) > 5
    assert {sum(mask) for mask in masks} == {3}
    assert torch.equal(random_set(3, 1).mask(LAM), random_set(3, 1).mask(10 * LAM + 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=12), st.floats(0.05, 0.95))
def test_energy_sets_hold_their_fraction_and_complete_each_other(values, fraction):
    lam = torch.tensor(sorted(values), dtype=torch.float64)
    kept = get_eigenvalue_set(f"energy_top({fraction})").mask(lam)
    rest = get_eigenvalue_set(f"energy_bottom({1 - fraction})").mask(lam)
    assert lam[kept].sum() >= fraction * lam.sum() * (1 - 1e-12)
    # One fewer would not do.
    assert lam[kept].sum() - lam[kept].min() < fraction * lam.sum() * (1 + 1e-12)
    # 1 - (1 - fraction) may differ from fraction by rounding, and so may one eigenvalue.
    assert (kept ^ rest).sum() >= len(values) - 1
    drawn = get_eigenvalue_set(f"energy_random({fraction}, 3)").mask(lam)
    assert lam[drawn].sum() >= fraction * lam.sum() * (1 - 1e-12)


def test_names_are_read_back():
    for name in list_eigenvalue_sets():
        assert str(get_eigenvalue_set(name)) == name
    assert {name.partition("(")[0] for name in list_eigenvalue_sets()} == set(SETS)
    assert get_eigenvalue_set(chosen := top(3)) is chosen


@pytest.mark.parametrize(
    "name", ["top", "top()", "top(a)", "top(1.5)", "top(1, 2)", "band(3)", "smallest(3)", "top(2)x"]
)
def test_unreadable_names_are_refused(name):
    with pytest.raises(ValueError, match=r"set of eigenvalues '|cannot read"):
        get_eigenvalue_set(name)


@pytest.mark.parametrize(
    "name", ["top(0)", "bottom(-1)", "random(0, 1)", "band(3, 3)", "band(-1, 2)", "all_but_smallest(0)"]
)
def test_empty_sets_are_refused(name):
    with pytest.raises(ValueError, match=r"must be an integer from|is empty"):
        get_eigenvalue_set(name)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_fractions_of_energy_are_between_0_and_1(fraction):
    for make in (energy_top, energy_bottom, energy_random):
        with pytest.raises(ValueError, match="between 0 and 1"):
            make(fraction)


@pytest.mark.parametrize("made", [top(5), bottom(5), band(3, 5), random_set(5)], ids=str)
def test_sets_larger_than_the_rank_are_refused(made):
    assert made.mask(LAM, 5).sum() == (2 if made.name == "band(3, 5)" else 5)
    with pytest.raises(ValueError, match="needs 5 eigenvalues, but these covariances have at most 4"):
        made.mask(LAM, 4)
