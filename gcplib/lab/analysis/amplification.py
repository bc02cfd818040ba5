"""Amplifying small eigenvalues: what it does to a spectrum, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcplib.lab.analysis.turns import now, take_turns
from gcplib.linalg import SpectralFunction, get_function, spectral_map
from gcplib.nn import amplify

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["energy_shares", "output_eigenvalues", "pass_times", "released_factor", "released_factor_slope"]


def _check_eigenvalues(lam: Tensor) -> None:
    if lam.dim() != 2 or 0 in lam.shape:
        raise ValueError(f"eigenvalues must be (B, d), got {tuple(lam.shape)}")
    if not (torch.isfinite(lam).all() and (lam >= 0).all()):
        raise ValueError(f"eigenvalues must be finite and not negative, got {lam.min():.3g} to {lam.max():.3g}")


def output_eigenvalues(lam: Tensor, how: str | None = None, fn: str | SpectralFunction = "sqrt") -> Tensor:
    """Return the eigenvalues that a pool makes of those of the covariance, each in the place of its own.

    Args:
        lam: ``(B, d)``, in any order (``spectra``). how: a name of ``list_amplifiers()``, or None for the plain pool.
        fn: the pool's function, such as ``identity`` or ``newton_schulz_function(5)``.

    Returns:
        ``(B, d)``.

    Raises:
        ValueError: another shape, eigenvalues that are negative or not finite, or an unknown ``how``.

    >>> output_eigenvalues(torch.tensor([[4.0, 1.0]]), "constant(1)")
    tensor([[4., 2.]])
    """
    _check_eigenvalues(lam)
    fn = get_function(fn) if how is None else amplify(fn, how, lam.shape[1])
    # A diagonal matrix is its own eigendecomposition, so the pool's own code says what becomes of each eigenvalue.
    return spectral_map(torch.diag_embed(lam), fn).diagonal(dim1=-2, dim2=-1)


def energy_shares(values: Tensor, bands: int = 4) -> Tensor:
    """Return which share of a matrix's energy each band of its eigenvalues has.

    ``E_b = sum_{i in b} v_i^2 / sum_i v_i^2``: the energy is the squared Frobenius norm, that is, the squared length
    of the vector that a classifier sees.

    Args:
        values: ``(B, d)`` eigenvalues of the representation, in the order of those of the covariance, largest first
            (``output_eigenvalues`` of ``spectra``). bands: how many, of equally many ranks.

    Returns:
        ``(B, bands)``; rows sum to 1.

    Raises:
        ValueError: another shape, not from 1 to d bands, or a matrix of zeros, which has no energy.

    >>> energy_shares(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), 2)
    tensor([[0.8333, 0.1667]])
    """
    if values.dim() != 2 or not 1 <= bands <= values.shape[1]:
        raise ValueError(f"cannot cut eigenvalues of shape {tuple(values.shape)} into {bands} bands of ranks")
    energy = values.square()
    if not (energy.sum(1) > 0).all():
        raise ValueError("a matrix whose eigenvalues are all zero has no energy to share out")
    parts = [part.sum(1) for part in energy.tensor_split(bands, dim=1)]
    return torch.stack(parts, 1) / energy.sum(1, keepdim=True)


def released_factor(lam: Tensor) -> Tensor:
    """Return the one factor by which the released Scaling Eigen Branch multiplies an image's square root.

    ``1 + r`` with ``r = |Q S|_F = sqrt(sum_i lam_i exp(-2 lam_i))``: ``(B, d)`` to ``(B,)``, differentiable.

    Raises:
        ValueError: another shape, or eigenvalues that are negative or not finite.

    Source: SEB.py of Song et al., TPAMI 2022.
    """
    _check_eigenvalues(lam.detach())
    return 1 + (lam * (-2 * lam).exp()).sum(1).sqrt()


def released_factor_slope(lam: Tensor) -> Tensor:
    """Return how that factor changes with each eigenvalue: ``(1 - 2 lam_i) exp(-2 lam_i) / (2 r)``, ``(B, d)``.

    It is positive below 1/2 and negative above, whatever the other eigenvalues. Where r is zero it is infinite.

    Raises:
        ValueError: as ``released_factor``.
    """
    r = released_factor(lam).unsqueeze(1) - 1
    return (1 - 2 * lam) * (-2 * lam).exp() / (2 * r)


def pass_times(layers: Mapping[str, nn.Module], features: Tensor, rounds: int = 9) -> pd.DataFrame:
    """Time the forward and the backward pass of layers on the same features.

    The layers take turns, so that whatever else the machine does meets all of them. Compare within rounds.

    Args:
        layers: by name, on the features' device. features: the input. rounds: timed passes of each, after one untimed.

    Returns:
        One row a layer and round: ``layer``, ``round``, ``forward`` and ``backward``, both in milliseconds.

    Raises:
        ValueError: no layer, or no round.
    """
    import pandas as pd

    rows, device = [], features.device
    for count, name, layer in take_turns(layers, rounds, "layer"):
        x = features.detach().requires_grad_()
        start = now(device)
        out = layer(x)
        middle = now(device)
        torch.autograd.grad(out, x, torch.ones_like(out))
        rows.append([name, count, middle - start, now(device) - middle])
    found = pd.DataFrame(rows, columns=["layer", "round", "forward", "backward"])
    return found[found["round"] >= 0].reset_index(drop=True)
