"""Products of float32 matrices in float32, whatever the process allows its other products."""

import torch
from torch import Tensor

# What torch calls full precision; unset is full precision, too.
FULL = ("ieee", "none")


def lowered(device: str) -> bool:
    """Say whether the process lets float32 products on a kind of device lose digits."""
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    return backend.matmul.fp32_precision not in FULL


def _lowered(device: str) -> bool:
    if torch.compiler.is_compiling():
        from gcplib.linalg import graph_constants

        return graph_constants.lowered(device)
    return lowered(device)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``A B`` of ``(..., n, k)`` and ``(..., k, m)``, never in TF32 or bf16.

    ``torch.set_float32_matmul_precision("high")`` would take three digits from every product of a square root, with no
    word. The setting belongs to the whole process, and other threads may rely on it, so it is not touched: where it
    is lowered, float32 products are computed in float64.
    """
    if a.dtype == torch.float32 and _lowered(a.device.type):
        return (a.double() @ b.double()).to(a.dtype)
    return a @ b


def add_product(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1.0, alpha: float = 1.0) -> Tensor:
    """Return ``beta C + alpha A B`` of ``(n, d, d)``, the product as in ``product``."""
    if a.dtype == torch.float32 and _lowered(a.device.type):
        return torch.baddbmm(c.double(), a.double(), b.double(), beta=beta, alpha=alpha).to(a.dtype)
    return torch.baddbmm(c, a, b, beta=beta, alpha=alpha)
