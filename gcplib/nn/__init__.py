"""Layers: thin modules over ``gcplib.linalg``."""

from gcplib.nn.base import AveragePool
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool
from gcplib.nn.coarse2fine import Coarse2Fine
from gcplib.nn.diversify import DiversificationBlock
from gcplib.nn.gate import (
    ChannelGate,
    FusedGate,
    PositionGate,
    SqueezeExcitation,
    create_gate,
    equal_width,
    insert_gates,
    list_gates,
)
from gcplib.nn.gaussian import GaussianPool
from gcplib.nn.invariant import D4, InvariantPool, StiefelProjection, d4_views, random_view
from gcplib.nn.log import LogPool
from gcplib.nn.losses import get_loss, gradient_boosting_cross_entropy, list_losses
from gcplib.nn.pooling import CovariancePool, NewtonSchulzPool
from gcplib.nn.registry import create_pool, list_pools
from gcplib.nn.scaling_eigen import amplify, list_amplifiers

__all__ = [
    "D4",
    "AveragePool",
    "BilinearPool",
    "ChannelGate",
    "Coarse2Fine",
    "CompactBilinearPool",
    "CovariancePool",
    "DiversificationBlock",
    "FusedGate",
    "GaussianPool",
    "InvariantPool",
    "LogPool",
    "NewtonSchulzPool",
    "PositionGate",
    "SqueezeExcitation",
    "StiefelProjection",
    "amplify",
    "create_gate",
    "create_pool",
    "d4_views",
    "equal_width",
    "get_loss",
    "gradient_boosting_cross_entropy",
    "insert_gates",
    "list_amplifiers",
    "list_gates",
    "list_losses",
    "list_pools",
    "random_view",
]
