"""Pooling layers: a feature map in, one vector a picture out; and the registry that names them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcplib.linalg import (
    VECTOR_ORDER,
    SpectralFunction,
    check_map,
    covariance,
    covariance_map,
    newton_schulz,
    newton_schulz_function,
    power,
    second_moment,
    spectral_dtype,
    triu_vector,
)

__all__ = ["AveragePool", "BilinearPool", "CovariancePool", "NewtonSchulzPool", "create_pool", "list_pools"]

# Under the signed square root of B-CNN: its slope is infinite at zero. The value is the published one.
SIGNED_ROOT_OFFSET = 1e-8

# Measured on two cores: at 64 channels the products of five steps take 0.7 of the time of one eigendecomposition, at
# 128 0.9, at 256 1.3 and more.
MOST_CHANNELS_FOR_PRODUCTS = 128


class Reduction(nn.Sequential):
    """1x1 convolution, batch norm, ReLU: fewer channels before a second-order pool (iSQRT-COV, section 4.1)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        )
        nn.init.kaiming_normal_(self[0].weight, mode="fan_out", nonlinearity="relu")


class AveragePool(nn.Module):
    """Global average pooling, the first-order baseline: ``(B, C, H, W)`` to ``(B, d)``.

    Args:
        in_channels: C. reduction: channels d after an optional 1x1 reduction; None keeps C.
    """

    min_positions = 1

    def __init__(self, in_channels: int, reduction: int | None = None):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("reduction", reduction)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self.in_channels = in_channels
        self.channels = reduction or in_channels
        self.reduction = Reduction(in_channels, reduction) if reduction else nn.Identity()

    @property
    def out_features(self) -> int:
        """Length of the pooled vector: what the classifier needs to know."""
        return self.channels

    def pool(self, x: Tensor) -> Tensor:
        """Pool reduced features ``(B, d, M)`` in a dtype the spectral part can run in."""
        return x.mean(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)`` to ``(B, out_features)``.

        Half-precision features are pooled in float32, also under autocast; the vector is returned in that dtype.

        Raises:
            ValueError: wrong number of dimensions or channels, or too few positions to pool.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"expected features (B, {self.in_channels}, H, W), got {tuple(x.shape)}")
        if x.shape[2] * x.shape[3] < self.min_positions:
            raise ValueError(
                f"{type(self).__name__} needs at least {self.min_positions} positions, got a map of {x.shape[2]} x "
                f"{x.shape[3]}; use larger pictures or features of a smaller stride"
            )
        x = self.reduction(x).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            return self.pool(x.to(spectral_dtype(x.dtype)))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, out_features={self.out_features}"


class _MatrixPool(AveragePool):
    """What the second-order pools share: a matrix ``(B, d, d)``, vectorised by its upper triangle in row order."""

    def __init__(self, in_channels: int, reduction: int | None = None):
        super().__init__(in_channels, reduction)
        self.register_buffer("vector_order", torch.tensor(VECTOR_ORDER))

    @property
    def out_features(self) -> int:
        return self.channels * (self.channels + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return the representation ``(B, d, d)`` of reduced features ``(B, d, M)``."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        return triu_vector(self.matrix(x))

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        stored = state_dict.get(prefix + "vector_order")
        if stored is not None and int(stored) != VECTOR_ORDER:
            raise RuntimeError(
                f"the checkpoint was written with vector order {int(stored)}, this version uses {VECTOR_ORDER}: "
                "its classifier weights would be read in the wrong order"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class CovariancePool(_MatrixPool):
    """Global covariance pooling: a spectral function of the covariance of a feature map.

    ``C = U f(lam) U^T`` with ``U diag(lam) U^T`` the covariance over positions; the exact square root by default.

    Args:
        in_channels: channels of the feature map.
        fn: ``sqrt``, ``identity`` or a ``SpectralFunction`` such as ``power(0.25)``.
        reduction: channels after a 1x1 reduction, or None. 64 to 256 are usual: the vector has d (d + 1) / 2 numbers.
        rule: gradient rule (``gcplib.linalg.list_rules``). route: see ``gcplib.linalg.covariance_map``.

    Source: MPN-COV (Li et al., ICCV 2017).

    >>> CovariancePool(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 36])
    """

    min_positions = 2

    def __init__(
        self,
        in_channels: int,
        fn: str | SpectralFunction = "sqrt",
        reduction: int | None = None,
        rule: str = "exact",
        route: str = "auto",
    ):
        super().__init__(in_channels, reduction)
        # Unknown names fail here, not in the first training step.
        self.fn, self.rule, self.route = check_map(fn, rule, route), rule, route

    def matrix(self, x: Tensor) -> Tensor:
        return covariance_map(x, self.fn, self.rule, self.route)


class NewtonSchulzPool(_MatrixPool):
    """Covariance pooling with the square root by ``steps`` Newton-Schulz steps (iSQRT-COV, CVPR 2018).

    Args:
        in_channels: channels of the feature map. reduction: channels after a 1x1 reduction, or None.
        steps: of the iteration; the paper uses 5.
        route: ``products`` runs the iteration; ``full``, ``thin`` or ``svd`` evaluate the function that it computes on
            the eigenvalues (``gcplib.linalg.newton_schulz_function``), to the same matrix and gradient. ``auto`` takes
            the eigenvalues on a CPU where positions are fewer than channels, or channels more than 128, because
            there they are cheaper (``python -m gcplib.bench``), and the products elsewhere.
    """

    min_positions = 2

    def __init__(self, in_channels: int, reduction: int | None = None, steps: int = 5, route: str = "auto"):
        super().__init__(in_channels, reduction)
        self.fn, self.steps, self.route = newton_schulz_function(steps), steps, route
        if route != "products":
            check_map(self.fn, "exact", route)

    def matrix(self, x: Tensor) -> Tensor:
        channels, positions = x.shape[-2:]
        cheaper = x.device.type != "cpu" or (channels <= MOST_CHANNELS_FOR_PRODUCTS and positions >= channels)
        if self.route == "products" or (self.route == "auto" and cheaper):
            return newton_schulz(covariance(x), self.steps)
        return covariance_map(x, self.fn, route=self.route)


class BilinearPool(_MatrixPool):
    """Bilinear pooling (B-CNN, ICCV 2015): ``X X^T / M``, signed square root, division by its Frobenius norm.

    The published vector holds every off-diagonal entry twice; the upper triangle holds each once, after the same
    normalisation, so a linear classifier sees the same information.
    """

    def matrix(self, x: Tensor) -> Tensor:
        moment = second_moment(x)
        root = moment.sign() * (moment.abs() + SIGNED_ROOT_OFFSET).sqrt()
        return nn.functional.normalize(root.flatten(1)).view_as(root)


def _mpn_cov(in_channels: int, reduction: int | None = None, exponent: float = 0.5, **options) -> CovariancePool:
    if not exponent > 0:
        raise ValueError(f"the matrix power of a covariance must be positive, got {exponent}: covariances are singular")
    return CovariancePool(in_channels, power(exponent), reduction, **options)


def _cov(in_channels: int, reduction: int | None = None) -> CovariancePool:
    return CovariancePool(in_channels, "identity", reduction)


POOLS: dict[str, Callable[..., nn.Module]] = {
    "gap": AveragePool,
    "bcnn": BilinearPool,
    "cov": _cov,
    "mpn_cov": _mpn_cov,
    "isqrt_cov": NewtonSchulzPool,
}


def list_pools() -> list[str]:
    """Return the names ``create_pool`` knows."""
    return list(POOLS)


def create_pool(name: str, in_channels: int, reduction: int | None = None, **options) -> nn.Module:
    """Make a pooling layer by name.

    Args:
        name: ``gap`` average; ``bcnn`` bilinear with signed root; ``cov`` covariance; ``mpn_cov`` its matrix power
            (``exponent=0.5``, ``rule``, ``route``); ``isqrt_cov`` Newton-Schulz (``steps=5``, ``route``).
        in_channels: channels of the feature map ``(B, C, H, W)``.
        reduction: channels after a 1x1 reduction, or None.

    Returns:
        A module from ``(B, C, H, W)`` to ``(B, out_features)``.

    Raises:
        ValueError: unknown name, or bad sizes. TypeError: an option the pool does not have.

    >>> create_pool("isqrt_cov", 112, reduction=64).out_features
    2080
    """
    if name not in POOLS:
        raise ValueError(f"unknown pool {name!r}; known: {', '.join(list_pools())}")
    try:
        return POOLS[name](in_channels, reduction=reduction, **options)
    except TypeError as error:
        raise TypeError(f"pool {name!r}: {error}") from error
