"""Pure tensor mathematics of covariance pooling: no modules, no files."""

from gcplib.linalg.approximations import newton_schulz_function, pade_function, taylor_function
from gcplib.linalg.covariance import VECTOR_ORDER, center, covariance, gaussian_embedding, second_moment, triu_vector
from gcplib.linalg.functions import SpectralFunction, list_functions, power
from gcplib.linalg.gradients import list_rules
from gcplib.linalg.iterations import newton_schulz
from gcplib.linalg.spectral import ROUTES, check_map, covariance_map, powm, spectral_map, sqrtm
from gcplib.linalg.tolerance import NonFiniteError, rank_tolerance, spectral_dtype

__all__ = [
    "ROUTES",
    "VECTOR_ORDER",
    "NonFiniteError",
    "SpectralFunction",
    "center",
    "check_map",
    "covariance",
    "covariance_map",
    "gaussian_embedding",
    "list_functions",
    "list_rules",
    "newton_schulz",
    "newton_schulz_function",
    "pade_function",
    "power",
    "powm",
    "rank_tolerance",
    "second_moment",
    "spectral_dtype",
    "spectral_map",
    "sqrtm",
    "taylor_function",
    "triu_vector",
]
