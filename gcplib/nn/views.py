"""The eight views of an image, which are the symmetries of the square, and models that see them.

They form the group D4. The mean over all eight views is invariant whatever the network is, because transforming the
image only reorders the sum. Every pool of this library takes features ``(B, V, C, H, W)`` of V views.
"""

import torch
from torch import Tensor, nn

from gcplib.nn.base import Network
from gcplib.nn.options import check_known

# r turns by 90 degrees against the clock, f mirrors left and right; "rf" mirrors first.
D4 = ("e", "r", "r2", "r3", "f", "rf", "r2f", "r3f")

# Which views a network sees: all of them; in training a random one of each image and else the first; or the first.
VIEWS = ("all", "random", "upright")


def d4_views(x: Tensor) -> Tensor:
    """Return the eight views of square images, in the order of ``D4``: ``(B, C, H, H)`` to ``(B, 8, C, H, H)``.

    Raises:
        ValueError: not four dimensions, or images that are not square.

    Source: IDCCP (Wang et al., TGRS 2021). The released code turns the other way and mirrors up and down: the same
    eight views in another order.

    >>> d4_views(torch.tensor([[[[1, 2], [3, 4]]]]))[0, [0, 1, 4, 5], 0].tolist()
    [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[2, 1], [4, 3]], [[1, 3], [2, 4]]]
    """
    if x.dim() != 4:
        raise ValueError(f"expected images (B, C, H, W), got {tuple(x.shape)}")
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"only squares look the same size after a quarter turn, got images of {x.shape[-2]} x {x.shape[-1]}; "
            "crop them to squares first"
        )
    return torch.stack([torch.rot90(y, k, (-2, -1)) for y in (x, x.flip(-1)) for k in range(4)], dim=1)


def random_view(views: Tensor) -> Tensor:
    """Return one view of each image, drawn from torch's global generator: ``(B, V, ...)`` to ``(B, ...)``.

    Raises:
        ValueError: no dimension of views, or no views.
    """
    if views.dim() < 2 or views.shape[1] == 0:
        raise ValueError(f"expected views (B, V, ...) with at least one view, got {tuple(views.shape)}")
    which = torch.randint(views.shape[1], (len(views),), device=views.device)
    return views[torch.arange(len(views), device=views.device), which]


def laid_out_as(x: Tensor, images: Tensor) -> Tensor:
    """Return the images with channels last in memory if x has them so: convolutions are faster, turning loses it."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last) if last else images


class D4Views(Network):
    """A model that sees the eight views of square images ``(B, 3, H, H)``; its logits are those of the model.

    Args:
        model: with ``forward_features`` and ``forward_head``, such as ``gcplib.create_model`` makes.
        mode: ``all``, features of all views pooled as one, so that the logits are invariant; ``random``, in training a
            random view of each image and in evaluation the image itself; ``upright``, the image itself.

    Raises:
        ValueError: unknown mode, or all views for a head that diversifies class maps. TypeError: another model.

    Source: the mean of the views' covariances: IDCCP (Wang et al., TGRS 2021).
    """

    def __init__(self, model: nn.Module, *, mode: str = "all"):
        super().__init__()
        check_known("mode of views", mode, VIEWS)
        if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
            raise TypeError(f"views need a model with forward_features and forward_head, got {type(model).__name__}")
        if mode == "all" and getattr(getattr(model, "head", None), "diversify", None) is not None:
            raise ValueError("diversification needs the class maps of one image, got all views")
        self.model, self.mode = model, mode

    @property
    def backbone(self) -> nn.Module:
        return self.model.backbone

    @property
    def head(self) -> nn.Module:
        return self.model.head

    def forward_features(self, x: Tensor) -> Tensor:  # of all views (B, 8, C, h, w)
        if self.mode == "all":
            views = d4_views(x)
            return self.model.forward_features(laid_out_as(x, views.flatten(0, 1))).unflatten(0, views.shape[:2])
        if self.mode == "random" and self.training:
            x = laid_out_as(x, random_view(d4_views(x)))
        return self.model.forward_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.model.forward_head(x, pre_logits=pre_logits)

    def extra_repr(self) -> str:
        return f"mode={self.mode}"
