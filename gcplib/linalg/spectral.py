"""Functions of a symmetric positive semi-definite matrix, and of a covariance straight from its features."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from gcplib.linalg.autograd import SpectralMap
from gcplib.linalg.calls import unknown
from gcplib.linalg.covariance import check_features, covariance, second_moment, symmetric
from gcplib.linalg.eigen import NoEigensolverError
from gcplib.linalg.functions import IDENTITY, SQRT, SpectralFunction, get_function, power
from gcplib.linalg.gradient import lyapunov_weights
from gcplib.linalg.gradient_rules import EXACT, LYAPUNOV, GradientRule, get_rule
from gcplib.linalg.roots import features_by_products, map_by_products, only_products, steps_of
from gcplib.linalg.tolerance import (
    NonFiniteError,
    check_matrices,
    check_semidefinite,
    check_symmetric,
    raise_non_finite,
    rank_tolerance,
    require,
)
from gcplib.linalg.transforms import look, run

ROUTES = ("auto", "full", "thin", "svd", "products")


def spectral_map(
    s: Tensor, fn: str | SpectralFunction = "sqrt", rule: str | GradientRule = "exact", route: str = "auto"
) -> Tensor:
    """Return ``f(S) = U f(lam) U^T`` of symmetric positive semi-definite matrices.

    Args:
        s: ``(..., d, d)``, float32 or float64, symmetric up to rounding.
        fn: a ``SpectralFunction``, or its name (``list_functions``).
        rule: how to differentiate, a ``GradientRule`` or its name (``list_rules``); ``exact`` is finite at repeated
            and zero eigenvalues.
        route: by eigenvalues (``auto``), or square roots by ``products``, see ``covariance_map``.

    Returns:
        ``(..., d, d)``. Eigenvalues under ``rank_tolerance`` of the largest count as zero, unless the function is
        smooth there or the rule clamps.

    Raises:
        ValueError: not square or symmetric, unknown function, rule or route, or ones that do not go together.
        TypeError: half precision.
        NonFiniteError: NaN or infinity in the matrices, a singular one where f(0) is infinite, one with negative
            eigenvalues where f has no value there, or an overflow.

    Source: Daleckii-Krein; matrix back-propagation (Ionescu et al., ICCV 2015).

    >>> spectral_map(torch.diag(torch.tensor([4.0, 9.0])))
    tensor([[2., 0.],
            [0., 3.]])
    """
    check_matrices(s)
    check_route(route, ("auto", "products"))
    fn, rule = check_map(fn, rule, route, s.shape[-1])
    rank_tolerance(s.dtype)
    if route == "products" or only_products(fn, rule):
        look(check_semidefinite, s)
        return map_by_products(s, fn)
    look(check_symmetric, s)
    try:
        with torch.autocast(s.device.type, enabled=False):
            return run(SpectralMap, symmetric(_batch(s)), fn, rule, "matrix", False)[0].view(s.shape)
    except NoEigensolverError as error:
        _instead(error, fn, rule)
        return map_by_products(s, fn)
    except NonFiniteError:
        look(partial(_explain, "matrices", "their function", lambda s: s), s)
        raise


def sqrtm(s: Tensor, rule: str | GradientRule = "exact") -> Tensor:
    """Return the positive semi-definite square root of ``(..., d, d)``; see ``spectral_map``."""
    return spectral_map(s, "sqrt", rule)


def invsqrtm(s: Tensor, rule: str | GradientRule = "exact") -> Tensor:
    """Return the inverse square root of positive definite ``(..., d, d)``; see ``spectral_map``."""
    return spectral_map(s, "invsqrt", rule)


def logm(s: Tensor, rule: str | GradientRule = "exact") -> Tensor:
    """Return the logarithm of positive definite ``(..., d, d)``; see ``spectral_map``.

    >>> logm(torch.eye(2))
    tensor([[0., 0.],
            [0., 0.]])
    """
    return spectral_map(s, "log", rule)


def powm(s: Tensor, exponent: float, rule: str | GradientRule = "exact") -> Tensor:
    """Return the matrix power of ``(..., d, d)`` (MPN-COV, eq. 2); a negative one needs positive definite matrices."""
    return spectral_map(s, power(exponent), rule)


def _batch(x: Tensor) -> Tensor:
    """Return ``(n, ...)`` with all leading dimensions in one."""
    return x.flatten(0, -3) if x.dim() > 2 else x.unsqueeze(0)


def check_route(route: str, routes: tuple[str, ...]) -> None:
    """Raise a ValueError unless there is such a route."""
    if route not in routes:
        raise ValueError(unknown("route", route, routes))


def check_map(
    fn: str | SpectralFunction, rule: str | GradientRule, route: str, channels: int
) -> tuple[SpectralFunction, GradientRule]:
    """Return the spectral function and the gradient rule, or raise a ValueError about what cannot work together.

    Args:
        fn, rule, route: as for ``spectral_map``.
        channels: d of the matrices.
    """
    fn, rule = get_function(fn), get_rule(rule)
    check_route(route, ROUTES)
    if route in ("thin", "svd"):
        if fn.zero != 0:
            raise ValueError(f"route {route!r} needs a function with f(0) = 0, but {fn} has f(0) = {fn.zero}")
        if not rule.any_route:
            raise ValueError(f"route {route!r} has the exact gradient only; gradient rule {rule} needs the full one")
    if route == "products":
        steps_of(fn)
        if rule != EXACT and not (rule == LYAPUNOV and fn == SQRT):
            raise ValueError(
                f"route 'products' has the exact gradient only; gradient rule {rule} needs the eigenvalues"
            )
    root = fn == SQRT
    if (rule.clamps_forward and fn.scale is not None) or (rule.surrogate and not root):
        raise ValueError(f"gradient rule {rule} is one of the square root, not of {fn}")
    if rule.weights == lyapunov_weights and not root and (fn.scale is None or fn.zero == 0 or fn.base is not None):
        raise ValueError(f"gradient rule {rule} is one of the square root, and of mpa and mtp, not of {fn}; use exact")
    if rule.clamps_forward and fn.positive:
        raise ValueError(f"gradient rule {rule} sets eigenvalues to eps and cannot take {fn}; use exact")
    if rule.keep is not None:
        rule.keep.check(channels)
    return fn, rule


def covariance_map(
    x: Tensor,
    fn: str | SpectralFunction = "sqrt",
    rule: str | GradientRule = "exact",
    route: str = "auto",
    centered: bool = True,
) -> Tensor:
    """Return a spectral function of the covariance, ``f(X I_bar X^T)``, straight from the features.

    Args:
        x: uncentered features ``(..., d, M)``, float32 or float64.
        fn: as for ``spectral_map``.
        rule: as for ``spectral_map``.
        route: ``full`` decomposes the covariance (d x d); ``thin`` the Gram matrix (M x M), much cheaper where
            positions are few; ``svd`` the features themselves, slower but without squaring their condition number;
            ``auto`` takes the smaller of the first two. Rules other than ``exact`` need ``full``. ``products`` has
            square roots alone, by products: no eigensolver, and nothing that a GPU waits for, so that it fits in a
            CUDA graph. In float32 it is right to 1e-5 where the trace is up to 1e5 times the smallest eigenvalue that
            is not zero; eigenvalues below 4e-6 of the trace come out too small.
        centered: False takes the second moment about zero, ``f(X X^T / M)``, in place of the covariance.

    Returns:
        ``(..., d, d)``. All routes compute the same matrix and, with the exact rule, the same gradient. At
        rank-deficient covariances the derivative between null directions is taken as zero, unless the function is
        smooth there or the rule clamps.

    Raises:
        ValueError: bad shape, unknown function, rule or route, or ``f(0) != 0`` on a route that needs it.
        NonFiniteError, TypeError: as ``spectral_map``.

    Source: MPN-COV (Li et al., ICCV 2017); the thin gradient is in ``SpectralMap``.

    >>> covariance_map(torch.tensor([[1.0, 5.0], [2.0, 2.0]])).round(decimals=4)
    tensor([[2., 0.],
            [0., 0.]])
    """
    check_features(x)
    channels, positions = x.shape[-2:]
    fn, rule = check_map(fn, rule, route, channels)
    rank_tolerance(x.dtype)
    if route == "auto":
        route = "thin" if positions <= channels and fn.zero == 0 and rule.any_route else "full"
    moment, made = (covariance, "their covariance") if centered else (second_moment, "their second moment")
    if route == "products" or only_products(fn, rule):
        out = features_by_products(x, fn, centered)
        if x.device.type == "cpu":  # a GPU need not wait: NaN stays NaN in products
            look(partial(_check_root, made, moment), out, x)
        return out
    try:
        with torch.autocast(x.device.type, enabled=False):
            if fn == IDENTITY and rule == EXACT:
                out = moment(x)
                look(_check_finite, out)
                return out
            return run(SpectralMap, _batch(x), fn, rule, route, centered)[0].view(*x.shape[:-1], channels)
    except NoEigensolverError as error:
        _instead(error, fn, rule)
        return features_by_products(x, fn, centered)
    except NonFiniteError:
        look(partial(_explain, "features", made, moment), x)
        raise


def _instead(error: NoEigensolverError, fn: SpectralFunction, rule: GradientRule) -> None:
    """Warn that products take the place of eigenvalues, or raise the error where they cannot."""
    try:
        check_map(fn, rule, "products", 1)
    except ValueError as cannot:
        raise cannot from error
    warnings.warn(f"{error}: taken here, with the same values and gradient", stacklevel=3)


def _check_root(made: str, moment: Callable[[Tensor], Tensor], root: Tensor, x: Tensor) -> None:
    def explain() -> NoReturn:
        _explain("features", made, moment, x)
        raise NonFiniteError(f"the root of features of shape {tuple(x.shape)} overflows {x.dtype}")

    require(torch.isfinite(root).all(), "features are not finite", explain)


def _check_finite(moment: Tensor) -> None:
    require(torch.isfinite(moment).all(), "features are not finite", partial(raise_non_finite, "moments", moment))


def _explain(name: str, made: str, moment: Callable[[Tensor], Tensor], value: Tensor) -> None:
    """Raise what says which entries of the input are not finite, or that its moments overflow, if so it is."""
    if not (torch.isfinite(value).all() and torch.isfinite(moment(value)).all()):
        raise_non_finite(name, value, made)
