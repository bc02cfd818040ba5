"""Ink of a counterfactual pair: where the letters of either family are."""

import numpy as np
import pytest

from gcplib.lab.data import pair


@pytest.mark.parametrize("seed", [0, 5])
def test_ink_holds_the_letters_of_both(seed):
    drawn, swapped = pair("Inter", "Lora", seed=seed), pair("Lora", "Inter", seed=seed)
    assert drawn.ink.dtype == bool
    assert drawn.ink.shape == drawn.mask.shape
    np.testing.assert_array_equal(drawn.ink, swapped.ink)
    assert 0.005 < drawn.ink.mean() < 0.5
    # What differs is ink, or within reach of its blur.
    near = np.zeros_like(drawn.ink)
    for down in range(-4, 5):
        for right in range(-4, 5):
            near |= np.roll(drawn.ink, (down, right), (0, 1))
    assert not (drawn.mask & ~near).any()
    # Most of the ink differs, because unequal widths shift the letters along a line.
    assert drawn.mask[drawn.ink].mean() > 0.5
