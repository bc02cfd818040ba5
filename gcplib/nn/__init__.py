"""Layers: thin modules over ``gcplib.linalg``."""

from gcplib.nn.base import AveragePool
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool
from gcplib.nn.log import LogPool
from gcplib.nn.pooling import CovariancePool, NewtonSchulzPool, create_pool, list_pools
from gcplib.nn.scaling_eigen import amplify, list_amplifiers

__all__ = [
    "AveragePool",
    "BilinearPool",
    "CompactBilinearPool",
    "CovariancePool",
    "LogPool",
    "NewtonSchulzPool",
    "amplify",
    "create_pool",
    "list_amplifiers",
    "list_pools",
]
