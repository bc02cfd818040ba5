"""Second moments of a set of feature vectors, and their vectors for a classifier."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.linalg.products import product
from gcplib.linalg.tolerance import check_matrices
from gcplib.linalg.transforms import batched, fresh, run

# The order of `triu_vector`, stored in checkpoints. Other libraries changed theirs and silently lost their
# published weights, so a new order would get a new number.
VECTOR_ORDER = 1


def check_features(x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is a set of features ``(..., d, M)`` with at least one position."""
    if x.dim() < 2:
        raise ValueError(f"features must have shape (..., channels, positions), got {tuple(x.shape)}")
    if x.shape[-1] == 0 or x.shape[-2] == 0:
        raise ValueError(f"features of shape {tuple(x.shape)} have no channels or no positions to pool")
    if not x.is_floating_point():
        raise TypeError(f"features must be floating point, got {x.dtype}; convert them with .float()")


def symmetric(a: Tensor) -> Tensor:
    """Return the symmetric part ``(A + A^T) / 2`` of ``(..., d, d)``."""
    return (a + a.mT) / 2


def twice_symmetric_product(g: Tensor, x: Tensor) -> Tensor:
    """Return ``(G + G^T) X`` of ``(..., d, d)`` and ``(..., d, n)``."""
    if 4 * x.shape[-1] <= x.shape[-2]:
        # Reading G across its rows to add the transpose costs more than a second thin product: measured on two cores,
        # 105 against 10 ms at 4 x 2048 channels and 49 columns, and even at 256 channels.
        return product(g, x) + product(g.mT, x)
    return product(g + g.mT, x)


def center(x: Tensor) -> Tensor:
    """Subtract the mean over positions: ``X - X 1 1^T / M``, shape ``(..., d, M)``."""
    return x - x.mean(dim=-1, keepdim=True)


def second_moment(x: Tensor) -> Tensor:
    """Return ``X X^T / M``, the bilinear pooling of ``(..., d, M)``, shape ``(..., d, d)``.

    Source: B-CNN (Lin et al., ICCV 2015).
    """
    check_features(x)
    with torch.autocast(x.device.type, enabled=False):
        return product(x, x.mT) / x.shape[-1]


@batched
class _Covariance(Function):
    """``dl/dX = (G + G^T) X_c / M``: already centered, because the rows of ``X_c`` sum to zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        x = center(x)
        return fresh(product(x, x.mT).div_(x.shape[-1])), x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: None) -> Tensor | None:
        if g is None:
            return None
        x, centered = ctx.saved_tensors
        # Whoever differentiates this again needs it as a function of X.
        centered = center(x) if torch.is_grad_enabled() else centered
        with torch.autocast(g.device.type, enabled=False):
            return twice_symmetric_product(g, centered) / x.shape[-1]

    @staticmethod
    def push(ctx: Any, dx: Tensor) -> tuple[Tensor, None]:
        return push_covariance(ctx.saved_tensors[0], dx)[1], None


def push_covariance(x: Tensor, dx: Tensor, centered: bool = True) -> tuple[Tensor, Tensor]:
    """Return the covariance, or second moment, of X and its change with that of X."""
    if centered:
        x, dx = center(x), center(dx)
    half = product(dx, x.mT) / x.shape[-1]
    return product(x, x.mT) / x.shape[-1], half + half.mT


def covariance(x: Tensor) -> Tensor:
    """Return the covariance ``X I_bar X^T`` with ``I_bar = (I - 1 1^T / M) / M``.

    Args:
        x: uncentered features ``(..., d, M)``: d channels at M positions.

    Returns:
        ``(..., d, d)``, positive semi-definite, rank at most ``min(d, M - 1)``, same dtype and device. What overflows
        is infinite, in float16 from a deviation of 256; the pools compute that in float32.

    Raises:
        ValueError: no channel or no position.
        TypeError: not floating point.

    Source: MPN-COV (Li et al., ICCV 2017), eq. 1.

    >>> covariance(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    tensor([[1., 0.],
            [0., 0.]])
    """
    check_features(x)
    with torch.autocast(x.device.type, enabled=False):
        return run(_Covariance, x)[0]


def gaussian_embedding(x: Tensor) -> Tensor:
    """Embed the Gaussian of features ``(..., d, M)`` with mean m and covariance S as ``[[S + m m^T, m], [m^T, 1]]``.

    Source: G2DeNet (Wang et al., CVPR 2017).
    """
    check_features(x)
    ones = x.new_ones(*x.shape[:-2], 1, x.shape[-1])
    return second_moment(torch.cat([x, ones], dim=-2))


def triu_vector(s: Tensor) -> Tensor:
    """Return the upper triangle with its diagonal, row by row: ``(..., d, d)`` to ``(..., d (d + 1) / 2)``.

    The order is frozen as ``VECTOR_ORDER``: (0,0), (0,1), ..., (0,d-1), (1,1), ...

    >>> triu_vector(torch.tensor([[1, 2], [2, 3]]))
    tensor([1, 2, 3])
    """
    check_matrices(s)
    row, column = torch.triu_indices(s.shape[-1], s.shape[-1], device=s.device)
    return s[..., row, column]
