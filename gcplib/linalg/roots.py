"""Square roots by matrix products alone: exact, by Newton-Schulz and its accelerated form, MPA and MTP.

What each computes, eigenvalue by eigenvalue, is in ``functions``. All take symmetric positive semi-definite matrices
``(..., d, d)`` and raise a ValueError where they are neither square nor symmetric or a setting is out of range, and a
NonFiniteError at NaN or infinity. A zero matrix stays zero.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from gcplib.linalg import divided_differences as formulas
from gcplib.linalg import polynomials
from gcplib.linalg.covariance import center, covariance, second_moment, symmetric
from gcplib.linalg.diagonal import log_series
from gcplib.linalg.functions import LOG, SQRT, SpectralFunction
from gcplib.linalg.gradient_rules import GradientRule
from gcplib.linalg.iterations import Steps, iterate
from gcplib.linalg.products import product
from gcplib.linalg.tolerance import ROOT_STEPS, check_semidefinite, rank_tolerance
from gcplib.linalg.transforms import look

_forced = threading.local()


@contextmanager
def by_products() -> Iterator[None]:
    """Let everything within be computed by products alone, in the exact function of whatever rule it is asked for.

    For what has no eigensolver, such as ONNX: gradients differ from those of published rules, values do not. Functions
    without such a form raise a ValueError, and so do truncations. Counts for the thread that it is called in.
    """
    before, _forced.products = getattr(_forced, "products", False), True
    try:
        yield
    finally:
        _forced.products = before


def only_products(fn: SpectralFunction, rule: GradientRule) -> bool:
    """Say whether ``by_products`` holds here, or raise a ValueError about what has no such form."""
    if not getattr(_forced, "products", False):
        return False
    if fn != LOG:
        steps_of(fn)
    if rule.keep is not None:
        raise ValueError(f"a truncation to {rule.keep} needs the eigenvalues, and cannot be computed by products alone")
    return True


def _exact(s: Tensor, inverse: bool = False) -> Tensor:
    """Return the root, or the inverse root, in as many steps as the precision needs."""
    t = polynomials.scale(s, "trace")
    root, inverse_root = polynomials.root_and_inverse(formulas.accelerated_steps(*ROOT_STEPS[s.dtype]), s / t)
    return symmetric(inverse_root) * t.rsqrt() if inverse else symmetric(root) * t.sqrt()


def _log(s: Tensor) -> Tensor:
    """Return the logarithm, for eigenvalues in the range of ``ROOT_STEPS``: roots, and a series for the rest."""
    t = polynomials.scale(s, "trace")
    most, smallest, ratio = ROOT_STEPS[s.dtype]
    a, roots = s / t, 0
    while smallest < 0.7:
        for count in range(1, most + 1):
            steps = formulas.accelerated_steps(count, smallest, ratio)
            if abs(formulas.iteration(steps, smallest) / smallest**0.5 - 1) < torch.finfo(s.dtype).eps:
                break
        a, smallest, roots = symmetric(polynomials.root_and_inverse(steps, a)[0]), smallest**0.5, roots + 1
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    y = product(a - eye, polynomials.inverse((a + eye) / 2, (1 + smallest) / 2)) / 2
    return 2**roots * log_series(y) + t.log() * eye


def map_by_products(s: Tensor, fn: SpectralFunction) -> Tensor:
    """Return ``f(S)`` of symmetric ``(..., d, d)`` without eigenvalues.

    The square root takes as many of the best cubic steps as the precision needs (``ROOT_STEPS``): relative to the exact
    root, an eigenvalue above 1e-5 of the trace comes out right to 2e-6 in float32; smaller ones come out smaller, with
    a slope that does not grow. Null eigenvalues stay null. Other functions take the products that define them. The
    logarithm, for ``by_products`` alone, has the same range, and nothing that tells whether a matrix is within it.

    Raises:
        ValueError: f has no form by products.
    """
    with torch.autocast(s.device.type, enabled=False):
        if fn == SQRT:
            return _exact(s)
        if fn == LOG:
            return _log(s)
        if (steps := steps_of(fn)) is not None:
            return iterate(s, steps)
        assert fn.matrix is not None
        return polynomials.scaled(fn.matrix, fn.scale, s)


def features_by_products(x: Tensor, fn: SpectralFunction, centered: bool) -> Tensor:
    """Return ``f(S)`` of the covariance or second moment S of features ``(..., d, M)`` without eigenvalues.

    Where positions are fewer than channels, with the smaller ``G = X^T X / M``: ``C = X h(G) X^T / M``, ``h(lam) =
    f(lam) / lam``, which is the inverse root of the iteration. Centered features have ``G 1 = 0`` and ``X 1 = 0``, so
    the mean eigenvalue is put in that place, and nothing else changes.
    """
    positions = x.shape[-1]
    steps = None if fn == LOG else steps_of(fn)
    if (fn != SQRT and steps is None) or positions > x.shape[-2]:
        return map_by_products(covariance(x) if centered else second_moment(x), fn)
    with torch.autocast(x.device.type, enabled=False):
        x = center(x) if centered else x
        gram = product(x.mT, x) / positions
        if steps is not None:
            inverse = iterate(gram, steps, inverse=True)
        else:
            inverse = _exact(gram + polynomials.scale(gram, "trace") / positions**2 if centered else gram, True)
        return product(product(x, inverse), x.mT) / positions


def steps_of(fn: SpectralFunction) -> Steps | None:
    """Return the steps of the iteration that f is, or None: a root, or a function that takes other products.

    Raises:
        ValueError: f has no form by products.
    """
    if getattr(fn.value, "func", None) is formulas.iteration and fn.gain is None and fn.base is None:
        return fn.value.args[0]  # type: ignore[attr-defined]
    if fn == SQRT or (fn.smooth and fn.matrix is not None):
        return None
    raise ValueError(
        f"route 'products' has the square root (sqrt, newton_schulz, accelerated, taylor, pade), not {fn}; use "
        "auto, or in an ONNX file, which has products alone, one of these functions"
    )


def newton_schulz(s: Tensor, steps: int = 5) -> Tensor:
    """Approximate the square root of ``S`` by coupled Newton-Schulz iteration after division by the trace.

    ``Y_0 = S / tr(S)``, ``Z_0 = I``; ``T = (3 I - Z Y) / 2``, ``Y <- Y T``, ``Z <- T Z``; ``C = sqrt(tr(S)) Y``.
    With few steps this is a function of its own, not the square root (``newton_schulz_function``): eigenvalues below
    about 1 % of the trace come out too small (34 % at 1 % of the trace, 76 % at 0.1 %, five steps). Their gradients are
    too large first (24 % at 3 %), and too small below 0.6 % (53 % at 0.1 %).

    Args:
        s: ``(..., d, d)``, float32 or float64, symmetric positive semi-definite.
        steps: number of iterations; the papers use 5.

    Raises:
        ValueError: what can be seen not to be such matrices. TypeError: half precision.

    Source: iSQRT-COV (Li et al., CVPR 2018), eqs. 1-6.
    """
    rank_tolerance(s.dtype)  # half precision is too coarse for the products
    look(check_semidefinite, s)
    with torch.autocast(s.device.type, enabled=False):
        return iterate(s, formulas.newton_schulz_steps(steps))


def taylor_root(s: Tensor, terms: int = 10) -> Tensor:
    """Return MTP, the matrix Taylor polynomial of the root about the identity: ``terms - 1`` products.

    The same function as ``spectral_map(s, taylor_function(terms))``; differentiated by autograd.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    rank_tolerance(s.dtype)  # half precision is too coarse for the products
    look(check_semidefinite, s)
    with torch.autocast(s.device.type, enabled=False):
        polynomial = partial(polynomials.polynomial, formulas.taylor_coefficients(terms), 1)
        return polynomials.scaled(polynomial, "norm", s)


def pade_root(s: Tensor) -> Tensor:
    """Return MPA, the matrix Pade approximant [5/5] of the root about the identity: eight products and one solve.

    The same function as ``spectral_map(s, pade_function())``; differentiated by autograd.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    rank_tolerance(s.dtype)  # the solver has no half precision
    look(check_semidefinite, s)
    with torch.autocast(s.device.type, enabled=False):
        return polynomials.scaled(polynomials.pade, "norm", s)
