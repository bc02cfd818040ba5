"""Measuring: statistics over seeds and images, maps of eigenvalues, and figures.

What is the subject of one notebook stands in that notebook. The rest is here, and imported when it is first asked for.
"""

from importlib import import_module

_HOMES = {
    "bands": "all_but band_roots ridge_probe",
    "convergence": "Convergence guessing progress_over standing",
    "costs": "count_parameters overhead",
    "crossed": "Crossed grouped_plot",
    "curves": "curves_of draw_curves",
    "deletion": "deletion_insertion",
    "landscape": "find_stem loss_behind_stem lost_rows models_from_one_start rows_along value_and_gradient",
    "lengths": "mean_squared_length",
    "localization": "auc energy_inside enlarge near pointing_game score_maps",
    "paired": "Paired",
    "perturbation": "blurred extremal_map occlusion_map pixel_gradient_map",
    "plots": "POOL_LABELS compare_plot in_words interval_curve interval_plot legend_below pool_palette "
    "quantile_curve use_style",
    "retrieval": "nearest",
    "smoothness": "Smoothness effective_smoothness largest_hessian_eigenvalue mean_logs measure_while_training "
    "smoothness_while_training",
    "spectral_scores": "class_matrices differentiable_scores get_spectrum set_scores spectra",
    "speed": "censored_mean epochs_to now seconds_to step_times take_turns times_to",
    "spread": "attention_entropy positions_holding",
    "statistics": "Interval crossed_interval mean_interval paired_difference share_interval",
    "twins": "confused_pairs confused_twins draw_evidence twin_scores",
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = list(_PLACES)


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
