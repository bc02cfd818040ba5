"""A logistic regression on pooled features; nothing but its weights is trained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from gcplib.nn import create_pool
from gcplib.nn.options import check_positive
from gcplib.probe.base import Probe, as_maps, parts, search, validation_score

__all__ = ["LinearProbe"]

# Fitted until nothing changes: with scikit-learn's own tolerance (1e-4) a weak penalty's fit stops where a stronger
# one's has left it, and two strengths cannot be told apart.
TOLERANCE, MAX_ITERATIONS = 1e-6, 500


class LinearProbe(Probe):
    """Features of a frozen network, pooled, and a logistic regression whose strength is chosen on validation images.

    With P the first principal directions of the channels, over all positions of the training images:

        vector = pool(P X),  logits = W (vector - mean) / scale + b

    The regression is that of all entries of the vectors, fitted in as many dimensions as there are images: a rotation
    changes no penalized solution. Nothing here is random but the choice of validation images, and once the strength is
    chosen the regression is fitted to these as well.

    Args:
        pool: a name of ``gcplib.list_pools()`` without weights of its own. Vectors ``(n, D)`` have no positions and
            are taken as they are.
        width: channels after the projection; None for all. Average pooling keeps all.
        options: of the pool.
        C: strengths of the regression to choose from (inverse of the penalty); the list grows where its end is best.
        validation: fraction of each class that settings are chosen by.
        seed: which images these are.
        backbone: for paths of images, see ``gcplib.create_backbone``.
        stride: the same.
        pixels: side of these images.

    Attributes:
        C_: the chosen strength. ``search_`` has all of them with accuracy and
            minus cross-entropy of the validation images, by which equal accuracies are told apart; ``at_end_`` tells
            whether the best is at the end of what was tried. ``classes_`` are the classes, ``length_`` is the length of
            a vector.

    >>> import torch
    >>> features = torch.randn(40, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    >>> features[20:, 0] *= 5  # another variance, the same mean
    >>> LinearProbe("cov", width=None).fit(features, [0] * 20 + [1] * 20).score(features, [0] * 20 + [1] * 20)
    1.0
    """

    def __init__(
        self,
        pool: str = "mpn_cov",
        width: int | None = 64,
        options: Mapping[str, Any] | None = None,
        C: Sequence[float] = (0.1, 1.0, 10.0),
        validation: float = 0.1,
        seed: int = 0,
        backbone: str = "tf_efficientnet_lite0",
        stride: int | None = None,
        pixels: int = 224,
    ):
        self.pool, self.width, self.options, self.C = pool, width, options, C
        self.validation, self.seed = validation, seed
        self.backbone, self.stride, self.pixels = backbone, stride, pixels

    def _fit_classifier(self, X: Tensor, codes: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> None:
        if self.width is not None:
            check_positive("width", self.width)
        # These know no classes, and so may be those of all images.
        self.directions_ = self.principal(X)
        vectors = self.vectors(X)
        self.length_ = vectors.shape[1]
        self.mean_ = vectors.mean(0)
        self.scale_ = float(vectors.std(0).mean()) or 1.0
        V = (vectors - self.mean_) / self.scale_
        rotation = _rotation(V)
        rows = (V if rotation is None else V @ rotation).numpy()
        fitted: dict[float, LogisticRegression] = {}

        def score(C: float) -> tuple[float, float]:
            near = min(fitted, key=lambda other: abs(np.log(other / C)), default=None)
            fitted[C] = model = _fit(rows[inner], codes[inner], C, fitted.get(near))
            scores = model.decision_function(rows[outer])
            scores = np.stack([-scores / 2, scores / 2], 1) if scores.ndim == 1 else scores
            return validation_score(torch.from_numpy(scores), codes[outer])

        self.C_, self.search_, self.at_end_ = search(self.C, score)
        model = _fit(rows, codes, self.C_, fitted.get(self.C_))
        weight = torch.from_numpy(model.coef_).float()
        weight = weight if rotation is None else weight @ rotation.T
        bias = torch.from_numpy(np.atleast_1d(model.intercept_)).float()
        if len(weight) == 1:  # two classes have one row
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        self.coef_, self.intercept_ = weight.numpy(), bias.numpy()
        self.n_iter_ = int(max(model.n_iter_))

    def _scores(self, X: Tensor) -> np.ndarray:
        vectors = (self.vectors(X) - self.mean_) / self.scale_
        return vectors.numpy() @ self.coef_.T + self.intercept_

    @property
    def parameters_(self) -> int:
        """Weights of the regression."""
        return self.coef_.size + self.intercept_.size

    @torch.no_grad()
    def vectors(self, X: Tensor) -> Tensor:
        """Return the pooled features ``(n, D)``, before they are centered and scaled."""
        if X.dim() == 2:
            return X.float()
        channels = as_maps(X[:1]).shape[1] if self.directions_ is None else len(self.directions_)
        pool = create_pool(self.pool, channels, **dict(self.options or {})).eval()
        if any(True for _ in pool.parameters()):
            raise ValueError(f"the pool {self.pool!r} has weights of its own; a TrainedProbe trains them")
        found = []
        for _, part in parts(X):
            maps = as_maps(part)
            if self.directions_ is not None:
                maps = torch.einsum("kc,nchw->nkhw", self.directions_, maps)
            found.append(pool(maps))
        return torch.cat(found)

    def principal(self, X: Tensor) -> Tensor | None:
        """Return the first principal directions ``(width, C)`` of the channels, or None where all are kept."""
        if X.dim() == 2 or self.pool == "gap" or self.width is None:
            return None
        channels = as_maps(X[:1]).shape[1]
        if self.width >= channels:
            return None
        total, square, count = torch.zeros(channels).double(), torch.zeros(channels, channels).double(), 0
        for _, part in parts(X):
            rows = as_maps(part).transpose(0, 1).flatten(1)
            total += rows.sum(1).double()
            square += (rows @ rows.T).double()
            count += rows.shape[1]
        mean = total / count
        _, directions = torch.linalg.eigh(square / count - torch.outer(mean, mean))
        return directions[:, -self.width :].T.float()


def _rotation(V: Tensor) -> Tensor | None:
    """Return orthonormal columns ``(D, n)`` that span the rows of V ``(n, D)``; None where D is not larger."""
    if V.shape[1] <= V.shape[0]:
        return None
    values, vectors = torch.linalg.eigh((V @ V.T).double())
    kept = values > values[-1] * len(values) * torch.finfo(V.dtype).eps
    return (V.T.double() @ (vectors[:, kept] / values[kept].sqrt())).float()


def _fit(rows: np.ndarray, codes: np.ndarray, C: float, near: LogisticRegression | None) -> LogisticRegression:
    """Fit a regression, from the solution of another that is near, if there is one of as many classes."""
    model = LogisticRegression(C=C, max_iter=MAX_ITERATIONS, tol=TOLERANCE, warm_start=True)
    if near is not None and len(near.classes_) == len(np.unique(codes)):
        model.coef_, model.intercept_ = near.coef_.copy(), near.intercept_.copy()
    # One thread: the products are small, and on two cores two threads took two to five times as long as one.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        # Of weak penalties the last digits take long, and decide nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, codes)
