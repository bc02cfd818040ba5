"""Global covariance pooling for fine-grained visual recognition.

>>> import torch, gcplib
>>> pool = gcplib.create_pool("mpn_cov", in_channels=112, reduction=64)
>>> pool(torch.randn(4, 112, 14, 14)).shape
torch.Size([4, 2080])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcplib.exporting import export
    from gcplib.models import create_backbone, create_model
    from gcplib.nn import CovariancePool, create_pool, list_pools

__version__ = "1.0.0"

__all__ = ["CovariancePool", "create_backbone", "create_model", "create_pool", "export", "list_pools"]

# All others are of gcplib.nn.
_PLACES = {"create_backbone": "gcplib.models", "create_model": "gcplib.models", "export": "gcplib.exporting"}


def __getattr__(name: str):
    # Torch takes seconds to import, and drawing images or running notebooks does not need it.
    if name not in __all__:
        raise AttributeError(f"module 'gcplib' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES.get(name, "gcplib.nn")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
