"""The diversification block: class maps lose peaks and patches at random, so that a network looks elsewhere, too."""

import math

import torch
from torch import Tensor, nn

from gcplib.linalg.calls import is_number
from gcplib.nn.options import check_positive


class DiversificationBlock(nn.Module):
    """Suppress the peak and random patches of every class map, in training only: ``(B, classes, h, w)`` to the same.

    For each image and class by itself, with ``P = 1`` at the largest value of the class map M and 0 elsewhere,

        B' = r P,                   r ~ Bernoulli(p_peak)
        B'' = 1 in some patches,    each patch ~ Bernoulli(p_patch), and 0 at the peak
        M' = factor * M where B' + B'' = 1, and M elsewhere.

    Suppressed places pass ``factor`` of the gradient. Nothing is scaled up in return, unlike in dropout: with the
    defaults logits are about ``1 - 0.5 * 0.9`` times as large in training as in evaluation.

    Our reading: the paper's formula could not be checked. What others have written differs, and here

    - of equal largest values the first is the peak (others suppress all of them);
    - r is drawn with a fixed probability (others take the map's value at the peak);
    - patches at the lower and right border may be cut off (others never suppress what is left there);
    - the peak alone is spared by patches (others spare the whole patch that holds it).

    Args:
        p_peak: probability that the peak is suppressed, from 0 to 1.
        p_patch: probability that a patch is.
        patch: side of a patch, in positions of the map.
        factor: what is left of suppressed values, from 0 to 1.
        device: taken as by all blocks, like ``dtype``, but there are no weights.

    Raises:
        ValueError: a setting is out of its range.

    Source: Sun et al., AAAI 2020 (arXiv 1912.06842), with its settings.

    >>> DiversificationBlock(p_peak=1, p_patch=0)(torch.tensor([[[[1.0, 3.0, 2.0]]]]))
    tensor([[[[1.0000, 0.3000, 2.0000]]]])
    """

    def __init__(
        self, *, p_peak: float = 0.5, p_patch: float = 0.5, patch: int = 3, factor: float = 0.1, device=None, dtype=None
    ):
        super().__init__()
        for name, value in (("p_peak", p_peak), ("p_patch", p_patch), ("factor", factor)):
            if not (is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
        check_positive("patch", patch)
        self.p_peak, self.p_patch, self.patch, self.factor = p_peak, p_patch, patch, factor

    def forward(self, maps: Tensor) -> Tensor:
        """Return the suppressed maps in training, the maps themselves in evaluation.

        Raises:
            ValueError: not ``(B, classes, h, w)``, or no positions.
        """
        if maps.dim() != 4 or 0 in maps.shape[2:]:
            raise ValueError(f"expected class maps (B, classes, h, w) with positions, got {tuple(maps.shape)}")
        if not maps.is_floating_point():
            raise TypeError(f"expected floating-point class maps, got {maps.dtype}")
        return maps * self.weights(maps.detach()) if self.training else maps

    def weights(self, maps: Tensor) -> Tensor:
        """Draw what the maps are multiplied by: ``factor`` or 1 at every position, of the maps' shape and dtype."""
        rows, columns = (torch.arange(side, device=maps.device) // self.patch for side in maps.shape[2:])
        grid = (math.ceil(side / self.patch) for side in maps.shape[2:])
        # Columns first, while there are few rows.
        weights = self._draw(self.p_patch, maps, *grid).index_select(3, columns).index_select(2, rows)
        # max names the first of equal values, like argmax, in half of its time on a CPU.
        peak = maps.flatten(2).max(-1, keepdim=True).indices
        return weights.flatten(2).scatter_(-1, peak, self._draw(self.p_peak, maps, 1)).view_as(maps)

    def _draw(self, probability: float, maps: Tensor, *shape: int) -> Tensor:
        """Return ``factor`` with a probability, else 1, for every image and class: ``(B, classes, *shape)``."""
        hit = torch.rand(*maps.shape[:2], *shape, device=maps.device) < probability
        return maps.new_ones(hit.shape).masked_fill_(hit, self.factor)

    def extra_repr(self) -> str:
        return f"p_peak={self.p_peak}, p_patch={self.p_patch}, patch={self.patch}, factor={self.factor}"
