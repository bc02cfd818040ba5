"""The Scaling Eigen Branch: amplify the small eigenvalues of a covariance pool, without a parameter.

As released (SEB.py of Song et al., TPAMI 2022), with the root Q and ``S = U exp(-lam) U^T``, the branch is

    T = Q S^T,    out = Q * (T / (T / |T|_F)) + Q,    * and / element by element.

``T / (T / |T|_F)`` is the number ``|T|_F`` in every place, or 0/0 where T is zero. So the layer is one factor per
image,

    out = (1 + |Q S|_F) Q,    |Q S|_F^2 = sum_i q_i^2 exp(-2 lam_i).

It leaves the proportions of the spectrum as they are: only its gradient can tell eigenvalues apart. The other members
of the family do what the name says.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcplib.linalg import SpectralFunction, get_function, power
from gcplib.linalg.calls import Partial, is_number, resolve, write_call

Gain = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Amplifier:
    """A way to amplify: ``put_on`` takes a function and the number of channels, and returns the amplified function."""

    name: str
    put_on: Callable[[SpectralFunction, int], SpectralFunction]

    def __str__(self) -> str:
        return self.name


def amplify(fn: str | SpectralFunction, how: str | Amplifier, channels: int) -> SpectralFunction:
    """Return the spectral function with its small eigenvalues amplified.

    Args:
        fn: of the pool, q_i = f(lam_i).
        how: an ``Amplifier``, or its name; with m the mean eigenvalue of each matrix (of ``mpa`` and ``mtp`` their root
            mean square),

            - ``released``: ``(1 + sqrt(sum_j q_j^2 exp(-2 lam_j))) q_i``, the published layer;
            - ``exp``: ``(1 + exp(-lam_i)) q_i``, the same idea for every eigenvalue by itself: our own reading, not of
              approximate roots, which take eigenvalues relative to a scale;
            - ``exp_relative(b)``, b = 1 unless given: ``(1 + b exp(-lam_i / m)) q_i``, whatever the features' scale;
            - ``power(p)``: ``sqrt(m) (lam_i / m)^p``, p below 1/2, of the exact root alone; scale-free as well;
            - ``released_detached``: the published value, with the factor a constant for the gradient;
            - ``constant(b)``: ``(1 + b) q_i``, which changes the length of steps alone, and amplifies nothing either.
        channels: d.

    Raises:
        ValueError: unknown name or setting, or a function that it cannot be put on. TypeError: neither name nor object.

    Source: SEB, Song et al., TPAMI 2022.

    >>> amplify("sqrt", "exp", 8).value(torch.tensor([0.0, 4.0]))
    tensor([0.0000, 2.0366])
    """
    fn, how = get_function(fn), resolve(Amplifier, "amplification", how, AMPLIFIERS)
    if fn.base is not None:
        raise ValueError(f"{fn} is amplified already")
    return replace(how.put_on(fn, channels), name=f"{fn}, {how}", base=fn, matrix=None)


def _with_gain(gain: Callable[[Tensor, Tensor], Gain], fn: SpectralFunction, channels: int) -> SpectralFunction:
    return replace(fn, gain=gain)


def _released_gain(detached: bool, q: Tensor, lam: Tensor) -> Gain:
    """Return ``1 + r``, ``r = |Q S|_F``, and its derivatives by q and by lam, or zeros in their place."""
    s = (-2 * lam).exp()
    r = (q.square() * s).sum(-1, keepdim=True).sqrt()
    # A zero matrix has no gradient: where r = 0 so are all numerators.
    toward = torch.zeros_like(q) if detached else q * s / torch.where(r > 0, r, torch.ones_like(r))
    return 1 + r, toward, -q * toward


def _constant_gain(amount: float, q: Tensor, lam: Tensor) -> Gain:
    return torch.full_like(q[..., :1], 1 + amount), torch.zeros_like(q), torch.zeros_like(q)


def _check_strength(name: str, strength: float) -> None:
    if not (is_number(strength) and strength > 0):
        raise ValueError(f"{name}(b) multiplies by 1 + b with b positive and finite, got {strength!r}")


def constant(amount: float) -> Amplifier:
    _check_strength("constant", amount)
    return Amplifier(write_call("constant", amount), Partial(_with_gain, Partial(_constant_gain, amount)))


def _decayed(fn: SpectralFunction, strength: float, rate: float, a: Tensor, b: Tensor | None = None) -> Tensor:
    """Return ``f(a) g(a)`` with ``g(a) = 1 + s exp(-r a)``, or its divided difference."""
    factor = 1 + strength * (-rate * a).exp()
    if b is None:
        return fn.value(a) * factor
    # exp[a, b] = -r exp(-r low) (1 - exp(-t)) / t with t = r (high - low), which is 1 at t = 0.
    low, t = torch.minimum(a, b), rate * (a - b).abs()
    ratio = torch.where(t == 0, torch.ones_like(t), -torch.expm1(-t) / t)
    slope = -strength * rate * (-rate * low).exp() * ratio
    # The product rule of divided differences, symmetric in a and b.
    factors = factor + (1 + strength * (-rate * b).exp())
    return (fn.quotient(a, b) * factors + slope * (fn.value(a) + fn.value(b))) / 2


def _times_decay(strength: float, relative: bool, fn: SpectralFunction, channels: int) -> SpectralFunction:
    rate = 1.0
    if not relative and fn.scale is not None:
        raise ValueError(
            f"exp needs eigenvalues as they are, and {fn} has them over their {fn.scale}; use exp_relative"
        )
    if relative:
        if fn == get_function("sqrt"):
            # sqrt(t) sqrt(S / t) is the root as well; the trace t makes the exponent relative.
            fn = replace(fn, scale="trace")
        if fn.scale is None:
            raise ValueError(f"exp_relative needs a square root, exact or approximate, not {fn}; use exp")
        # The mean of the eigenvalues is tr / d, their root mean square norm / sqrt(d).
        rate = channels if fn.scale == "trace" else math.sqrt(channels)
    f = Partial(_decayed, fn, strength, rate)
    return replace(fn, value=f, quotient=f, zero=fn.zero * (1 + strength))


def exp_relative(strength: float = 1.0) -> Amplifier:
    _check_strength("exp_relative", strength)
    return Amplifier(write_call("exp_relative", strength, defaults=(1.0,)), Partial(_times_decay, strength, True))


def _scaled(fn: SpectralFunction, factor: float, a: Tensor, b: Tensor | None = None) -> Tensor:
    return factor * (fn.value(a) if b is None else fn.quotient(a, b))


def _relative_power(exponent: float, fn: SpectralFunction, channels: int) -> SpectralFunction:
    if fn != get_function("sqrt"):
        raise ValueError(f"power(p) replaces the exact square root and cannot amplify {fn}; use exp_relative or exp")
    fn = power(exponent)
    f = Partial(_scaled, fn, channels ** (exponent - 0.5))
    return replace(fn, value=f, quotient=f, scale="trace")


def relative_power(exponent: float) -> Amplifier:
    if not (is_number(exponent) and 0 < exponent < 0.5):
        raise ValueError(f"power(p) amplifies small eigenvalues where 0 < p < 1/2, got {exponent!r}")
    return Amplifier(write_call("power", exponent), Partial(_relative_power, exponent))


AMPLIFIERS: dict[str, Amplifier | Callable[..., Amplifier]] = {
    "released": Amplifier("released", Partial(_with_gain, Partial(_released_gain, False))),
    "exp": Amplifier("exp", Partial(_times_decay, 1.0, False)),
    "exp_relative": exp_relative,
    "power": relative_power,
    "released_detached": Amplifier("released_detached", Partial(_with_gain, Partial(_released_gain, True))),
    "constant": constant,
}


def list_amplifiers() -> list[str]:
    """Return what ``amplify`` knows, with an example where a setting is needed."""
    return ["released", "exp", "exp_relative", "exp_relative(4)", "power(0.25)", "released_detached", "constant(1)"]
