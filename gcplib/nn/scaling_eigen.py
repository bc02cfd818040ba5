"""The Scaling Eigen Branch: amplify the small eigenvalues of a covariance pool, without a parameter.

As released (SEB.py of Song et al., TPAMI 2022), with the root Q and ``S = U exp(-lam) U^T``, the branch is

    T = Q S^T,    out = Q * (T / (T / |T|_F)) + Q,    * and / element by element.

``T / (T / |T|_F)`` is the number ``|T|_F`` in every place, or 0/0 where T is zero. So the layer is one factor a
image,

    out = (1 + |Q S|_F) Q,    |Q S|_F^2 = sum_i q_i^2 exp(-2 lam_i).

It leaves the proportions of the spectrum as they are: only its gradient can tell eigenvalues apart. The other members
of the family do what the name says, and are spectral functions like any root: they cost nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gcplib.linalg import SpectralFunction, get_function, power

__all__ = ["amplify", "list_amplifiers"]


def amplify(fn: str | SpectralFunction, how: str, channels: int) -> SpectralFunction:
    """Return the spectral function with its small eigenvalues amplified.

    Args:
        fn: of the pool, q_i = f(lam_i).
        how: with m the mean eigenvalue of each matrix (of ``mpa`` and ``mtp`` their root mean square),

            - ``released``: ``(1 + sqrt(sum_j q_j^2 exp(-2 lam_j))) q_i``, the published layer;
            - ``exp``: ``(1 + exp(-lam_i)) q_i``, the same idea for every eigenvalue by itself: our own reading;
            - ``exp_relative`` or ``exp_relative(b)``: ``(1 + b exp(-lam_i / m)) q_i``, b = 1: does not change with the
              scale of the features;
            - ``power(p)``: ``sqrt(m) (lam_i / m)^p``, p below 1/2, of the exact root alone; scale-free as well;

            and two that amplify nothing, to tell through which path the published layer works:

            - ``released_detached``: its value, with the factor a constant for the gradient;
            - ``constant(b)``: ``(1 + b) q_i``, which changes the length of steps alone.
        channels: d.

    Raises:
        ValueError: unknown name or setting, or a function that it cannot be put on.

    Source: SEB, Song et al., TPAMI 2022.

    >>> amplify("sqrt", "exp", 8).value(torch.tensor([0.0, 4.0]))
    tensor([0.0000, 2.0366])
    """
    fn = get_function(fn)
    found = re.fullmatch(r"(\w+)(?:\(([-+]?[\d.]+(?:e[-+]?\d+)?)\))?", how) if isinstance(how, str) else None
    name, setting = (found[1], found[2]) if found else (None, None)
    needed, possible = name in ("power", "constant"), name in ("power", "constant", "exp_relative")
    if name not in AMPLIFIERS or (setting is None and needed) or (setting and not possible):
        raise ValueError(f"unknown amplification {how!r}; known: {', '.join(list_amplifiers())}")
    if fn.base is not None:
        raise ValueError(f"{fn} is amplified already")
    made = AMPLIFIERS[name](fn, channels, *([] if setting is None else [float(setting)]))
    return replace(made, name=f"{fn}, {how}", base=fn)


def _released(fn: SpectralFunction, channels: int) -> SpectralFunction:
    return replace(fn, gain=_released_gain)


def _released_gain(q: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``1 + r``, ``r = |Q S|_F``, and its derivatives by q and by lam."""
    s = (-2 * lam).exp()
    r = (q.square() * s).sum(-1, keepdim=True).sqrt()
    # A zero matrix has no gradient: where r = 0 so are all numerators.
    toward = q * s / torch.where(r > 0, r, torch.ones_like(r))
    return 1 + r, toward, -q * toward


def _released_detached(fn: SpectralFunction, channels: int) -> SpectralFunction:
    def gain(q: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _released_gain(q, lam)[0], torch.zeros_like(q), torch.zeros_like(q)

    return replace(fn, gain=gain)


def _constant(fn: SpectralFunction, channels: int, amount: float) -> SpectralFunction:
    if not 0 < amount < math.inf:
        raise ValueError(f"constant(b) multiplies by 1 + b with b positive and finite, got {amount:g}")

    def gain(q: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.full_like(q[..., :1], 1 + amount), torch.zeros_like(q), torch.zeros_like(q)

    return replace(fn, gain=gain)


def _exp(fn: SpectralFunction, channels: int) -> SpectralFunction:
    return _times_decay(fn, 1.0, 1.0)


def _exp_relative(fn: SpectralFunction, channels: int, strength: float = 1.0) -> SpectralFunction:
    if not 0 < strength < math.inf:
        raise ValueError(f"exp_relative amplifies by 1 + b with b positive and finite, got {strength:g}")
    if fn is get_function("sqrt"):
        # sqrt(t) sqrt(S / t) is the root as well; the trace t makes the exponent relative.
        fn = replace(fn, scale="trace")
    if fn.scale is None:
        raise ValueError(f"exp_relative needs a square root, exact or approximate, not {fn}; use exp")
    # The mean of the eigenvalues is tr / d, their root mean square norm / sqrt(d).
    return _times_decay(fn, strength, channels if fn.scale == "trace" else math.sqrt(channels))


def _relative_power(fn: SpectralFunction, channels: int, exponent: float) -> SpectralFunction:
    if fn is not get_function("sqrt"):
        raise ValueError(f"power(p) replaces the exact square root and cannot amplify {fn}; use exp_relative or exp")
    if not 0 < exponent < 0.5:
        raise ValueError(f"power(p) amplifies small eigenvalues where 0 < p < 1/2, got {exponent:g}")
    plain, factor = power(exponent), channels ** (exponent - 0.5)

    def value(x: Tensor) -> Tensor:
        return factor * plain.value(x)

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        return factor * plain.quotient(a, b)

    return replace(plain, value=value, quotient=quotient, scale="trace")


def _times_decay(fn: SpectralFunction, strength: float, rate: float) -> SpectralFunction:
    """Return ``f(x) (1 + b exp(-r x))``."""

    def factor(x: Tensor) -> Tensor:
        return 1 + strength * (-rate * x).exp()

    def slope(a: Tensor, b: Tensor) -> Tensor:
        # exp[a, b] = -r exp(-r low) (1 - exp(-t)) / t with t = r (high - low), which is 1 at t = 0.
        low, t = torch.minimum(a, b), rate * (a - b).abs()
        ratio = torch.where(t == 0, torch.ones_like(t), -torch.expm1(-t) / t)
        return -strength * rate * (-rate * low).exp() * ratio

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        # The product rule of divided differences, symmetric in a and b.
        return (fn.quotient(a, b) * (factor(a) + factor(b)) + slope(a, b) * (fn.value(a) + fn.value(b))) / 2

    zero = fn.zero * (1 + strength)
    return replace(fn, value=lambda x: fn.value(x) * factor(x), quotient=quotient, zero=zero)


AMPLIFIERS: dict[str, Callable[..., SpectralFunction]] = {
    "released": _released,
    "exp": _exp,
    "exp_relative": _exp_relative,
    "power": _relative_power,
    "released_detached": _released_detached,
    "constant": _constant,
}


def list_amplifiers() -> list[str]:
    """Return what ``amplify`` knows, with an example where a setting is needed."""
    return ["released", "exp", "exp_relative", "exp_relative(4)", "power(0.25)", "released_detached", "constant(1)"]
