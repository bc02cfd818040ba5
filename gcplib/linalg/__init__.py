"""Pure tensor mathematics of covariance pooling: no modules, no files."""

from gcplib.linalg.approximations import accelerated_function, newton_schulz_function, pade_function, taylor_function
from gcplib.linalg.covariance import VECTOR_ORDER, center, covariance, gaussian_embedding, second_moment, triu_vector
from gcplib.linalg.eigensets import (
    EigenvalueSet,
    band,
    bottom,
    get_eigenvalue_set,
    list_eigenvalue_sets,
    random_set,
    top,
)
from gcplib.linalg.functions import SpectralFunction, get_function, list_functions, power
from gcplib.linalg.gradients import (
    GradientRule,
    clip,
    get_rule,
    list_rules,
    newton,
    pade,
    pade_released,
    power_iteration,
    taylor,
    top_n,
)
from gcplib.linalg.iterations import accelerated_newton_schulz, lyapunov, newton_schulz, pade_root, taylor_root
from gcplib.linalg.rule import truncate
from gcplib.linalg.spectral import ROUTES, check_map, covariance_map, invsqrtm, logm, powm, spectral_map, sqrtm
from gcplib.linalg.tolerance import NonFiniteError, rank_tolerance, spectral_dtype

__all__ = [
    "ROUTES",
    "VECTOR_ORDER",
    "EigenvalueSet",
    "GradientRule",
    "NonFiniteError",
    "SpectralFunction",
    "accelerated_function",
    "accelerated_newton_schulz",
    "band",
    "bottom",
    "center",
    "check_map",
    "clip",
    "covariance",
    "covariance_map",
    "gaussian_embedding",
    "get_eigenvalue_set",
    "get_function",
    "get_rule",
    "invsqrtm",
    "list_eigenvalue_sets",
    "list_functions",
    "list_rules",
    "logm",
    "lyapunov",
    "newton",
    "newton_schulz",
    "newton_schulz_function",
    "pade",
    "pade_function",
    "pade_released",
    "pade_root",
    "power",
    "power_iteration",
    "powm",
    "random_set",
    "rank_tolerance",
    "second_moment",
    "spectral_dtype",
    "spectral_map",
    "sqrtm",
    "taylor",
    "taylor_function",
    "taylor_root",
    "top",
    "top_n",
    "triu_vector",
    "truncate",
]
