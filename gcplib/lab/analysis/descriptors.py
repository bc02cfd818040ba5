"""The eigenvalues of covariances, image by image."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.linalg import covariance

__all__ = ["spectra"]


def spectra(features: Tensor) -> Tensor:
    """Return the eigenvalues of each image's covariance, largest first: ``(B, C, H, W)`` to ``(B, C)``, in float64.

    >>> spectra(torch.tensor([[[1.0, 3.0], [2.0, 2.0]]]))
    tensor([[1., 0.]], dtype=torch.float64)
    """
    # In blocks, which bound the memory at any number of images.
    blocks = [torch.linalg.eigvalsh(covariance(block.flatten(2).double())) for block in features.split(256)]
    return torch.cat(blocks).clamp_min(0).flip(-1)
