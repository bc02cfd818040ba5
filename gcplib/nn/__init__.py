"""Layers: thin modules over ``gcplib.linalg``."""

from gcplib.nn.base import AveragePool
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool
from gcplib.nn.pooling import CovariancePool, LogPool, NewtonSchulzPool, create_pool, list_pools

__all__ = [
    "AveragePool",
    "BilinearPool",
    "CompactBilinearPool",
    "CovariancePool",
    "LogPool",
    "NewtonSchulzPool",
    "create_pool",
    "list_pools",
]
