"""Measuring: statistics over seeds and images, descriptors without training, and figures."""

from gcplib.lab.analysis.amplification import (
    energy_shares,
    output_eigenvalues,
    pass_times,
    released_factor,
    released_factor_slope,
)
from gcplib.lab.analysis.attribution import class_specificity, grad_cam_map, gradient_map, position_map
from gcplib.lab.analysis.bands import Probe, Separation, all_but, band_descriptors, class_separation, linear_probe
from gcplib.lab.analysis.comparison import compare_plot, in_words, paired_gain
from gcplib.lab.analysis.compression import head_weights, step_times
from gcplib.lab.analysis.descriptors import (
    average_descriptors,
    nearest_neighbor_hits,
    power_descriptors,
    root_estimate_error,
    same_image_hits,
    spectra,
)
from gcplib.lab.analysis.localization import auc, energy_inside, enlarge, near, pointing_game
from gcplib.lab.analysis.perturbation import blurred, extremal_map, occlusion_map, pixel_gradient_map
from gcplib.lab.analysis.plots import POOL_LABELS, interval_plot, pool_palette, use_style
from gcplib.lab.analysis.smoothness import Smoothness, effective_smoothness, gradient_field, smoothness_while_training
from gcplib.lab.analysis.spectral_scores import eigenvalue_evidence, set_scores, shuffle_classifier
from gcplib.lab.analysis.speed import censored_mean, epochs_to, seconds_to
from gcplib.lab.analysis.statistics import (
    Interval,
    crossed_interval,
    holm,
    mean_interval,
    paired_difference,
    paired_p_value,
)
from gcplib.lab.analysis.stem import find_stem
from gcplib.lab.analysis.truncation import (
    Convergence,
    Criteria,
    convergence,
    cut_weights,
    progress_ratio,
    removed_by_published_truncation,
)

__all__ = [
    "POOL_LABELS",
    "Convergence",
    "Criteria",
    "Interval",
    "Probe",
    "Separation",
    "Smoothness",
    "all_but",
    "auc",
    "average_descriptors",
    "band_descriptors",
    "blurred",
    "censored_mean",
    "class_separation",
    "class_specificity",
    "compare_plot",
    "convergence",
    "crossed_interval",
    "cut_weights",
    "effective_smoothness",
    "eigenvalue_evidence",
    "energy_inside",
    "energy_shares",
    "enlarge",
    "epochs_to",
    "extremal_map",
    "find_stem",
    "grad_cam_map",
    "gradient_field",
    "gradient_map",
    "head_weights",
    "holm",
    "in_words",
    "interval_plot",
    "linear_probe",
    "mean_interval",
    "near",
    "nearest_neighbor_hits",
    "occlusion_map",
    "output_eigenvalues",
    "paired_difference",
    "paired_gain",
    "paired_p_value",
    "pass_times",
    "pixel_gradient_map",
    "pointing_game",
    "pool_palette",
    "position_map",
    "power_descriptors",
    "progress_ratio",
    "released_factor",
    "released_factor_slope",
    "removed_by_published_truncation",
    "root_estimate_error",
    "same_image_hits",
    "seconds_to",
    "set_scores",
    "shuffle_classifier",
    "smoothness_while_training",
    "spectra",
    "step_times",
    "use_style",
]
