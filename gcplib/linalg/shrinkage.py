"""Shrinkage of a covariance toward a multiple of the identity, and how much of it the features themselves ask for.

With S the covariance of M positions, d channels and ``m = tr(S) / d``,

    S_a = (1 - a) S + a m I.

For a above 0 it is positive definite unless S is zero, so a logarithm or an inverse exists with fewer positions than
channels. Eigenvectors and the trace stay; every eigenvalue moves toward their mean.
"""

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from gcplib.linalg.calls import is_number, unknown
from gcplib.linalg.covariance import center
from gcplib.linalg.functions import IDENTITY
from gcplib.linalg.spectral import covariance_map
from gcplib.linalg.tolerance import require
from gcplib.linalg.transforms import look


def _check_range(intensity: Tensor) -> None:
    inside = ((intensity >= 0) & (intensity <= 1)).all()
    require(inside, "an intensity is not from 0 to 1", partial(_raise_range, intensity))


def _raise_range(intensity: Tensor) -> NoReturn:
    numbers = f"from {intensity.min().item():.3g} to {intensity.max().item():.3g}"
    raise ValueError(f"an intensity of shrinkage must be from 0 to 1, got {numbers}")


def _over_mean(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean eigenvalue m ``(..., 1, 1)``, S / m, and ``|S / m - I|^2``, all free of the features' scale.

    A zero matrix has m = 1 and distance 0.
    """
    mean = s.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    some, eye = mean > 0, torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    mean = torch.where(some, mean, torch.ones_like(mean))
    s = s / mean
    return mean, s, (s - some * eye).square().sum((-2, -1))


def _over_distance(value: Tensor, distance: Tensor, otherwise: float) -> Tensor:
    """Return ``value / distance`` within 0 and 1, and ``otherwise`` where S is a multiple of the identity already."""
    some = distance > 0
    ratio = (value / torch.where(some, distance, torch.ones_like(distance))).clamp(0, 1)
    return torch.where(some, ratio, torch.full_like(ratio, otherwise))


def _ledoit_wolf(x: Tensor, s: Tensor) -> Tensor:
    mean, s, distance = _over_mean(s)
    lengths = center(x).square().sum(-2) / mean.squeeze(-1)
    return _over_distance((lengths.square().mean(-1) - s.square().sum((-2, -1))) / x.shape[-1], distance, 0.0)


def _oas(x: Tensor, s: Tensor) -> Tensor:
    _, s, distance = _over_mean(s)
    channels, positions = x.shape[-2:]
    return _over_distance((s.square().sum((-2, -1)) + channels**2) / (positions + 1), distance, 1.0)


# What a shrinkage may be called.
INTENSITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ledoit_wolf": _ledoit_wolf, "oas": _oas}


def ledoit_wolf(x: Tensor) -> Tensor:
    """Return the intensity a that the features ask for, by Ledoit and Wolf.

    ``a = min(1, (1/M^2) sum_k |x_k x_k^T - S|^2 / |S - m I|^2)`` with x_k the centered features at position k: the
    estimated variance of S over its distance from the target. With two positions it is 0, because both say the same.

    Args:
        x: uncentered features ``(..., d, M)``, float32 or float64.

    Returns:
        ``(...)``, differentiable, between 0 and 1; 0 where S is a multiple of the identity. Equal to scikit-learn's
        ``ledoit_wolf_shrinkage`` of the positions as samples.

    Raises:
        ValueError, TypeError, NonFiniteError: as ``covariance_map``.

    Source: Ledoit and Wolf, J. Multivariate Analysis 2004, section 3.

    >>> ledoit_wolf(torch.tensor([[3.0, -1.0, -1.0, -1.0], [0.0, 0.0, 2.0, -2.0]]))
    tensor(1.)
    """
    return _ledoit_wolf(x, covariance_map(x, IDENTITY))


def oas(x: Tensor) -> Tensor:
    """Return the oracle approximating shrinkage: the intensity that is best for Gaussian features.

    ``a = min(1, (tr(S^2) + tr(S)^2) / ((M + 1) (tr(S^2) - tr(S)^2 / d)))``.

    Args:
        x: uncentered features ``(..., d, M)``, float32 or float64.

    Returns:
        ``(...)``, differentiable, between 0 and 1; 1 where S is a multiple of the identity. Equal to scikit-learn's
        ``OAS``, which like this omits the terms 2 / d of the published formula,
        ``((1 - 2/d) tr(S^2) + tr(S)^2) / ((M + 1 - 2/d) (tr(S^2) - tr(S)^2 / d))``.

    Raises:
        ValueError, TypeError, NonFiniteError: as ``covariance_map``.

    Source: Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Processing 2010, eq. 23.
    """
    return _oas(x, covariance_map(x, IDENTITY))


def check_shrinkage(intensity: object) -> None:
    """Raise ``ValueError`` unless it is a number above 0 and at most 1, or a name: ``ledoit_wolf`` or ``oas``."""
    if isinstance(intensity, str):
        if intensity not in INTENSITIES:
            raise ValueError(unknown("shrinkage", intensity, INTENSITIES))
    elif not (is_number(intensity) and 0 < intensity <= 1):
        known = ", ".join(INTENSITIES)
        raise ValueError(f"shrinkage must be above 0 and at most 1, or one of {known}; got {intensity!r}")


def shrunk_covariance(x: Tensor, intensity: float | str | Tensor) -> Tensor:
    """Return ``(1 - a) S + a tr(S) / d I`` with S the covariance of the features.

    Args:
        x: uncentered features ``(..., d, M)``, float32 or float64.
        intensity: a, a number above 0 and at most 1; or ``ledoit_wolf`` or ``oas``, which take it from the
            features of each matrix, with its gradient; or a tensor ``(...)`` of numbers.

    Returns:
        ``(..., d, d)``.

    Raises:
        ValueError: another number or name, the wrong number of numbers, or bad features. TypeError: half precision.
        NonFiniteError: NaN or infinity in the features, or an overflow of their covariance.

    Source: Ledoit and Wolf, J. Multivariate Analysis 2004.

    >>> shrunk_covariance(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), 0.5)
    tensor([[0.7500, 0.0000],
            [0.0000, 0.2500]])
    """
    s = covariance_map(x, IDENTITY)
    if isinstance(intensity, Tensor):
        if intensity.shape not in (s.shape[:-2], ()):
            shapes = f"got {tuple(intensity.shape)} for covariances {tuple(s.shape)}"
            raise ValueError(f"intensities must be one, or one for each covariance; {shapes}")
        look(_check_range, intensity)
        intensity = intensity.to(s.dtype)
    else:
        check_shrinkage(intensity)
    with torch.autocast(x.device.type, enabled=False):
        a = INTENSITIES[intensity](x, s) if isinstance(intensity, str) else intensity
        a = a[..., None, None] if isinstance(a, Tensor) else a
        mean = s.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        return (1 - a) * s + a * mean * torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
