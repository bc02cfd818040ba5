"""What a compiled graph takes as a constant, imported by graphs alone.

``torch.compiler.assume_constant_result`` loads torch's compiler, which takes as long as torch itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gcplib.linalg import eigenvalue_sets, products

if TYPE_CHECKING:
    from torch import Tensor


@torch.compiler.assume_constant_result
def exporting() -> bool:
    """Say whether torch.export is tracing. In torch.compile, ``is_exporting`` itself is always true in torch 2.11."""
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def lowered(device: str) -> bool:
    """Like ``products.lowered``; a graph is compiled anew when the setting changes, as torch guards it."""
    return products.lowered(device)


@torch.compiler.assume_constant_result
def priorities(seed: int) -> Tensor:
    """Like ``eigenvalue_sets.priorities``; a random generator cannot be made inside a compiled graph."""
    return eigenvalue_sets.priorities(seed)
