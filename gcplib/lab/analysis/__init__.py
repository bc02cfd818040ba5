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
from gcplib.lab.analysis.compression import head_weights, step_times
from gcplib.lab.analysis.descriptors import (
    average_descriptors,
    nearest_neighbor_hits,
    power_descriptors,
    root_estimate_error,
    same_image_hits,
    spectra,
)
from gcplib.lab.analysis.gating import between_share, factors_replaced, gate_overhead, participation_ratio
from gcplib.lab.analysis.landscape import (
    PUBLISHED_STEPS,
    band_summary,
    loss_landscape,
    models_from_one_start,
    relative_steps,
    train_and_look,
)
from gcplib.lab.analysis.localization import auc, density_correlation, energy_inside, enlarge, near, pointing_game
from gcplib.lab.analysis.perturbation import blurred, extremal_map, occlusion_map, pixel_gradient_map
from gcplib.lab.analysis.plots import POOL_LABELS, interval_plot, pool_palette, use_style
from gcplib.lab.analysis.robustness import RelativeScore, corruption_error, flip_rate, relative_flip_rate
from gcplib.lab.analysis.smoothness import Smoothness, effective_smoothness, gradient_field, smoothness_while_training
from gcplib.lab.analysis.spectral_scores import eigenvalue_evidence, set_scores, shuffle_classifier
from gcplib.lab.analysis.speed import censored_mean, epochs_to, seconds_to
from gcplib.lab.analysis.spread import attention_entropy, class_evidence, positions_holding
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
    "PUBLISHED_STEPS",
    "Convergence",
    "Criteria",
    "Interval",
    "Probe",
    "RelativeScore",
    "Separation",
    "Smoothness",
    "all_but",
    "attention_entropy",
    "auc",
    "average_descriptors",
    "band_descriptors",
    "band_summary",
    "between_share",
    "blurred",
    "censored_mean",
    "class_evidence",
    "class_separation",
    "class_specificity",
    "convergence",
    "corruption_error",
    "crossed_interval",
    "cut_weights",
    "density_correlation",
    "effective_smoothness",
    "eigenvalue_evidence",
    "energy_inside",
    "energy_shares",
    "enlarge",
    "epochs_to",
    "extremal_map",
    "factors_replaced",
    "find_stem",
    "flip_rate",
    "gate_overhead",
    "grad_cam_map",
    "gradient_field",
    "gradient_map",
    "head_weights",
    "holm",
    "interval_plot",
    "linear_probe",
    "loss_landscape",
    "mean_interval",
    "models_from_one_start",
    "near",
    "nearest_neighbor_hits",
    "occlusion_map",
    "output_eigenvalues",
    "paired_difference",
    "paired_p_value",
    "participation_ratio",
    "pass_times",
    "pixel_gradient_map",
    "pointing_game",
    "pool_palette",
    "position_map",
    "positions_holding",
    "power_descriptors",
    "progress_ratio",
    "relative_flip_rate",
    "relative_steps",
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
    "train_and_look",
    "use_style",
]
