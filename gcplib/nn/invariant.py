"""IDCCP: second-order pooling that does not change when the image is turned or mirrored, of few channels.

The eight symmetries of the square form the group D4. The covariances of the eight transformed images are averaged,

    C(x) = (1 / 8) sum over g in D4 of cov(features(g x)),

which is invariant whatever the backbone is, because transforming x only reorders the sum. A matrix W with orthonormal
columns, d x k, then takes it to k channels. ``W^T C W = cov(W^T X)``, so W acts on the features, which is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gcplib.linalg import center, covariance, covariance_map, newton_schulz, newton_schulz_function
from gcplib.nn.base import MatrixPool

__all__ = ["D4", "InvariantPool", "StiefelProjection", "d4_views", "random_view"]

# r turns by 90 degrees against the clock, f mirrors left and right; "rf" mirrors first.
D4 = ("e", "r", "r2", "r3", "f", "rf", "r2f", "r3f")

# Under the signed square root, whose slope is infinite at zero. The value is the released one.
SIGNED_ROOT_OFFSET = 1e-12


def d4_views(x: Tensor) -> Tensor:
    """Return the eight views of square images, in the order of ``D4``: ``(B, C, H, H)`` to ``(B, 8, C, H, H)``.

    Pixels change places and nothing else: there is no interpolation.

    Raises:
        ValueError: not four dimensions, or images that are not square.

    Source: IDCCP (Wang et al., TGRS 2021). The released code turns the other way and mirrors up and down: the same
    eight views in another order.

    >>> d4_views(torch.tensor([[[[1, 2], [3, 4]]]]))[0, [0, 1, 4, 5], 0].tolist()
    [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[2, 1], [4, 3]], [[1, 3], [2, 4]]]
    """
    if x.dim() != 4:
        raise ValueError(f"expected images (B, C, H, W), got {tuple(x.shape)}")
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"only squares look the same size after a quarter turn, got images of {x.shape[-2]} x {x.shape[-1]}; "
            "crop them to squares first"
        )
    return torch.stack([torch.rot90(y, k, (-2, -1)) for y in (x, x.flip(-1)) for k in range(4)], dim=1)


def random_view(views: Tensor) -> Tensor:
    """Return one view of each image, at random: ``(B, V, ...)`` to ``(B, ...)``.

    The numbers come from torch's global generator of the device.

    Raises:
        ValueError: no dimension of views, or no views.
    """
    if views.dim() < 2 or views.shape[1] == 0:
        raise ValueError(f"expected views (B, V, ...) with at least one view, got {tuple(views.shape)}")
    which = torch.randint(views.shape[1], (len(views),), device=views.device)
    return views[torch.arange(len(views), device=views.device), which]


class StiefelProjection(nn.Module):
    """``x -> W^T x`` with orthonormal columns, ``W^T W = 1``: ``(..., d, M)`` to ``(..., k, M)``.

    W starts as the Q of a Gaussian matrix's QR decomposition. It stays on the Stiefel manifold because it is a Cayley
    transform of what is trained, so that any optimizer may be used.

    Args:
        in_channels: d. width: k, from 1 to d.
        orthonormal: False trains W itself, from the same start: an ordinary 1x1 convolution, which leaves the manifold,
            as it does in the released code.

    Raises:
        ValueError: a width below 1, or above the number of channels.

    Source: IDCCP (Wang et al., TGRS 2021). Our reading: how the paper keeps to the manifold could not be checked.
    """

    def __init__(self, in_channels: int, width: int, orthonormal: bool = True):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("width", width)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if width > in_channels:
            raise ValueError(
                f"{in_channels} channels cannot be projected to {width} orthonormal ones; give at most {in_channels}"
            )
        self.in_channels, self.width, self.orthonormal = in_channels, width, orthonormal
        # LAPACK's matrices lie column by column, which safetensors does not write.
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(in_channels, width)).Q.contiguous())
        if orthonormal:
            # Not the default map (Householder): it keeps signs in a parameter and rounds them to integers, which weight
            # decay turns into zeros.
            parametrizations.orthogonal(self, "weight", "cayley")
            (cayley,) = self.parametrizations.weight
            cayley.base = cayley.base.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[-2] != self.in_channels:
            raise ValueError(f"expected features (..., {self.in_channels}, M), got {tuple(x.shape)}")
        # In half precision the columns would be orthonormal to three digits.
        with torch.autocast(x.device.type, enabled=False):
            return self.weight.to(x.dtype).mT @ x

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.width}" + ("" if self.orthonormal else ", orthonormal=False")


class InvariantPool(MatrixPool):
    """IDCCP: the square root of the projected covariance, upper triangle, signed square root, length one.

    ``v = n(s(triu(R / |R|)))`` with ``R = (W^T C W)^(1/2)``, ``s(a) = sign(a) sqrt(|a|)`` and ``n`` the division by the
    length. Given the features ``(B, V, C, H, W)`` of V views, C is the mean of their covariances; with the views of
    ``d4_views`` the vector is invariant. Features ``(B, C, H, W)`` are those of one view.

    The released code divides C by its Frobenius norm before W acts, and the eigenvalues by their norm after it. Both
    are factors of the whole matrix, which the last division undoes, but for an offset of 1e-12 under the signed root.
    By notes on that code, which could not be checked against it, it also takes the root of the eigenvalues once more
    before its Newton-Schulz root, a power of 1/4 in all; here the root is taken once.

    Args:
        in_channels: channels of the feature map. reduction, reduction_groups: channels d after an optional 1x1
            reduction; see ``AveragePool``.
        projection: the width k; or k / d as a share, such as 0.125, the paper's; or None for no projection.
        orthonormal: see ``StiefelProjection``.
        steps: of Newton-Schulz for the root (the released code takes 5); None for the exact root.
        compute_dtype: ``float32`` or ``float64`` for the spectral part, or None for the features' own.

    Raises:
        ValueError: a projection to fewer than two channels, whose only number would be scaled to 1, or to more than d.

    Source: IDCCP (Wang et al., TGRS 2021) and its released code.

    >>> InvariantPool(112, reduction=64)(torch.randn(2, 8, 112, 5, 5)).shape
    torch.Size([2, 36])
    """

    min_positions = 2
    centered = True

    def __init__(
        self,
        in_channels: int,
        reduction: int | Sequence[int] | None = None,
        projection: int | float | None = 0.125,
        orthonormal: bool = True,
        steps: int | None = None,
        compute_dtype: str | None = None,
        reduction_groups: int = 1,
    ):
        super().__init__(in_channels, reduction, compute_dtype, reduction_groups)
        self.width = _width(self.channels, projection)
        self.projection = (
            nn.Identity() if projection is None else StiefelProjection(self.channels, self.width, orthonormal)
        )
        if steps is not None:
            newton_schulz_function(steps)  # what cannot work fails here, not in the first training step
        self.steps = steps

    @property
    def out_features(self) -> int:
        return self.width * (self.width + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return the root ``(B, k, k)`` of reduced features ``(B, d, M)``."""
        # Centered first, so that W does not act on large means, whose rounding would count as variance.
        x = self.projection(center(x))
        return covariance_map(x, "sqrt") if self.steps is None else newton_schulz(covariance(x), self.steps)

    def pool(self, x: Tensor) -> Tensor:
        root = super().pool(x)
        # The length of the upper triangle is one more factor that the last division undoes.
        root = nn.functional.normalize(root)
        return nn.functional.normalize(root.sign() * (root.abs() + SIGNED_ROOT_OFFSET).sqrt())


def _width(channels: int, projection: int | float | None) -> int:
    """Return the number of channels that is left."""
    if projection is None:
        width = channels
    elif isinstance(projection, float):
        if not 0 < projection <= 1:
            raise ValueError(f"a projection given as a share must be above 0 and at most 1, got {projection}")
        width = max(2, round(projection * channels))
    else:
        width = projection
    if isinstance(width, bool) or not isinstance(width, int) or width < 2:
        raise ValueError(
            f"the invariant pool needs at least two channels, got {width!r}: the only number of one is scaled to 1"
        )
    return width
