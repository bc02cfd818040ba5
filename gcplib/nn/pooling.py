"""Covariance pools: a feature map in, one vector per image out."""

import torch
from torch import Tensor

from gcplib.linalg import (
    ROUTES,
    EigenvalueSet,
    GradientRule,
    SpectralFunction,
    check_map,
    covariance,
    covariance_map,
    get_function,
    get_rule,
    logm,
    newton_schulz,
    newton_schulz_function,
    shrunk_covariance,
    spectral_map,
    truncate,
)
from gcplib.linalg.shrinkage import check_shrinkage
from gcplib.nn.base import MatrixPool
from gcplib.nn.options import check_known, check_parts
from gcplib.nn.scaling_eigen import Amplifier
from gcplib.nn.scaling_eigen import amplify as amplified

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
        keep: None for all eigenvalues, or the set to keep, such as ``top(32)``
            (``gcplib.linalg.list_eigenvalue_sets``), or as it is.
        where: which passes ``keep`` truncates: ``both``, ``forward`` or ``backward``.
        blocks: g parts of d / g channels each, with a covariance and its function for every part and none between
            them: the vector has only d (d / g + 1) / 2 entries.
        shrinkage: None, or how far the covariance is moved toward a multiple of the identity first: a number above 0
            and at most 1, or ``ledoit_wolf`` or ``oracle``, which take it from each image
            (``gcplib.linalg.shrunk_covariance``). There are no null directions then, so ``auto`` is ``full``.
        common: ``compute_dtype``, ``reduction``, ``reduction_groups``, ``device`` and ``dtype``, see ``MatrixPool`` and
            ``AveragePool``.

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
        fn: str | SpectralFunction = "sqrt",
        rule: str | GradientRule = "exact",
        route: str = "auto",
        amplify: str | Amplifier | None = None,
        keep: str | EigenvalueSet | None = None,
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
            route = "full" if route == "auto" else route
        self.shrinkage = shrinkage
        self.route, self.blocks, self.size = route, blocks, self.channels // blocks + self.added
        fn, rule = get_function(fn), get_rule(rule)
        self.settings = {"fn": fn, "rule": rule, "route": route, "amplify": amplify, "keep": keep} | self.settings
        self.settings |= {"where": None if keep is None else where, "blocks": blocks if blocks > 1 else None}
        self.settings["shrinkage"] = shrinkage
        if amplify is not None:
            fn = amplified(fn, amplify, self.size)
        # What cannot work fails here, not in the first training step.
        self.fn, self.rule = check_map(fn, truncate(rule, keep, where), route, self.size)
        if keep is None and where != "both":
            raise ValueError(f"where={where!r} says which passes are truncated, and needs keep, such as keep='top(32)'")

    @property
    def out_features(self) -> int:
        return self.blocks * self.size * (self.size + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return ``(B, d, d)``, or the blocks ``(B, g, d / g, d / g)`` on the diagonal, of features ``(B, d, M)``."""
        x = self.parts(x)
        if self.shrinkage is None:
            return covariance_map(x, self.fn, self.rule, self.route, centered=self.centered)
        return spectral_map(shrunk_covariance(x, self.shrinkage), self.fn, self.rule)

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
            the eigenvalues on a CPU where positions are fewer than channels, or channels more than 128, because
            there they are cheaper (``gcplib bench``), and the products elsewhere. With shrinkage only the number of
            channels decides.
        options: see ``CovariancePool``; amplify, keep and rules other than exact need the eigenvalues.
    """

    fixed = ("fn",)

    def __init__(self, in_channels: int, *, steps: int = 5, route: str = "auto", **options):
        check_known("route", route, (*ROUTES, "products"))
        eigenvalues = "auto" if route == "products" else route
        super().__init__(in_channels, fn=newton_schulz_function(steps), route=eigenvalues, **options)
        plain = self.fn.base is None and self.rule == get_rule("exact")
        if route == "products" and not plain:
            raise ValueError("amplify, keep and rule need the eigenvalues, which route 'products' has not; use auto")
        self.by_products, self.steps = plain and route in ("auto", "products"), steps
        self.route = self.settings["route"] = route

    def matrix(self, x: Tensor) -> Tensor:
        # With few positions the thin route is cheaper, which shrinkage has not.
        square = x.shape[-1] >= self.size or self.shrinkage is not None
        few = self.size <= MOST_CHANNELS_FOR_PRODUCTS and square
        if self.by_products and (self.route == "products" or few or x.device.type != "cpu"):
            x = self.parts(x)
            s = covariance(x) if self.shrinkage is None else shrunk_covariance(x, self.shrinkage)
            return newton_schulz(s, self.steps)
        return super().matrix(x)


class GaussianPool(CovariancePool):
    """Global Gaussian pooling (G2DeNet): a spectral function of the embedded Gaussian; the square root by default.

    With the mean m and the covariance S over positions, the Gaussian N(m, S) becomes one positive matrix, one row and
    column larger,

        P = [[S + m m^T, m], [m^T, 1]] = Z Z^T,    Z = [X; 1^T] / sqrt(M),

    the second moment of the features with a channel of ones, not centered. So it takes the routes of a covariance; its
    rank is at most ``min(d, M - 1) + 1``. ``C = P^(1/2)`` still holds both moments: the last column of ``C C`` is
    (m, 1). Of V views, the mean of their embeddings is pooled.

    The mean makes the largest eigenvalue, which sets what counts as zero: features whose mean is large beside their
    spread keep fewer small eigenvalues in float32 than by their covariance alone; ``compute_dtype`` helps.

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
        in_channels: C.
        shrinkage: a, above 0 and at most 1; or ``ledoit_wolf`` or ``oracle``, see ``CovariancePool``.
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
        return logm(shrunk_covariance(x, self.shrinkage))
