"""Tasks of notebook 01: covariances of a batch, their powers, a pool made of both, and the estimate behind the root."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def features(*more: tuple[int, ...]) -> list[Tensor]:
    """Features of batches, with means that are not zero; of one there are fewer positions than channels."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 3, 5), (3, 6, 4), *more]
    return [torch.randn(*size, generator=generator, dtype=torch.float64) + 1 for size in sizes]


def _centered(X: Tensor) -> Tensor:
    return X - X.mean(-1, keepdim=True)


def covariance(X: Tensor) -> Tensor:
    """A solution."""
    Xc = _centered(X)
    return Xc @ Xc.mT / X.shape[-1]


def _in_a_loop(X: Tensor) -> Tensor:
    return torch.stack([torch.cov(image, correction=0) for image in X])


def _of_all_images(X: Tensor) -> Tensor:
    Xc = X - X.mean((0, 2), keepdim=True)
    return Xc @ Xc.mT / X.shape[-1]


def matrix_powers(Sigma: Tensor, exponents: list[float]) -> list[Tensor]:
    """A solution."""
    lam, U = torch.linalg.eigh(Sigma)
    lam = lam.clamp_min(0)[..., None, :]
    return [(U * lam**p) @ U.mT for p in exponents]


def _powers(
    change: Callable[[Tensor, Tensor, float], Tensor], clamped: bool = True
) -> Callable[[Tensor, list[float]], list[Tensor]]:
    """What a function of eigenvalues, eigenvectors and exponent makes of each exponent."""

    def made(Sigma: Tensor, exponents: list[float]) -> list[Tensor]:
        lam, U = torch.linalg.eigh(Sigma)
        lam = lam.clamp_min(0) if clamped else lam
        return [change(lam, U, p) for p in exponents]

    return made


def _by_diagonals(Sigma: Tensor, exponents: list[float]) -> list[Tensor]:
    U, lam, _ = torch.linalg.svd(Sigma)  # of a matrix without negative eigenvalues the same
    return [U @ torch.diag_embed(lam**p) @ U.mT for p in exponents]


def upper(C: Tensor) -> Tensor:
    """The upper triangle, off the diagonal times the root of 2."""
    row, column = torch.triu_indices(C.shape[-1], C.shape[-1])
    return C[:, row, column] * torch.where(row == column, 1.0, 2**0.5)


class Pool(nn.Module):
    """A solution."""

    def __init__(self, in_channels: int, *, exponent: float = 0.5):
        super().__init__()
        self.exponent = exponent
        self.out_features = in_channels * (in_channels + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        (C,) = matrix_powers(covariance(x.flatten(2)), [self.exponent])
        return upper(C)


def _pool(forward: Callable[[Pool, Tensor], Tensor]) -> type[Pool]:
    """The solution with another forward pass."""
    return type("Pool", (Pool,), {"forward": forward})


def _power_of(self: Pool, X: Tensor, exponent: float | None = None) -> Tensor:
    return matrix_powers(covariance(X), [self.exponent if exponent is None else exponent])[0]


def _all_entries(self: Pool, x: Tensor) -> Tensor:
    return _power_of(self, x.flatten(2)).flatten(1)


def _unweighted(self: Pool, x: Tensor) -> Tensor:
    C = _power_of(self, x.flatten(2))
    row, column = torch.triu_indices(C.shape[-1], C.shape[-1])
    return C[:, row, column]


def _lower(self: Pool, x: Tensor) -> Tensor:
    C = _power_of(self, x.flatten(2))
    row, column = torch.tril_indices(C.shape[-1], C.shape[-1])
    return C[:, row, column] * torch.where(row == column, 1.0, 2**0.5)


def _weights_on_the_diagonal(self: Pool, x: Tensor) -> Tensor:
    C = _power_of(self, x.flatten(2))
    row, column = torch.triu_indices(C.shape[-1], C.shape[-1])
    return C[:, row, column] * torch.where(row == column, 2**0.5, 1.0)


def maps() -> list[tuple[Tensor, float]]:
    """Feature maps that are not square, and a power."""
    return [(x.unflatten(2, (2, -1)), p) for x, p in zip(features((2, 4, 6))[1:], (0.5, 0.25), strict=True)]


def use_pool(make: Callable[..., nn.Module], x: Tensor, exponent: float) -> Tensor:
    """The vectors of a pool that is made for these maps."""
    return make(x.shape[1], exponent=exponent)(x)


def eigenvalues() -> list[tuple[Tensor]]:
    """Eigenvalues of samples; one is zero."""
    return [(torch.tensor(row, dtype=torch.float64),) for row in ([4.0, 1.0, 0.25], [9.0, 0.5, 0.01, 0.0])]


def most_likely(lam: Tensor) -> Tensor:
    """A solution."""
    return lam.sqrt()


TASKS = {
    "01_covariance": Task(
        "Write the body of `covariance`: center every channel of every image, then multiply.",
        covariance,
        lambda: [(X,) for X in features()],
        mistakes={
            "the mean is not removed: this is the second moment": lambda X: X @ X.mT / X.shape[-1],
            "the mean is that of all images; every image has its own": _of_all_images,
            "the mean over the images is removed; remove that over the positions": lambda X: (
                (X - X.mean(0)) @ (X - X.mean(0)).mT / X.shape[-1]
            ),
            "each position is centered over its channels; center each channel over its positions": lambda X: (
                (X - X.mean(1, keepdim=True)) @ (X - X.mean(1, keepdim=True)).mT / X.shape[-1]
            ),
            "it is the covariance of the positions; that of the channels is d x d": lambda X: covariance(X.mT),
            "Xc and its transpose are exchanged: Xc.mT @ Xc is of positions by positions": lambda X: (
                _centered(X).mT @ _centered(X) / X.shape[-1]
            ),
            "it is divided by M - 1; here by M": lambda X: covariance(X) * X.shape[-1] / (X.shape[-1] - 1),
            "it is divided by the number of channels; divide by that of positions": lambda X: (
                covariance(X) * X.shape[-1] / X.shape[-2]
            ),
            "it is not divided by the number of positions": lambda X: covariance(X) * X.shape[-1],
            "it is one matrix for all images; give each its own": lambda X: covariance(X).mean(0),
        },
        alternatives=(
            _in_a_loop,
            lambda X: X @ X.mT / X.shape[-1] - X.mean(-1, keepdim=True) @ X.mean(-1, keepdim=True).mT,
        ),
    ),
    "01_matrix_powers": Task(
        "Write the body of `matrix_powers`: decompose once, take the eigenvalues to each power, and put it together.",
        matrix_powers,
        lambda: [(covariance(X), [0.5, 0.25, 1.0]) for X in features()],
        mistakes={
            "these are powers of the entries, not of the matrix": lambda S, exponents: [S**p for p in exponents],
            "rounding makes an eigenvalue of zero a little negative, and its root is NaN: clamp them at zero": _powers(
                lambda lam, U, p: (U * lam[..., None, :] ** p) @ U.mT, clamped=False
            ),
            "these are the eigenvalues alone; put the eigenvectors on both sides": _powers(
                lambda lam, U, p: torch.diag_embed(lam**p)
            ),
            "the eigenvectors are the columns of U: U diag(lam^p) U^T, not U^T diag(lam^p) U": _powers(
                lambda lam, U, p: U.mT @ torch.diag_embed(lam**p) @ U
            ),
            "U^T on the right is missing": _powers(lambda lam, U, p: U * lam[..., None, :] ** p),
            "the power is taken twice, on both sides: lam^(2 p)": _powers(
                lambda lam, U, p: (U * lam[..., None, :] ** (2 * p)) @ U.mT
            ),
            "all have the first power; there is one for each": lambda S, exponents: matrix_powers(
                S, [exponents[0]] * len(exponents)
            ),
        },
        alternatives=(_by_diagonals,),
    ),
    "01_power_pool": Task(
        "Write `forward`: positions in one row, covariance, its power, and of that the vector.",
        Pool,
        maps,
        use_pool,
        mistakes={
            "it has every entry twice; take the upper triangle": _pool(_all_entries),
            "entries off the diagonal count once; they are twice in the matrix, so times the root of 2": _pool(
                _unweighted
            ),
            "the root of 2 belongs to the entries off the diagonal, which are twice in the matrix": _pool(
                _weights_on_the_diagonal
            ),
            "these are the right entries in another order; go through the upper triangle row by row": _pool(_lower),
            "it is always the square root; take self.exponent": _pool(
                lambda self, x: upper(_power_of(self, x.flatten(2), 0.5))
            ),
            "it is the covariance; take its power": _pool(lambda self, x: upper(covariance(x.flatten(2)))),
            "it is the matrix; a classifier takes a vector": _pool(lambda self, x: _power_of(self, x.flatten(2))),
            "rows of the map are not positions: put all positions into one dimension, x.flatten(2)": _pool(
                lambda self, x: upper(_power_of(self, x.mean(3)))
            ),
        },
        alternatives=(
            _pool(lambda self, x: upper(_by_diagonals(_in_a_loop(x.reshape(*x.shape[:2], -1)), [self.exponent])[0])),
        ),
    ),
    "01_most_likely": Task(
        "Write the body of `most_likely`: set the derivative to zero, and solve for mu.",
        most_likely,
        eigenvalues,
        mistakes={
            "that is the sample: the minimum of the first two terms, without the divergence": lambda lam: lam,
            "the mean with the identity's eigenvalue; solve 1 - lam / mu^2 = 0": lambda lam: (lam + 1) / 2,
            "that is mu^2; take its root": lambda lam: lam.square(),
            "that keeps log mu: the two logarithms cancel": lambda lam: ((1 + 4 * lam).sqrt() - 1) / 2,
        },
        alternatives=(lambda lam: (lam.clamp_min(1e-300).log() / 2).exp(), lambda lam: lam**0.5),
    ),
}
