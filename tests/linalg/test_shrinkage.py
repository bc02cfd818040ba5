"""Shrinkage of covariances, and intensities beside scikit-learn, which calls positions samples."""

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS, LedoitWolf

from gcplib.linalg import NonFiniteError, covariance, ledoit_wolf, logm, oas, shrunk_covariance

DOUBLE = torch.float64
# Channels and positions, from far too few positions to many; the mean is not zero.
SIZES = [(2, 3), (6, 4), (24, 9), (5, 200), (16, 17), (3, 2)]
ESTIMATORS = {"ledoit_wolf": (ledoit_wolf, LedoitWolf), "oas": (oas, OAS)}


def features(channels, positions, batch=3, seed=0):
    torch.manual_seed(seed)
    mixing = torch.randn(channels, channels, dtype=DOUBLE)
    return mixing @ torch.randn(batch, channels, positions, dtype=DOUBLE) + 3


def by_the_formulas(x):
    """Both intensities, entry by entry in plain loops, from the definitions and not from their short forms."""
    channels, positions = x.shape
    x = x - x.mean(1, keepdims=True)
    s = sum(np.outer(v, v) for v in x.T) / positions
    distance = ((s - np.trace(s) / channels * np.eye(channels)) ** 2).sum()
    variance = sum(((np.outer(v, v) - s) ** 2).sum() for v in x.T) / positions**2
    square, total = np.trace(s @ s), np.trace(s) ** 2
    oracle = (square + total) / ((positions + 1) * (square - total / channels))
    return {"ledoit_wolf": min(1, variance / distance), "oas": min(1, oracle)}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_intensities_and_covariances_are_those_of_the_formulas_and_of_scikit_learn(size, name):
    x, (intensity, estimator) = features(*size), ESTIMATORS[name]
    for got, shrunk, image in zip(intensity(x), shrunk_covariance(x, name), x, strict=True):
        want = estimator(assume_centered=False).fit(image.T.numpy())
        assert got.item() == pytest.approx(by_the_formulas(image.numpy())[name], rel=1e-9, abs=1e-12)
        assert got.item() == pytest.approx(want.shrinkage_, rel=1e-9, abs=1e-12)
        torch.testing.assert_close(shrunk, torch.from_numpy(want.covariance_), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intensities_do_not_depend_on_scale_nor_precision(name):
    x, (intensity, _) = features(6, 30), ESTIMATORS[name]
    for factor in (1e-12, 1e12):
        torch.testing.assert_close(intensity((factor * x).float()), intensity(x).float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_more_positions_ask_for_less(name):
    intensity, _ = ESTIMATORS[name]
    found = [intensity(features(8, positions, batch=20)).mean() for positions in (20, 200, 2000)]
    assert found[0] > 5 * found[1] > 25 * found[2] > 0


def test_closed_forms():
    x = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    torch.testing.assert_close(shrunk_covariance(x, 0.2), torch.tensor([[0.9, 0.0], [0.0, 0.1]]))
    torch.testing.assert_close(shrunk_covariance(x, 1), torch.eye(2) / 2)
    # Orthogonal channels of one variance: a multiple of the identity, from which there is no way to go.
    square = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    assert (ledoit_wolf(square).item(), oas(square).item()) == (0, 1)
    constant = torch.full((4, 9), 2.0)
    assert (ledoit_wolf(constant).item(), oas(constant).item()) == (0, 1)
    # Two positions are x and -x around their mean: both have the same outer product, so S does not vary.
    assert ledoit_wolf(features(4, 2)).abs().max() < 1e-12


def test_eigenvalues_move_toward_their_mean_and_the_trace_stays():
    x = features(6, 4)
    s, shrunk = covariance(x), shrunk_covariance(x, 0.3)
    want = 0.7 * torch.linalg.eigvalsh(s) + 0.3 * torch.linalg.eigvalsh(s).mean(-1, keepdim=True)
    torch.testing.assert_close(torch.linalg.eigvalsh(shrunk), want)
    torch.testing.assert_close(shrunk.diagonal(dim1=-2, dim2=-1).sum(-1), s.diagonal(dim1=-2, dim2=-1).sum(-1))


@pytest.mark.parametrize("intensity", [0.1, *ESTIMATORS])
@pytest.mark.parametrize("size", [(4, 3), (3, 12)], ids=str)
def test_gradients_go_through_the_intensity(size, intensity):
    # Scaled axes and a heavy tail keep both intensities away from 0 and 1, where they have kinks.
    x = (features(*size, batch=2) * torch.arange(1.0, size[0] + 1, dtype=DOUBLE)[:, None] ** 2).requires_grad_()
    if intensity in ESTIMATORS:
        (slope,) = torch.autograd.grad(ESTIMATORS[intensity][0](x).sum(), x)
        assert slope.abs().max() > 0
    assert torch.autograd.gradcheck(lambda x: shrunk_covariance(x, intensity), x)


def test_intensities_may_be_given_for_each_covariance():
    x, a = features(4, 9), torch.tensor([0.1, 0.5, 1.0], dtype=DOUBLE)
    want = torch.stack([shrunk_covariance(image, value.item()) for image, value in zip(x, a, strict=True)])
    torch.testing.assert_close(shrunk_covariance(x, a), want)
    torch.testing.assert_close(shrunk_covariance(x, a[1]), shrunk_covariance(x, 0.5))
    torch.testing.assert_close(shrunk_covariance(x, ledoit_wolf(x)), shrunk_covariance(x, "ledoit_wolf"))
    with pytest.raises(ValueError, match=r"or one for each covariance; got \(2,\) for covariances \(3, 4, 4\)"):
        shrunk_covariance(x, a[:2])


@pytest.mark.parametrize("intensity", [0.5, *ESTIMATORS])
def test_empty_batches_constant_features_and_leading_dimensions(intensity):
    assert shrunk_covariance(torch.zeros(0, 4, 9), intensity).shape == (0, 4, 4)
    x = torch.full((2, 4, 9), 2.0, requires_grad=True)
    out = shrunk_covariance(x, intensity)
    out.sum().backward()
    assert out.abs().max() == 0
    assert torch.isfinite(x.grad).all()
    x = features(4, 9, batch=6)
    torch.testing.assert_close(
        shrunk_covariance(x.unflatten(0, (2, 3)), intensity).flatten(0, 1), shrunk_covariance(x, intensity)
    )


def test_one_channel_is_as_it_is():
    for intensity in ESTIMATORS:
        torch.testing.assert_close(shrunk_covariance(features(1, 9), intensity), covariance(features(1, 9)))


def test_a_logarithm_exists_with_few_positions():
    x = features(8, 4)
    with pytest.raises(NonFiniteError, match="positive definite"):
        logm(covariance(x))
    for intensity in (0.02, *ESTIMATORS):
        assert torch.isfinite(logm(shrunk_covariance(x, intensity))).all()


@pytest.mark.parametrize(
    ("intensity", "message"),
    [
        ("ledoit", "unknown shrinkage 'ledoit'; did you mean 'ledoit_wolf'. known: ledoit_wolf, oas"),
        ("oracle", "unknown shrinkage 'oracle'; .*known: ledoit_wolf, oas"),
        (0, "above 0 and at most 1, or one of ledoit_wolf, oas; got 0"),
        (1.5, "got 1.5"),
        (float("nan"), "got nan"),
        (True, "got True"),
        (None, "got None"),
        (torch.tensor(1.5), "must be from 0 to 1, got from 1.5 to 1.5"),
        (torch.tensor(-0.5), "got from -0.5 to -0.5"),
        (torch.tensor(float("nan")), "got from nan to nan"),
    ],
)
def test_other_intensities_are_refused(intensity, message):
    with pytest.raises(ValueError, match=message):
        shrunk_covariance(torch.randn(4, 9), intensity)


def test_bad_features_are_refused():
    x = torch.randn(2, 4, 9)
    x[1, 2, 3] = float("nan")
    for function in (ledoit_wolf, oas, lambda x: shrunk_covariance(x, 0.1)):
        with pytest.raises(NonFiniteError, match="1 non-finite"):
            function(x)
        with pytest.raises(ValueError, match="no channels or no positions"):
            function(x[..., :0])
        with pytest.raises(TypeError, match="float16"):
            function(x.half())
