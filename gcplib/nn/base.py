"""What all pools share: the reduction before them, the checks of their input, and the order of their vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcplib.linalg import VECTOR_ORDER, spectral_dtype, triu_vector

__all__ = ["AveragePool", "MatrixPool", "Reduction"]

# By name, so that a pool's options are plain values and can stand in a file. None: as the features are.
COMPUTE_DTYPES = {None: None, "float32": torch.float32, "float64": torch.float64}


class Reduction(nn.Sequential):
    """1x1 convolution, batch norm, ReLU: fewer channels before a second-order pool (iSQRT-COV, section 4.1)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        )
        nn.init.kaiming_normal_(self[0].weight, mode="fan_out", nonlinearity="relu")


class AveragePool(nn.Module):
    """Global average pooling, the first-order baseline: ``(B, C, H, W)`` to ``(B, d)``.

    Args:
        in_channels: C. reduction: channels d after an optional 1x1 reduction; None keeps C.
    """

    min_positions = 1

    def __init__(self, in_channels: int, reduction: int | None = None):
        super().__init__()
        for name, value in (("in_channels", in_channels), ("reduction", reduction)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self.in_channels = in_channels
        self.channels = reduction or in_channels
        self.reduction = Reduction(in_channels, reduction) if reduction else nn.Identity()

    @property
    def out_features(self) -> int:
        """Length of the pooled vector: what the classifier needs to know."""
        return self.channels

    def pool(self, x: Tensor) -> Tensor:
        """Pool reduced features ``(B, d, M)`` in a dtype the spectral part can run in."""
        return x.mean(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)`` to ``(B, out_features)``.

        Half-precision features are pooled in float32, also under autocast; the vector is returned in float32 then.

        Raises:
            ValueError: wrong number of dimensions or channels, or too few positions to pool.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"expected features (B, {self.in_channels}, H, W), got {tuple(x.shape)}")
        if x.shape[2] * x.shape[3] < self.min_positions:
            raise ValueError(
                f"{type(self).__name__} needs at least {self.min_positions} positions, got a map of {x.shape[2]} x "
                f"{x.shape[3]}; use larger pictures or features of a smaller stride"
            )
        x = self.reduction(x).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            return self.pool(x.to(spectral_dtype(x.dtype)))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, out_features={self.out_features}"


class MatrixPool(AveragePool):
    """What the second-order pools share: a matrix ``(B, d, d)``, vectorised by its upper triangle in row order.

    Args:
        in_channels: C. reduction: channels d after an optional 1x1 reduction.
        compute_dtype: ``float32`` or ``float64`` for everything between features and vector; None takes the features'.
    """

    def __init__(self, in_channels: int, reduction: int | None = None, compute_dtype: str | None = None):
        super().__init__(in_channels, reduction)
        if compute_dtype not in COMPUTE_DTYPES:
            raise ValueError(
                f"compute_dtype must be one of {', '.join(map(str, COMPUTE_DTYPES))}, got {compute_dtype!r}"
            )
        self.compute_dtype = compute_dtype
        self.register_buffer("vector_order", torch.tensor(VECTOR_ORDER))

    @property
    def out_features(self) -> int:
        return self.channels * (self.channels + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return the representation ``(B, d, d)`` of reduced features ``(B, d, M)``."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        return triu_vector(self.matrix(x.to(COMPUTE_DTYPES[self.compute_dtype]))).to(x.dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        stored = state_dict.get(prefix + "vector_order")
        if stored is not None and int(stored) != VECTOR_ORDER:
            raise RuntimeError(
                f"the checkpoint was written with vector order {int(stored)}, this version uses {VECTOR_ORDER}: "
                "its classifier weights would be read in the wrong order"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
