"""Networks: a timm backbone, a pool and a linear classifier.

What can be built in beside the pool are modules that compose: ``insert_gates(backbone, ...)`` (``gcplib.nn.gate``),
``Head(diversify=...)``, ``D4Views(model)`` (``gcplib.nn.views``) and ``Coarse2Fine(backbone, head)``.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from gcplib.backbones import Backbone, WeightsError, create_backbone, create_network
from gcplib.nn import AveragePool, create_gate, create_pool
from gcplib.nn.base import Network
from gcplib.nn.options import check_known
from gcplib.nn.views import VIEWS, random_view

__all__ = ["Backbone", "Head", "Model", "WeightsError", "create_backbone", "create_model", "create_network"]


class Head(nn.Module):
    """Pool and linear classifier: what is trained on cached features ``(B, C, H, W)``; returns ``(B, classes)``.

    Features ``(B, V, C, H, W)`` are those of V views of each image.

    Args:
        pool: from features to vectors, such as ``gcplib.create_pool`` makes.
        num_classes: at least two, or 0 for no classifier, which leaves the vectors as they are.
        gate: changes the features before the pool: a name of ``gcplib.nn.list_gates()``, a class or a module.
        diversify: suppresses part of the class maps in training, a ``DiversificationBlock``; for average pooling.
        views: None, or which views of features count: ``all``, a ``random`` one in training, or ``upright``, the first.
        place: ``device`` and ``dtype`` of classifier and gate.

    Raises:
        ValueError: a number of classes, or parts that do not go together.

    >>> Head(create_pool("mpn_cov", 112, reduction=64), 10)(torch.randn(2, 112, 7, 7)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        pool: nn.Module,
        num_classes: int,
        *,
        gate: str | Callable[..., nn.Module] | nn.Module | None = None,
        diversify: nn.Module | None = None,
        views: str | None = None,
        **place,
    ):
        super().__init__()
        check_known("mode of views", views, (None, *VIEWS))
        if diversify is not None and (type(pool) is not AveragePool or views == "all" or num_classes == 0):
            found = "no classes" if num_classes == 0 else "all views" if views == "all" else type(pool).__name__
            raise ValueError(f"diversification needs the class maps of average pooling ('gap'), got {found}")
        self.pool, self.views = pool, views
        self.reset_classifier(num_classes, **place)
        # After the classifier, which so starts the same with and without it.
        self.gate = None if gate is None else create_gate(pool.in_channels, gate, **place)
        self.diversify = diversify

    def reset_classifier(self, num_classes: int, *, device=None, dtype=None) -> None:
        """Put a new classifier in place, where the old one was; with 0 classes the vectors pass as they are.

        Raises:
            ValueError: one class, or fewer than none.
        """
        if (
            isinstance(num_classes, bool)
            or not isinstance(num_classes, Integral)
            or num_classes < 0
            or num_classes == 1
        ):
            raise ValueError(f"a classifier needs at least two classes, got {num_classes!r}")
        if isinstance(old := getattr(self, "classifier", None), nn.Linear):
            device, dtype = old.weight.device, old.weight.dtype
        self.num_classes: int = int(num_classes)
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            self.classifier = nn.Linear(self.pool.out_features, num_classes, device=device, dtype=dtype)

    def class_maps(self, features: Tensor) -> Tensor:
        """Return the class maps ``(B, classes, H, W)`` of average pooling: their means are the logits.

        Raises:
            TypeError: the pool is another one.
        """
        if type(self.pool) is not AveragePool:
            raise TypeError(f"only average pooling has class maps, got {type(self.pool).__name__}")
        reduced = self.pool.reduction(self._gated(features))
        return nn.functional.conv2d(reduced, self.classifier.weight[..., None, None], self.classifier.bias)

    def _gated(self, features: Tensor) -> Tensor:
        if self.gate is None:
            return features
        return self.gate(features.flatten(0, -4)).unflatten(0, features.shape[:-3])

    def forward(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits ``(B, classes)``, or with ``pre_logits`` the vectors that the classifier sees."""
        if self.views in ("random", "upright") and features.dim() == 5:
            features = random_view(features) if self.training and self.views == "random" else features[:, 0]
        if self.diversify is not None and self.training and not pre_logits:
            return self.diversify(self.class_maps(features)).mean((2, 3))
        vectors = self.pool(self._gated(features))
        return vectors if pre_logits else self.classifier(vectors)


class Model(Network):
    """Backbone and head, with the interface of timm's models: normalized images ``(B, 3, H, W)`` to logits."""

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward_features(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)


def create_model(
    backbone: str | Backbone,
    pool: str | Callable[..., nn.Module] | nn.Module,
    num_classes: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> Model:
    """Make a network with a pool of your choice.

    Args:
        backbone: a timm name (then pretrained, stride 16) or the result of ``create_backbone``.
        pool: a name of ``list_pools()``, a class, or a module with ``out_features``, to ``(B, out_features)``.
        num_classes: at least two, or 0 for no classifier.
        device: of the weights of backbone, pool and classifier.
        dtype: of the same.
        options: of the pool, such as ``reduction``, see ``create_pool``.

    Raises:
        ValueError: an unknown name or option, or parts that do not fit each other.
    """
    if isinstance(backbone, str):
        backbone = create_backbone(backbone)
    # Only what was asked for: a class of one's own need not know all of it.
    place = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
    pool = create_pool(pool, backbone.out_channels, **place, **options)
    return Model(backbone.to(**place), Head(pool, num_classes, **place))
