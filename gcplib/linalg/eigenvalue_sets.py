"""Sets of eigenvalues, by rank or by energy: what a truncation keeps and an attribution looks at.

All raise a ValueError at a setting out of range.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gcplib.linalg.calls import Partial, check_count, is_number, resolve, write_call

# Of a random order: more than any backbone has.
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

    def __post_init__(self) -> None:
        check_count(f"the number of eigenvalues in the set {self.name}", self.least)

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
        """Say which eigenvalues are in the set, ``(..., d)``; raise a ValueError if it needs more than ``rank``.

        Args:
            lam: ``(..., d)`` in ascending order, as ``eigh`` returns them.
            rank: how many can differ from zero, by default all.

        >>> top(2).mask(torch.tensor([1.0, 2.0, 3.0]))
        tensor([False,  True,  True])
        """
        rank = lam.shape[-1] if rank is None else rank
        self.check(rank)
        chosen = self.ranks(lam.flip(-1)[..., :rank]).flip(-1).expand(*lam.shape[:-1], rank)
        return torch.cat([torch.zeros_like(lam[..., rank:], dtype=torch.bool), chosen], -1)


def top(count: int) -> EigenvalueSet:
    """Return the ``count`` largest eigenvalues."""
    return EigenvalueSet(write_call("top", count), Partial(_ranks, 0, count), count)


def bottom(count: int) -> EigenvalueSet:
    """Return the ``count`` smallest of the eigenvalues that can differ from zero."""
    return EigenvalueSet(write_call("bottom", count), Partial(_ranks, -count, None), count)


def all_but_smallest(count: int) -> EigenvalueSet:
    """Return all but the ``count`` smallest. Under rules that clamp eigenvalues null ones count as well."""
    name = write_call("all_but_smallest", check_count("the number of eigenvalues left out", count))
    return EigenvalueSet(name, Partial(_ranks, None, -count), count + 1)


def band(first: int, last: int) -> EigenvalueSet:
    """Return the eigenvalues from rank ``first`` to ``last - 1``; the largest has rank 0."""
    if check_count("the first rank of a band", first, 0) >= last:
        raise ValueError(f"band({first}, {last}) is empty; give 0 <= first < last, the largest eigenvalue has rank 0")
    return EigenvalueSet(write_call("band", first, last), Partial(_ranks, first, last), last)


def random_set(count: int, seed: int = 0) -> EigenvalueSet:
    """Return ``count`` eigenvalues at ranks drawn once, the same for every matrix."""
    return EigenvalueSet(write_call("random", count, seed), Partial(_drawn, count, seed), count)


def energy_top(fraction: float) -> EigenvalueSet:
    """Return, for every matrix, as many of its largest eigenvalues as it takes to hold a fraction of their sum.

    The sum of the eigenvalues is the energy ``|C|_F^2`` of the square root C. The fraction is between 0 and 1.
    """
    return EigenvalueSet(write_call("energy_top", _part(fraction)), Partial(_energy, fraction, None))


def energy_bottom(fraction: float) -> EigenvalueSet:
    """Return as many of the smallest as hold no more than the fraction; see ``energy_top``."""
    # The complement of the others that hold the rest: the two sets of a half share no eigenvalue and miss none.
    rest = Partial(_energy, 1 - _part(fraction), None)
    return EigenvalueSet(write_call("energy_bottom", fraction), Partial(complement, rest), 2)


def energy_random(fraction: float, seed: int = 0) -> EigenvalueSet:
    """Return as many, in random order, as it takes to hold the fraction; see ``energy_top``."""
    name = write_call("energy_random", _part(fraction), seed)
    return EigenvalueSet(name, Partial(_energy, fraction, seed))


def _part(fraction: float) -> float:
    if not (is_number(fraction) and 0 < fraction < 1):
        raise ValueError(f"the fraction of the energy must be between 0 and 1, got {fraction!r}")
    return fraction


def complement(ranks: Callable[[Tensor], Tensor], lam: Tensor) -> Tensor:
    return ~ranks(lam)


def _ranks(first: int | None, last: int | None, lam: Tensor) -> Tensor:
    chosen = torch.zeros(lam.shape[-1], dtype=torch.bool, device=lam.device)
    chosen[first:last] = True
    return chosen


def _drawn(count: int, seed: int, lam: Tensor) -> Tensor:
    return _random_order(seed, lam).argsort() < count


def _energy(fraction: float, seed: int | None, lam: Tensor) -> Tensor:
    ranks = torch.arange(lam.shape[-1], device=lam.device) if seed is None else _random_order(seed, lam)
    before = lam[..., ranks].cumsum(-1) - lam[..., ranks]
    taken = torch.zeros_like(lam, dtype=torch.bool)
    taken[..., ranks] = before < fraction * lam.sum(-1, keepdim=True)
    return taken


def _random_order(seed: int, lam: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        from gcplib.linalg import graph_constants

        order = graph_constants.priorities(seed)
    else:
        order = priorities(seed)
    return order[: lam.shape[-1]].argsort().to(lam.device)


def priorities(seed: int) -> Tensor:
    """Return a number for every place of a spectrum; their order is a random one."""
    return torch.rand(MOST_CHANNELS, generator=torch.Generator().manual_seed(seed), device="cpu", dtype=torch.float32)


# By name and settings, so that a set is a plain value and can stand in a file.
MAKERS = (top, bottom, band, all_but_smallest, energy_top, energy_bottom, energy_random)
SETS: dict[str, Callable[..., EigenvalueSet]] = {make.__name__: make for make in MAKERS} | {"random": random_set}


def list_eigenvalue_sets() -> list[str]:
    """Return one example of every kind that ``get_eigenvalue_set`` reads."""
    examples = "top(16); bottom(16); band(16, 32); random(16, 0); energy_top(0.5); energy_bottom(0.5); "
    return (examples + "energy_random(0.5, 0); all_but_smallest(50)").split("; ")


def get_eigenvalue_set(name: str | EigenvalueSet) -> EigenvalueSet:
    """Return the set itself, or the one of that name (``resolve`` says what fails).

    >>> str(get_eigenvalue_set("band(16, 32)"))
    'band(16, 32)'
    """
    return resolve(EigenvalueSet, "set of eigenvalues", name, SETS)
