"""Networks: a timm backbone, a pool and a linear classifier, and the systems that can be built into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gcplib.backbones import Backbone, create_backbone, create_network
from gcplib.nn import AveragePool, DiversificationBlock, create_pool, d4_views, random_view
from gcplib.nn.base import laid_out_as
from gcplib.nn.coarse2fine import Coarse2Fine
from gcplib.nn.gate import create_gate, insert_gates, stage_options

__all__ = [
    "SYSTEMS",
    "Backbone",
    "Head",
    "Model",
    "build_head",
    "build_model",
    "check_systems",
    "create_backbone",
    "create_model",
    "create_network",
]

# What can be built into a network, beside its pool. Each is a mapping of options, and they combine.
SYSTEMS = ("gate", "views", "diversify", "coarse2fine")
VIEWS = ("all", "random", "upright")
# The stage of a gate that stands between backbone and pool, and so needs no backbone.
FEATURES = "features"

Systems = Mapping[str, Mapping[str, Any]]


class Head(nn.Module):
    """Pool and linear classifier: what is trained on cached features ``(B, C, H, W)``; returns ``(B, classes)``.

    Features ``(B, V, C, H, W)`` are those of V views of each image.

    Args:
        pool: from features to vectors. num_classes: at least two.
        views: None, or which views count: ``all`` of them; in training a ``random`` one of each image and else the
            first; or always the first, ``upright``.

    Attributes:
        gate: a module that changes the features before the pool, or None.
        diversify: a block that suppresses part of the class maps in training, or None.
    """

    def __init__(self, pool: nn.Module, num_classes: int, views: str | None = None):
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least two classes, got {num_classes}")
        self.pool = pool
        self.classifier = nn.Linear(pool.out_features, num_classes)
        self.views = views
        self.gate: nn.Module | None = None
        self.diversify: nn.Module | None = None

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

    def forward(self, features: Tensor) -> Tensor:
        if self.views in ("random", "upright") and features.dim() == 5:
            features = random_view(features) if self.training and self.views == "random" else features[:, 0]
        if self.diversify is not None and self.training:
            return self.diversify(self.class_maps(features)).mean((2, 3))
        return self.classifier(self.pool(self._gated(features)))


class Model(nn.Module):
    """Backbone and head; normalized images ``(B, 3, H, W)`` in, logits ``(B, classes)`` out.

    With the ``views`` of its head the backbone sees all eight views of every image, or in training a random one.
    """

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        if self.head.views == "all":
            views = d4_views(x)
            return self.head(self.backbone(laid_out_as(x, views.flatten(0, 1))).unflatten(0, views.shape[:2]))
        if self.head.views == "random" and self.training:
            x = laid_out_as(x, random_view(d4_views(x)))
        return self.head(self.backbone(x))


def check_systems(systems: Systems, stage: str = "full") -> None:
    """Raise ``ValueError`` for systems that do not exist or do not go together.

    Args:
        systems: name and options of each. stage: ``head`` has no backbone to build anything into.
    """
    for name, options in systems.items():
        if name not in SYSTEMS:
            raise ValueError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}")
        if not isinstance(options, Mapping):
            raise ValueError(f"systems.{name} must be a mapping of options, got {options!r}")
    if "views" in systems:
        mode = systems["views"].get("mode", "all")
        if set(systems["views"]) - {"mode"} or mode not in VIEWS:
            raise ValueError(f"systems.views is {{mode: {' | '.join(VIEWS)}}}, got {dict(systems['views'])}")
    if "gate" in systems:
        stages = systems["gate"].get("stages")
        if not isinstance(stages, list | tuple | Mapping) or not stages:
            raise ValueError(f"systems.gate needs its stages, a list of names such as ['{FEATURES}'], got {stages!r}")
        stage_options(stages)
        if stage == "head" and list(stages) != [FEATURES]:
            raise ValueError(
                f"systems.gate: the stage 'head' has a frozen backbone; gate ['{FEATURES}'] there, got {list(stages)}"
            )
    if "coarse2fine" in systems:
        if stage == "head":
            raise ValueError("systems.coarse2fine looks at the image twice: it needs the stage 'full'")
        if others := {"views", "diversify"} & set(systems):
            raise ValueError(f"systems.coarse2fine does not go together with {', '.join(sorted(others))}")


def build_head(pool: nn.Module, num_classes: int, systems: Systems | None = None) -> Head:
    """Return the head of a network with the systems that belong to it: views, a gate in front of the pool, diversify.

    Its pool and classifier start as they would without them.
    """
    systems = systems or {}
    views = systems["views"].get("mode", "all") if "views" in systems else None
    head = Head(pool, num_classes, views)
    if "diversify" in systems:
        if type(pool) is not AveragePool or views == "all":
            found = "all views" if views == "all" else type(pool).__name__
            raise ValueError(f"systems.diversify needs the class maps of average pooling ('gap'), got {found}")
        head.diversify = _made("diversify", DiversificationBlock, **systems["diversify"])
    if "gate" in systems and FEATURES in systems["gate"]["stages"]:
        options = dict(systems["gate"])
        options |= stage_options(options.pop("stages"))[FEATURES]
        head.gate = _made("gate", create_gate, channels=pool.in_channels, **options)
    return head


def build_model(backbone: Backbone, pool: nn.Module, num_classes: int, systems: Systems | None = None) -> nn.Module:
    """Return backbone, pool and classifier as one network with the systems built in; the backbone is changed in place.

    Raises:
        ValueError: systems that do not exist, do not fit the backbone, or do not go together.
    """
    systems = systems or {}
    check_systems(systems)
    head = build_head(pool, num_classes, systems)
    if "gate" in systems:
        options = dict(systems["gate"])
        inside = stage_options(options.pop("stages"))
        inside.pop(FEATURES, None)
        if inside:
            _made("gate", insert_gates, backbone.network, inside, **options)
    if "coarse2fine" in systems:
        return _made("coarse2fine", Coarse2Fine, backbone, head, **systems["coarse2fine"])
    return Model(backbone, head)


def _made(name: str, make: Any, *args: Any, **options: Any) -> Any:
    """Make a part of a system; an option that it does not have is the caller's, with the system's name."""
    try:
        return make(*args, **options)
    except TypeError as error:
        raise ValueError(f"systems.{name}: {error}") from error


def create_model(
    backbone: str | Backbone,
    pool: str | nn.Module,
    num_classes: int,
    reduction: int | tuple[int, ...] | None = None,
    systems: Systems | None = None,
    **options,
) -> nn.Module:
    """Make a network with a pool of your choice, and with any of the systems of this library.

    Args:
        backbone: a timm name (then pretrained, stride 16) or the result of ``create_backbone``.
        pool: a name of ``list_pools()``, or any module from ``(B, C, H, W)`` to ``(B, out_features)`` that has
            ``out_features``.
        num_classes: at least two. reduction: channels after 1x1 reductions. options: of the pool.
        systems: what else to build in, by name, each with its options:
            ``gate`` (``{"kind": "channel", "stages": ["blocks.4"]}``, GSoP: ``gcplib.nn.gate``),
            ``views`` (``{"mode": "all"}``, the eight transformations of a square: ``gcplib.nn.invariant``),
            ``diversify`` (``gcplib.nn.diversify``, for the pool ``gap``), ``coarse2fine`` (``gcplib.nn.coarse2fine``).

    Raises:
        ValueError: an unknown name, or parts that do not fit each other.
    """
    if isinstance(backbone, str):
        backbone = create_backbone(backbone)
    if isinstance(pool, str):
        pool = create_pool(pool, backbone.out_channels, reduction, **options)
    elif reduction is not None or options:
        raise ValueError("reduction and options belong to a pool given by name; this pool is already made")
    return build_model(backbone, pool, num_classes, systems)
