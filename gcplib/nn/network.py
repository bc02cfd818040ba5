"""The names that timm's models have, for networks of a backbone and a head."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Network"]


class Network(nn.Module):
    """A network with a ``backbone`` and a ``head``; a subclass adds ``forward_features`` and ``forward_head``."""

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 without a classifier."""
        return self.head.num_classes

    @property
    def num_features(self) -> int:
        """The number of channels of the backbone's features."""
        return self.backbone.out_channels

    @property
    def head_hidden_size(self) -> int:
        """The length of the vectors that the classifier sees."""
        return self.head.pool.out_features

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        return self.head.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new classifier in place of the one that is there; with 0 classes the vectors pass as they are."""
        self.head.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
