"""Compare what two functions return, and put the difference into words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Different", "compare", "described", "flat", "frozen"]

# A factor is named where entries agree on it so far: rounding of float32 in a few operations.
SAME_FACTOR = 1e-3
WHOLE = ""  # the name of what is returned alone


class Different(Exception):
    """Two results differ; the message says how."""


def frozen(case: tuple) -> tuple:
    """Return the arguments of a call with tensors copied, and with a gradient asked for where the original asks."""
    return tuple(a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in case)


def described(case: tuple) -> str:
    """Return arguments in a few words: tensors by shape and dtype.

    >>> described((torch.zeros(2, 3), 0.5))
    'a float32 tensor (2, 3), 0.5'
    """
    words = []
    for a in case:
        text = "a function" if callable(a) else repr(a)
        if isinstance(a, Tensor):
            text = f"a {str(a.dtype).removeprefix('torch.')} tensor {tuple(a.shape)}"
        words.append(text if len(text) <= 60 else type(a).__name__)
    return ", ".join(words) or "no arguments"


def flat(value: Any) -> dict[str, Any]:
    """Return a result as leaves by name; a result that is one value has the empty name.

    >>> list(flat({"value": 1, "both": (2, 3)}))
    ['value', 'both 0', 'both 1']
    """
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        parts = enumerate(value)
    else:
        return {WHOLE: value.detach() if isinstance(value, Tensor) else value}
    return {f"{name} {inner}".strip(): leaf for name, part in parts for inner, leaf in flat(part).items()}


def compare(got: dict[str, Any], right: dict[str, Any], tolerance: float) -> None:
    """Compare leaves one by one.

    Raises:
        Different: the first difference, in words.
    """
    if missing := [name for name in right if name not in got]:
        if list(right) == [WHOLE]:
            raise Different(f"it returns several values in one, expected {_kind(right[WHOLE])}")
        if list(got) == [WHOLE]:
            raise Different(f"it returns {_kind(got[WHOLE])}, expected {len(right)} values: {', '.join(right)}")
        raise Different(f"{missing[0]} is missing; it returns {', '.join(got) or 'nothing'}")
    for name, expected in right.items():
        try:
            _compare_leaf(got[name], expected, tolerance)
        except Different as difference:
            raise Different(f"{name}: {difference}" if name else str(difference)) from None


def _compare_leaf(got: Any, right: Any, tolerance: float) -> None:
    if got is None:
        raise Different("it returns None; is there a `return`?")
    if isinstance(right, str | bool):
        if got != right:
            raise Different(f"got {got!r}, expected {right!r}")
        return
    if isinstance(right, Tensor) and not isinstance(got, Tensor):
        raise Different(f"it returns {_kind(got)}, expected a tensor {tuple(right.shape)}")
    try:
        one, two = (torch.as_tensor(np.asarray(a) if not isinstance(a, Tensor) else a) for a in (got, right))
    except (TypeError, ValueError):
        raise Different(f"it returns {_kind(got)}, expected {_kind(right)}") from None
    if one.shape != two.shape:
        raise Different(f"the shape is {tuple(one.shape)}, expected {tuple(two.shape)}")
    if isinstance(right, Tensor) and one.dtype != two.dtype:
        raise Different(f"the dtype is {one.dtype}, expected {two.dtype}, that of the input")
    if two.numel() == 0:
        return
    one, two = one.double(), two.double()
    if wild := int((one.isfinite() != two.isfinite()).sum()):
        raise Different(f"{wild} of {one.numel()} entries are NaN or infinite")
    # Only a known mistake may have some, and it is known by where they are and by the other entries.
    _compare_numbers(one.nan_to_num(0, 0, 0), two.nan_to_num(0, 0, 0), tolerance)


def _compare_numbers(one: Tensor, two: Tensor, tolerance: float) -> None:
    scale = two.abs().max().item() or 1.0
    error = (one - two).abs()
    if error.max().item() <= tolerance * scale:
        return
    if two.ndim > 1 and two.shape[-1] == two.shape[-2] and _near(one, two.mT, tolerance):
        raise Different("it is transposed")
    large = two.abs() > 1e-2 * scale
    factors = (one / two)[large]
    factor = factors.median().item()
    if factors.numel() > 1 and _near(one, factor * two, SAME_FACTOR) and abs(factor - 1) > SAME_FACTOR:
        raise Different(f"every entry is {factor:.4g} times the right one")
    place = np.unravel_index(int(error.argmax()), tuple(two.shape))
    at = f"at entry {tuple(int(i) for i in place)} " if two.ndim else ""
    share = error.max().item() / scale
    raise Different(f"{at}it is {one[place].item():.5g}, expected {two[place].item():.5g}; {share:.1%} off")


def _near(one: Tensor, two: Tensor, tolerance: float) -> bool:
    return (one - two).abs().max().item() <= tolerance * (two.abs().max().item() or 1.0)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"
