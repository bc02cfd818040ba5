"""What notebook 06 says of the released branch: it is one factor, and the library computes the same."""

import torch
from notebook_code import definitions

from gcplib.lab.analysis import spectra
from gcplib.linalg import covariance, spectral_map
from gcplib.nn import amplify

CODE = definitions("06")


def test_the_released_code_is_one_factor_times_the_root():
    x = torch.randn(3, 6, 5, 5, dtype=torch.float64)
    Sigma = covariance(x.flatten(2))
    C, _, weights, result = CODE.released(Sigma)
    by_factor = CODE.released_factor(spectra(x))[:, None, None] * C
    torch.testing.assert_close(result, by_factor)
    torch.testing.assert_close(spectral_map(Sigma, amplify("sqrt", "released", 6)), by_factor)
    assert weights.flatten(1).std(1).max() < 1e-6
    torch.testing.assert_close(C @ C, Sigma)


def test_a_channel_that_is_off_is_undefined_in_the_released_code_alone():
    off = covariance(torch.randn(2, 6, 30, dtype=torch.float64).index_fill(1, torch.tensor([0]), 0))
    assert CODE.released(off)[3].isnan().any()
    assert not spectral_map(off, amplify("sqrt", "released", 6)).isnan().any()
