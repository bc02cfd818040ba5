"""Global covariance pooling for fine-grained visual recognition.

>>> import torch, gcplib
>>> pool = gcplib.create_pool("mpn_cov", in_channels=112, reduction=64)
>>> pool(torch.randn(4, 112, 14, 14)).shape
torch.Size([4, 2080])
"""

from gcplib.models import create_backbone, create_model
from gcplib.nn import CovariancePool, create_pool, list_pools

__version__ = "0.1.0"

__all__ = ["CovariancePool", "create_backbone", "create_model", "create_pool", "list_pools"]
