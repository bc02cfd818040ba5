"""Sets of eigenvalues, by rank or by energy: what a truncation keeps and an attribution looks at."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

__all__ = ["EigenvalueSet", "band", "bottom", "get_eigenvalue_set", "list_eigenvalue_sets", "random_set", "top"]

# Of a random set: more than any backbone has.
MOST_CHANNELS = 1 << 14


@dataclass(frozen=True)
class EigenvalueSet:
    """Some of the eigenvalues of a covariance.

    Args:
        name: as ``get_eigenvalue_set`` reads it.
        ranks: from the ``r`` largest eigenvalues, ``(..., r)`` with the largest first, to which of them are in it,
            bool. Only those are passed that can differ from zero, ``r = min(d, M - 1)`` for M positions.
        least: the smallest r that it can be taken of.
    """

    name: str
    ranks: Callable[[Tensor], Tensor]
    least: int = 1

    def __str__(self) -> str:
        return self.name

    def check(self, rank: int) -> None:
        """Raise a ValueError if no covariance of rank at most ``rank`` has these eigenvalues."""
        if self.least > rank:
            raise ValueError(
                f"the set {self.name} needs {self.least} eigenvalues, but these covariances have at most {rank} that "
                "are not zero (no more than channels, and fewer than positions); take a smaller set"
            )

    def mask(self, lam: Tensor, rank: int | None = None) -> Tensor:
        """Say which eigenvalues are in the set.

        Args:
            lam: ``(..., d)`` in ascending order, as ``eigh`` returns them. rank: how many can differ from zero, by
                default all.

        Returns:
            bool ``(..., d)``, in the order of ``lam``.

        Raises:
            ValueError: the set needs more eigenvalues than ``rank``.

        >>> top(2).mask(torch.tensor([1.0, 2.0, 3.0]))
        tensor([False,  True,  True])
        """
        rank = lam.shape[-1] if rank is None else rank
        self.check(rank)
        chosen = self.ranks(lam.flip(-1)[..., :rank]).flip(-1).expand(*lam.shape[:-1], rank)
        return torch.cat([torch.zeros_like(lam[..., rank:], dtype=torch.bool), chosen], -1)


def top(count: int) -> EigenvalueSet:
    """Return the ``count`` largest eigenvalues."""
    return _by_rank(f"top({_count(count)})", 0, count)


def bottom(count: int) -> EigenvalueSet:
    """Return the ``count`` smallest of the eigenvalues that can differ from zero."""

    def ranks(lam: Tensor) -> Tensor:
        return torch.arange(lam.shape[-1], device=lam.device) >= lam.shape[-1] - count

    return EigenvalueSet(f"bottom({_count(count)})", ranks, count)


def band(first: int, last: int) -> EigenvalueSet:
    """Return the eigenvalues from rank ``first`` to ``last - 1``; the largest has rank 0.

    Raises:
        ValueError: the band is empty or starts below 0.
    """
    if not 0 <= first < last:
        raise ValueError(f"band({first}, {last}) is empty; give 0 <= first < last, the largest eigenvalue has rank 0")
    return _by_rank(f"band({first}, {last})", first, last)


def random_set(count: int, seed: int = 0) -> EigenvalueSet:
    """Return ``count`` eigenvalues at ranks drawn once, the same for every matrix."""

    shuffle = _shuffle(seed)

    def ranks(lam: Tensor) -> Tensor:
        return shuffle(lam).argsort() < count

    return EigenvalueSet(f"random({_count(count)}, {seed})", ranks, count)


def energy_set(kind: str, share: float, seed: int = 0) -> EigenvalueSet:
    """Return, for every matrix, as many eigenvalues as it takes to hold a share of their sum.

    The sum of the eigenvalues is the energy ``|C|_F^2`` of the square root C. They are taken from the largest
    (``energy_top``) or in random order (``energy_random``) until the share is reached; from the smallest
    (``energy_bottom``) as long as it is not exceeded.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of the energy must be between 0 and 1, got {share}")
    shuffle = _shuffle(seed)

    def ranks(lam: Tensor) -> Tensor:
        order = shuffle(lam) if kind == "random" else torch.arange(lam.shape[-1], device=lam.device)
        before = lam[..., order].cumsum(-1) - lam[..., order]
        taken = torch.zeros_like(lam, dtype=torch.bool)
        taken[..., order] = before < share * lam.sum(-1, keepdim=True)
        return taken

    if kind == "bottom":
        # The complement of the others that hold the rest: the two sets of a half share no eigenvalue and miss none.
        complement = energy_set("top", 1 - share)
        return EigenvalueSet(f"energy_bottom({share:g})", lambda lam: ~complement.ranks(lam), 2)
    name = f"energy_{kind}({share:g}{f', {seed}' if kind == 'random' else ''})"
    return EigenvalueSet(name, ranks)


def all_but_smallest(count: int) -> EigenvalueSet:
    """Return all but the ``count`` smallest. Under gradient rules as released null eigenvalues count as well."""

    def ranks(lam: Tensor) -> Tensor:
        return torch.arange(lam.shape[-1], device=lam.device) < lam.shape[-1] - count

    return EigenvalueSet(f"all_but_smallest({_count(count)})", ranks, count + 1)


def _by_rank(name: str, first: int, last: int) -> EigenvalueSet:
    def ranks(lam: Tensor) -> Tensor:
        place = torch.arange(lam.shape[-1], device=lam.device)
        return (place >= first) & (place < last)

    return EigenvalueSet(name, ranks, last)


def _shuffle(seed: int) -> Callable[[Tensor], Tensor]:
    """Return a function from eigenvalues ``(..., r)`` to a random order of their ranks ``(r,)``."""
    # Drawn here and not at each call: a random generator cannot be made inside a compiled graph.
    priority = torch.rand(MOST_CHANNELS, generator=torch.Generator().manual_seed(seed))
    return lambda lam: priority[: lam.shape[-1]].argsort().to(lam.device)


def _count(count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"a set of eigenvalues must hold at least one, got {count!r}")
    return count


# By name and settings, so that a set is a plain value and can stand in a file.
SETS: dict[str, tuple[Callable[..., EigenvalueSet], tuple[type, ...], str]] = {
    "top": (top, (int,), "top(16)"),
    "bottom": (bottom, (int,), "bottom(16)"),
    "band": (band, (int, int), "band(16, 32)"),
    "random": (random_set, (int, int), "random(16, 0)"),
    "energy_top": (partial(energy_set, "top"), (float,), "energy_top(0.5)"),
    "energy_bottom": (partial(energy_set, "bottom"), (float,), "energy_bottom(0.5)"),
    "energy_random": (partial(energy_set, "random"), (float, int), "energy_random(0.5, 0)"),
    "all_but_smallest": (all_but_smallest, (int,), "all_but_smallest(50)"),
}


def list_eigenvalue_sets() -> list[str]:
    """Return one example of every kind that ``get_eigenvalue_set`` reads."""
    return [example for _, _, example in SETS.values()]


def get_eigenvalue_set(name: str | EigenvalueSet) -> EigenvalueSet:
    """Return the set itself, or the one of that name.

    Raises:
        ValueError: the name cannot be read (the message shows one of each kind), or the set is empty.

    >>> str(get_eigenvalue_set("band(16, 32)"))
    'band(16, 32)'
    """
    if isinstance(name, EigenvalueSet):
        return name
    found = re.fullmatch(r"(\w+)\(([^()]*)\)", name) if isinstance(name, str) else None
    if found and found[1] in SETS:
        make, types, _ = SETS[found[1]]
        try:
            values = [kind(text) for kind, text in zip(types, found[2].split(","), strict=True)]
        except ValueError:
            values = None
        if values is not None:
            return make(*values)
    raise ValueError(
        f"cannot read the set of eigenvalues {name!r}; write for example {', '.join(list_eigenvalue_sets())}"
    )
