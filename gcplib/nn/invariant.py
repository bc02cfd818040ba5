"""IDCCP: second-order pooling that does not change when the image is turned or mirrored, of few channels.

The covariances of the eight transformed images (``gcplib.nn.views``) are averaged, ``C(x) = (1 / 8) sum over g in D4 of
cov(features(g x))``. A matrix W with orthonormal columns, d x k, takes C to k channels; ``W^T C W = cov(W^T X)``, so it
acts on the features, which is cheaper.
"""

import torch
from torch import Tensor, nn

from gcplib.linalg import center, covariance_map, newton_schulz_function, spectral_dtype
from gcplib.nn.base import MatrixPool
from gcplib.nn.bilinear import signed_root
from gcplib.nn.options import check_positive


class StiefelProjection(nn.Module):
    """``x -> W^T x`` with orthonormal columns, ``W^T W = 1``: ``(..., d, M)`` to ``(..., k, M)``.

    W starts as the Q of a Gaussian matrix's QR decomposition. It stays on the Stiefel manifold with any optimizer, as
    the first columns of a Cayley transform ``B (1 + A / 2) (1 - A / 2)^-1``: B is the start, completed to a square
    matrix, and A skew-symmetric, made of what is trained.

    Args:
        in_channels: d.
        width: k, from 1 to d.
        orthonormal: False trains W itself, from the same start, which leaves the manifold, as in the released code.

    Raises:
        ValueError: a width below 1, or above the number of channels.

    Source: IDCCP (Wang et al., TGRS 2021). Our reading: how the paper keeps to the manifold could not be checked.
    """

    def __init__(self, in_channels: int, width: int, *, orthonormal: bool = True, device=None, dtype=None):
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("width", width)
        if width > (d := in_channels):
            raise ValueError(f"{d} channels cannot be projected to {width} orthonormal ones; give at most {d}")
        self.in_channels, self.width, self.orthonormal = in_channels, width, orthonormal
        start = _orthonormal(torch.randn(in_channels, width, device=device, dtype=dtype))
        self.free = nn.Parameter(torch.zeros_like(start) if orthonormal else start)
        if orthonormal and width < in_channels:
            more = torch.randn(in_channels, in_channels - width, device=device, dtype=dtype)
            start = _orthonormal(torch.cat([start, more], 1), positive=True)
        self.register_buffer("base", start if orthonormal else None)

    @property
    def weight(self) -> Tensor:
        """W, ``(d, k)``."""
        if not self.orthonormal:
            return self.free
        # In half precision the columns would be orthonormal to three digits.
        lower, base = (t.to(spectral_dtype(t.dtype)) for t in (self.free.tril(), self.base))
        lower = nn.functional.pad(lower, (0, self.in_channels - self.width))
        half, eye = (lower - lower.mT) / 2, torch.eye(self.in_channels, dtype=lower.dtype, device=lower.device)
        return base @ torch.linalg.solve(eye - half, eye + half)[:, : self.width]

    def fix(self) -> None:
        """Hold W itself in place of what it is computed from, for runtimes that solve no linear equations."""
        self.free, self.base, self.orthonormal = nn.Parameter(self.weight.detach(), False), None, False

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-2] != self.in_channels:
            raise ValueError(f"expected features (..., {self.in_channels}, M), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"expected floating-point features, got {x.dtype}")
        with torch.autocast(x.device.type, enabled=False):
            return self.weight.to(x.dtype).mT @ x

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.width}" + ("" if self.orthonormal else ", orthonormal=False")


def _orthonormal(matrix: Tensor, positive: bool = False) -> Tensor:
    """Return the Q of the QR decomposition; ``positive`` makes R's diagonal so, and keeps orthonormal columns."""
    q, r = torch.linalg.qr(matrix)
    # LAPACK's matrices lie column by column, which safetensors does not write.
    return (q * r.diagonal().sign() if positive else q).contiguous()


class InvariantPool(MatrixPool):
    """IDCCP: the square root of the projected covariance, upper triangle, signed square root, unit norm.

    ``v = n(s(triu(R / |R|)))`` with ``R = (W^T C W)^(1/2)``, ``s(a) = sign(a) sqrt(|a|)`` and ``n`` the division by the
    norm. Of views ``(B, V, C, H, W)``, C is the mean covariance; with those of ``d4_views`` the vector is invariant.

    The released code also divides C and the eigenvalues by their norms, which the last division undoes, but for an
    offset of 1e-12 under the signed root. By notes on it, which could not be checked, it takes the root of the
    eigenvalues once more before its Newton-Schulz root, a power of 1/4 in all; here the root is taken once.

    Args:
        in_channels: channels of the feature map.
        projection: the width k; or k / d as a fraction, such as 0.125, the paper's; or None for no projection.
        orthonormal: see ``StiefelProjection``.
        steps: of Newton-Schulz for the root (the released code takes 5); None for the exact root.
        common: see ``MatrixPool``.

    Raises:
        ValueError: a projection to fewer than two channels, whose only entry would be scaled to 1, or to more than d.

    Source: IDCCP (Wang et al., TGRS 2021) and its released code.

    >>> InvariantPool(112, reduction=64)(torch.randn(2, 8, 112, 5, 5)).shape
    torch.Size([2, 36])
    """

    min_positions = 2
    centered = True

    def __init__(
        self,
        in_channels: int,
        *,
        projection: int | float | None = 0.125,
        orthonormal: bool = True,
        steps: int | None = None,
        **common,
    ):
        super().__init__(in_channels, **common)
        self.width, self.projection = _width(self.channels, projection), nn.Identity()
        if projection is not None:
            place = {name: common.get(name) for name in ("device", "dtype")}
            self.projection = StiefelProjection(self.channels, self.width, orthonormal=orthonormal, **place)
        # What cannot work fails here, not in the first training step.
        fn = "sqrt" if steps is None else newton_schulz_function(steps)
        self.root, self.steps = fn, steps
        self.settings = {"projection": projection, "orthonormal": orthonormal, "steps": steps} | self.settings

    @property
    def out_features(self) -> int:
        return self.width * (self.width + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return the root ``(B, k, k)`` of reduced features ``(B, d, M)``."""
        # Centered first, so that W does not act on large means, whose rounding would count as variance.
        x = self.projection(center(x))
        return covariance_map(x, self.root, route="auto" if self.steps is None else "products")

    def pool(self, x: Tensor) -> Tensor:
        # The norm of the upper triangle is one more factor that the last division undoes; the offset is as released.
        return signed_root(nn.functional.normalize(super().pool(x)), offset=1e-12)


def _width(channels: int, projection: int | float | None) -> int:
    """Return the number of channels that is left."""
    width = channels if projection is None else projection
    if isinstance(width, float):
        if not 0 < width <= 1:
            raise ValueError(f"a projection given as a fraction must be above 0 and at most 1, got {width}")
        width = max(2, round(width * channels))
    if isinstance(width, bool) or not isinstance(width, int) or width < 2:
        raise ValueError(
            f"the invariant pool needs at least two channels, got {width!r}: the only entry of one is scaled to 1"
        )
    return width
