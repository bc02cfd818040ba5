"""Layers: thin modules over ``gcplib.linalg``."""

from gcplib.nn.base import AveragePool
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool
from gcplib.nn.coarse2fine import Coarse2Fine
from gcplib.nn.diversify import DiversificationBlock
from gcplib.nn.dropcov import DropCovPool, drop_probability
from gcplib.nn.gate import FusedGate, create_gate, equal_width, insert_gates, list_gates
from gcplib.nn.gate_blocks import ChannelGate, PositionGate, SqueezeExcitation
from gcplib.nn.invariant import InvariantPool, StiefelProjection
from gcplib.nn.losses import GradientBoostingLoss, get_loss, gradient_boosting_cross_entropy, list_losses
from gcplib.nn.moment_probing import MomentProbingPool
from gcplib.nn.options import UnknownOptionError
from gcplib.nn.pooling import CovariancePool, GaussianPool, LogPool, NewtonSchulzPool
from gcplib.nn.registry import create_pool, list_pools, register_pool
from gcplib.nn.scaling_eigen import Amplifier, amplify, list_amplifiers
from gcplib.nn.sparse_inverse import SparseInversePool
from gcplib.nn.views import D4, D4Views, d4_views, random_view

__all__ = [
    "D4",
    "Amplifier",
    "AveragePool",
    "BilinearPool",
    "ChannelGate",
    "Coarse2Fine",
    "CompactBilinearPool",
    "CovariancePool",
    "D4Views",
    "DiversificationBlock",
    "DropCovPool",
    "FusedGate",
    "GaussianPool",
    "GradientBoostingLoss",
    "InvariantPool",
    "LogPool",
    "MomentProbingPool",
    "NewtonSchulzPool",
    "PositionGate",
    "SparseInversePool",
    "SqueezeExcitation",
    "StiefelProjection",
    "UnknownOptionError",
    "amplify",
    "create_gate",
    "create_pool",
    "d4_views",
    "drop_probability",
    "equal_width",
    "get_loss",
    "gradient_boosting_cross_entropy",
    "insert_gates",
    "list_amplifiers",
    "list_gates",
    "list_losses",
    "list_pools",
    "random_view",
    "register_pool",
]
