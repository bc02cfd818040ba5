"""Layers: thin modules over ``gcplib.linalg``."""

from gcplib.nn.pooling import (
    AveragePool,
    BilinearPool,
    CovariancePool,
    NewtonSchulzPool,
    create_pool,
    list_pools,
)

__all__ = ["AveragePool", "BilinearPool", "CovariancePool", "NewtonSchulzPool", "create_pool", "list_pools"]
