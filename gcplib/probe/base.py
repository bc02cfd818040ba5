"""What probes share: inputs of three kinds, validation images, and a search that does not end at its edge."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

BATCH = 64
# How far a search goes on beyond the list it was given, in steps of the list's own ratio.
MOST_STEPS = 4


class Probe(ClassifierMixin, BaseEstimator):
    """The base of probes; a subclass has ``_fit_classifier`` and ``_scores``."""

    def fit(self, X: Any, y: Any, validation: tuple[Any, Any] | None = None) -> Probe:
        """Fit to features and classes.

        Args:
            X: features ``(n, C, H, W)``, tokens ``(n, M, C)`` or vectors ``(n, D)``, as arrays or tensors; or paths of
                n images, which go through the network ``backbone``.
            y: their classes ``(n,)``, of any kind that can be sorted.
            validation: such a pair, to choose settings by; None holds out a part of every class.

        Raises:
            ValueError: shapes, values that are not finite, fewer than two classes, or a pool that does not fit.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X, y = self._checked(X, y, reset=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a {type(self).__name__} is a classifier and needs two classes, got one class: {self.classes_[0]!r}"
            )
        if validation is None:
            inner, outer = held_out(codes, self.validation, self.seed)
            self._fit_classifier(X, codes, inner, outer)
            return self
        more, labels = self._checked(validation[0], np.asarray(validation[1]), reset=False)
        if unknown := sorted(set(np.unique(labels).tolist()) - set(self.classes_.tolist())):
            raise ValueError(f"validation images are of classes that training has not: {unknown[:5]}")
        if X.shape[1:] != more.shape[1:]:
            raise ValueError(
                f"validation features have shape {(*more.shape[1:],)}, those of training {(*X.shape[1:],)}"
            )
        both = torch.cat([X, more])
        codes = np.concatenate([codes, np.searchsorted(self.classes_, labels)])
        self._fit_classifier(both, codes, np.arange(len(X)), np.arange(len(X), len(both)))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores ``(n, classes)``, or ``(n,)`` of the second of two classes."""
        check_is_fitted(self)
        scores = self._scores(self._checked(X, None, reset=False))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities ``(n, classes)``."""
        check_is_fitted(self)
        scores = self._scores(self._checked(X, None, reset=False))
        return torch.from_numpy(scores).double().softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the classes ``(n,)``."""
        check_is_fitted(self)
        return self.classes_[self._scores(self._checked(X, None, reset=False)).argmax(1)]

    def _checked(self, X: Any, y: Any, reset: bool) -> Any:
        """Return features as a tensor, and with classes these as well; tensors keep their dtype and place on disk."""
        if is_paths(X):
            X = features_of_paths(list(X), self.backbone, self.stride, self.pixels)
        if isinstance(X, Tensor):
            X = X.detach()
        elif isinstance(X, np.ndarray) and X.ndim > 2:
            X = torch.from_numpy(np.ascontiguousarray(X, np.float32))
        if isinstance(X, Tensor) and X.dim() > 2:
            found = self._finite(X, reset)
            if y is None:
                return found
            y = column_or_1d(y)
            if len(X) != len(y):
                raise ValueError(f"there are {len(X)} images, but {len(y)} classes")
            return found, y
        options: dict[str, Any] = {"dtype": np.float32, "allow_nd": True, "reset": reset}
        X = X.float().cpu().numpy() if isinstance(X, Tensor) else X
        if y is None:
            return torch.from_numpy(np.ascontiguousarray(validate_data(self, X, **options)))
        X, y = validate_data(self, X, y, **options)
        return torch.from_numpy(np.ascontiguousarray(X)), y

    def _finite(self, X: Tensor, reset: bool) -> Tensor:
        width = X.shape[1] if X.dim() == 4 else X.shape[-1]
        if reset:
            self.n_features_in_ = width
        elif width != self.n_features_in_:
            raise ValueError(f"X has {width} channels, but {type(self).__name__} was fitted with {self.n_features_in_}")
        for start, part in parts(X):
            if not part.isfinite().all():
                raise ValueError(f"X has values that are not finite, in its rows {start} to {start + len(part) - 1}")
        return X


def as_maps(part: Tensor) -> Tensor:
    """Return features ``(n, C, H, W)`` in float32; tokens ``(n, M, C)`` become maps of M x 1 positions."""
    return (part.transpose(1, 2)[..., None] if part.dim() == 3 else part).float()


def parts(X: Tensor, size: int = BATCH) -> Iterator[tuple[int, Tensor]]:
    """Yield starts and parts of a tensor, which may lie on disk."""
    for start in range(0, len(X), size):
        yield start, X[start : start + size]


def held_out(codes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places that are fitted to, and those held out: at least one of every class of two or more."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation is {fraction}; give a fraction above 0 and below 1")
    inner, outer = [], []
    for code in np.unique(codes):
        # A generator for each class: a class more or less does not change what the others hold out.
        places = np.random.default_rng([seed, code]).permutation(np.flatnonzero(codes == code))
        count = min(max(round(fraction * len(places)), 1), len(places) - 1)
        inner.append(places[count:])
        outer.append(places[:count])
    inner, outer = np.sort(np.concatenate(inner)), np.sort(np.concatenate(outer))
    # Where no class can spare an image, settings are chosen by how the images themselves are told apart.
    return inner, outer if len(outer) else inner


def search(values: float | Sequence[float], score: Callable[[float], Any]) -> tuple[float, list[tuple], bool]:
    """Return the best of some settings; as long as it is at an end of the list, the list grows there.

    Args:
        values: a single one is returned as it is.
        score: of a value; the largest is the best.

    Returns:
        The value (of equal scores the first), all values with their scores, and whether the best is still at an end.

    Raises:
        ValueError: no value, or one that is not positive and finite.
    """
    values = np.unique(np.atleast_1d(values).astype(float)).tolist()
    if not values or not all(0 < value < np.inf for value in values):
        raise ValueError(f"settings to choose from are positive numbers, at least one, got {values}")
    if len(values) == 1:  # nothing to choose
        return values[0], [], False
    found = {value: score(value) for value in values}
    ratio = values[1] / values[0]
    for _ in range(MOST_STEPS):
        best = max(sorted(found), key=found.__getitem__)
        if best == min(found):
            more = best / ratio
        elif best == max(found):
            more = best * ratio
        else:
            break
        found[more] = score(more)
    best = max(sorted(found), key=found.__getitem__)
    return best, sorted(found.items()), best in (min(found), max(found))


def validation_score(scores: Tensor, codes: np.ndarray) -> tuple[float, float]:
    """Return accuracy and, for a few images on which many settings are equally right, minus the cross-entropy."""
    labels = torch.from_numpy(codes)
    right = (scores.argmax(1) == labels).double().mean()
    return float(right), -float(torch.nn.functional.cross_entropy(scores.double(), labels))


def is_paths(X: Any) -> bool:
    """Whether these are paths of files."""
    return isinstance(X, list | tuple | np.ndarray) and len(X) > 0 and isinstance(X[0], str | os.PathLike)


def features_of_paths(paths: list, backbone: str, stride: int | None, pixels: int) -> Tensor:
    """Return the features ``(n, C, H, W)`` of image files, as ``gcplib.create_backbone`` gives them."""
    from gcplib.decoding import decode
    from gcplib.models import create_backbone

    network = create_backbone(backbone, stride=stride, pixels=pixels).eval()
    out = []
    with torch.no_grad():
        for start in range(0, len(paths), 16):
            images = np.stack([decode(path, pixels, "shorter") for path in paths[start : start + 16]])
            out.append(network(network.prepare(images)))
    return torch.cat(out)
