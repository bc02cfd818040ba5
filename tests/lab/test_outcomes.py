"""Which images are right, as text: what goes in comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcplib.lab.outcomes import pack, unpack


@given(st.integers(1, 255).flatmap(lambda of: st.tuples(st.just(of), st.lists(st.integers(0, of), max_size=300))))
def test_what_is_packed_is_unpacked(case):
    of, counts = case
    np.testing.assert_allclose(unpack(pack(np.array(counts, int), of)), 100 * np.array(counts) / of)


def test_thousands_of_images_are_a_short_line():
    right = np.random.default_rng(0).random(3000) < 0.9
    text = pack(right)
    assert len(text) < 700
    assert unpack(text).mean() == pytest.approx(100 * right.mean())


@pytest.mark.parametrize(("counts", "of"), [([2], 1), ([-1], 1), ([[1]], 1), ([1], 0), ([1], 256)])
def test_what_is_no_count_is_refused(counts, of):
    with pytest.raises(ValueError, match=f"from 0 to of = {of}"):
        pack(counts, of)
