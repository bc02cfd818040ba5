"""Covariance pools: a feature map in, one vector per image out."""

import torch
from torch import Tensor

from gcplib import linalg
from gcplib.linalg.shrinkage import check_shrinkage
from gcplib.nn import scaling_eigen
from gcplib.nn.base import MatrixPool
from gcplib.nn.options import check_parts

# Measured on two cores: at 64 channels the products of five steps take 0.7 of the time of one eigendecomposition, at
# 128 0.9, at 256 1.3 and more.
MOST_CHANNELS_FOR_PRODUCTS = 128


class CovariancePool(MatrixPool):
    """Global covariance pooling: a spectral function of the covariance of a feature map.

    ``C = U f(lam) U^T`` with ``U diag(lam) U^T`` the covariance over positions; the exact square root by default.

    Args:
        in_channels: channels of the feature map.
        fn: the function f, by name (``gcplib.linalg.list_functions``), such as ``power(0.25)``, or as it is.
        rule: the gradient rule, by name (``gcplib.linalg.list_rules``), such as ``taylor(9)``, or as it is.
        route: see ``gcplib.linalg.covariance_map``.
        amplify: None, or how to amplify small eigenvalues (``gcplib.nn.amplify``): the Scaling Eigen Branch.
        keep: None, or the set to keep (``gcplib.linalg.list_eigenvalue_sets``), such as ``top(32)``, or as it is.
        where: which passes ``keep`` truncates: ``both``, ``forward`` or ``backward``.
        blocks: g parts of d / g channels, each with a covariance of its own: d (d / g + 1) / 2 entries in all.
        shrinkage: None, or how far the covariance is moved toward a multiple of the identity first: a number above 0
            and at most 1, or ``ledoit_wolf`` or ``oas``, which take it from each image
            (``gcplib.linalg.shrunk_covariance``). There are no null directions then, so ``auto`` is ``full``.
        common: see ``MatrixPool`` and ``AveragePool``.

    Raises:
        ValueError: what is unknown, or cannot work together.

    Source: MPN-COV (Li et al., ICCV 2017); truncation: Song et al., ICCV 2021 and TPAMI 2022. Blocks are our reading of
    group convolution before the covariance (Wang et al., TPAMI 2020), which could not be checked.

    >>> CovariancePool(112, reduction=64).extra_repr()
    '112, out_features=2080, fn=sqrt, rule=exact, route=auto'
    """

    min_positions = 2
    centered = True
    added = 0  # channels that ``parts`` adds

    def __init__(
        self,
        in_channels: int,
        *,
        fn: str | linalg.SpectralFunction = "sqrt",
        rule: str | linalg.GradientRule = "exact",
        route: str = "auto",
        amplify: str | scaling_eigen.Amplifier | None = None,
        keep: str | linalg.EigenvalueSet | None = None,
        where: str = "both",
        blocks: int = 1,
        shrinkage: float | str | None = None,
        **common,
    ):
        super().__init__(in_channels, **common)
        check_parts("blocks", blocks, self.channels)
        if shrinkage is not None:
            check_shrinkage(shrinkage)
            if route in ("thin", "svd"):
                raise ValueError(
                    f"route {route!r} needs null directions, which shrinkage={shrinkage!r} fills; use full"
                )
        self.shrinkage = shrinkage
        self.route, self.blocks, self.size = route, blocks, self.channels // blocks + self.added
        fn, rule = linalg.get_function(fn), linalg.get_rule(rule)
        self.settings = {"fn": fn, "rule": rule, "route": route, "amplify": amplify, "keep": keep} | self.settings
        self.settings |= {"where": None if keep is None else where, "blocks": blocks if blocks > 1 else None}
        self.settings["shrinkage"] = shrinkage
        if amplify is not None:
            fn = scaling_eigen.amplify(fn, amplify, self.size)
        # What cannot work fails here, not in the first training step.
        self.fn, self.rule = linalg.check_map(fn, linalg.truncate(rule, keep, where), route, self.size)
        if keep is None and where != "both":
            raise ValueError(f"where={where!r} says which passes are truncated, and needs keep, such as keep='top(32)'")

    @property
    def out_features(self) -> int:
        return self.blocks * self.size * (self.size + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return ``(B, d, d)``, or the blocks ``(B, g, d / g, d / g)`` on the diagonal, of features ``(B, d, M)``."""
        return self.map(self.parts(x), self.route)

    def map(self, x: Tensor, route: str) -> Tensor:
        """Return the function of the covariance, or of the shrunk one, of parts of features."""
        if self.shrinkage is None:
            return linalg.covariance_map(x, self.fn, self.rule, route, centered=self.centered)
        shrunk = linalg.shrunk_covariance(x, self.shrinkage)
        return linalg.spectral_map(shrunk, self.fn, self.rule, "products" if route == "products" else "auto")

    def parts(self, x: Tensor) -> Tensor:
        """Return the features of each covariance: ``(B, d, M)``, or of blocks ``(B, g, d / g, M)``."""
        return x.unflatten(1, (self.blocks, -1)) if self.blocks > 1 else x


class NewtonSchulzPool(CovariancePool):
    """Covariance pooling with the square root by ``steps`` Newton-Schulz steps (iSQRT-COV, CVPR 2018).

    Args:
        in_channels: channels of the feature map.
        steps: of the iteration; the paper uses 5.
        route: ``products`` runs the iteration; ``full``, ``thin`` or ``svd`` evaluate the function that it computes on
            the eigenvalues (``gcplib.linalg.newton_schulz_function``), to the same matrix and gradient. ``auto`` takes
            these where they are cheaper: on a CPU, of fewer positions than channels, or of more than 128 channels. With
            shrinkage only the number of channels decides.
        options: see ``CovariancePool``; amplify, keep and rules other than exact need the eigenvalues.
    """

    fixed = ("fn",)

    def __init__(self, in_channels: int, *, steps: int = 5, **options):
        super().__init__(in_channels, fn=linalg.newton_schulz_function(steps), **options)
        self.steps = steps

    def matrix(self, x: Tensor) -> Tensor:
        x, route = self.parts(x), self.route
        # With few positions the thin route is cheaper, which shrinkage has not.
        few = self.size <= MOST_CHANNELS_FOR_PRODUCTS and (x.shape[-1] >= self.size or self.shrinkage is not None)
        if route == "auto" and self.rule.exact and self.fn.base is None and (few or x.device.type != "cpu"):
            route = "products"
        return self.map(x, route)


class GaussianPool(CovariancePool):
    """Global Gaussian pooling (G2DeNet): a spectral function of the embedded Gaussian; the square root by default.

    With the mean m and the covariance S over positions, the Gaussian N(m, S) becomes one positive matrix, one row and
    column larger,

        P = [[S + m m^T, m], [m^T, 1]] = Z Z^T,    Z = [X; 1^T] / sqrt(M),

    the second moment of the features with a channel of ones, of rank at most ``min(d, M - 1) + 1``. ``C = P^(1/2)``
    still holds both moments: the last column of ``C C`` is (m, 1). Of V views, the mean of their embeddings is pooled.
    A mean large beside the spread makes more small eigenvalues count as zero in float32; ``compute_dtype`` helps.

    Args:
        in_channels: channels of the feature map.
        options: ``fn`` (``identity`` gives the embedding itself), ``rule``, ``route`` and the common ones, see
            ``CovariancePool``.

    Source: G2DeNet (Wang et al., CVPR 2017). Our reading: the paper's formula could not be checked against its text;
    released code adds a multiple of the identity before the root, this layer does not.

    >>> GaussianPool(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 45])
    """

    fixed = ("amplify", "keep", "where", "blocks", "shrinkage")
    centered = False
    added = 1

    def __init__(self, in_channels: int, **options):
        super().__init__(in_channels, amplify=None, keep=None, where="both", blocks=1, **options)

    def parts(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


class LogPool(MatrixPool):
    """The logarithm of the shrunk covariance: the log-Euclidean map of positive definite matrices to a vector space.

    ``log((1 - a) S + a tr(S) / d I)``: covariances are singular where positions are fewer than channels, and the
    logarithm of zero is infinite, so some shrinkage is part of the method.

    Args:
        in_channels: ``C``.
        shrinkage: a, above 0 and at most 1; or ``ledoit_wolf`` or ``oas``, see ``CovariancePool``.
        common: see ``MatrixPool``.

    Raises:
        NonFiniteError: an image without any variance, such as one of constant features.

    Source: O2P (Carreira et al., ECCV 2012), DeepO2P (Ionescu et al., ICCV 2015).
    """

    min_positions = 2
    centered = True

    def __init__(self, in_channels: int, *, shrinkage: float | str = 0.02, **common):
        super().__init__(in_channels, **common)
        check_shrinkage(shrinkage)
        self.shrinkage = self.settings["shrinkage"] = shrinkage

    def matrix(self, x: Tensor) -> Tensor:
        return linalg.logm(linalg.shrunk_covariance(x, self.shrinkage))
