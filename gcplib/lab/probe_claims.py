"""What probes of a frozen network say about the claims that compare poolings: effects on one data set."""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from gcplib.lab.analysis.statistics import crossed_interval
from gcplib.lab.probe_questions import BESIDE, POOLS, POWERS, WITH_TOKEN, equal_width
from gcplib.lab.probe_report import strongest_average
from gcplib.lab.probing import Result
from gcplib.lab.study.verdicts import Evidence

__all__ = ["difference_of", "probe_effects", "stage_of"]


def difference_of(first: Result, second: Result, name: str, shift: float = 0.0) -> Evidence:
    """Return how many points more of the test images the first probe tells.

    The interval is over seeds crossed with test images, Student's: a bootstrap's end would stand at zero where the one
    probe is right on one image more than the other. ``n`` is the number of images. What is added to the difference,
    such as a point that a claim allows, was fixed beforehand.
    """
    interval = crossed_interval(100.0 * first.correct - 100.0 * second.correct).shift(shift)
    return Evidence(name, interval.mean, interval.low, interval.high, first.correct.shape[1])


def stage_of(stage: str) -> str:
    """Return a stage as effects name it: ``stride16`` is ``stride 16``."""
    return stage.replace("stride", "stride ")


def probe_effects(results: list[Result], labels: str = "fine") -> dict[str, list[Evidence]]:
    """Return the effects that probes measure, by claim; a claim whose probes are not there is left out.

    At equal stage, second order has as many channels as were asked for, up to 128: the widest. Where a claim leaves
    open which of several probes stands for it, it is the best on validation images; the best of several opponents is
    the best on test images, which can only err against the claim.
    """
    at = {(found.what, found.width, found.stage): found for found in results}
    stages = [found.stage for found in results if found.what == "average"]
    narrow = {stage: equal_width(at["average", 0, stage].length) for stage in stages}
    wide = {stage: max(width for what, width, of in at if (what, of) == ("root", stage)) for stage in stages}
    own, last, on = at["own average", 0, "own"], stages[-1], f"{labels} labels"
    # Earlier stages than the last two are read for the figure of stages, and decide nothing, by the protocol.
    deciding = [found for found in results if found.stage not in stages[:-2]]
    roots = [found for found in deciding if found.what == "root"]
    effects: dict[str, list[Evidence]] = {id: [] for id in ("C01", "C02", "C04", "C32", "C33", "C35", "C36")}

    def compare(claim: str, first: tuple, second: tuple, name: str) -> None:
        if first in at and second in at and first != second:
            effects[claim].append(difference_of(at[first], at[second], f"{name}, {on}"))

    for stage in stages:
        where, average, root = stage_of(stage), ("average", 0, stage), ("root", wide[stage], stage)
        compare("C01", root, average, f"root minus average, {where}")
        compare("C01", ("root", narrow[stage], stage), average, f"root as long as the average minus it, {where}")
        compare("C02", root, ("covariance", wide[stage], stage), f"root minus covariance, {where}")
        compare("C04", ("Gaussian", wide[stage], stage), root, f"Gaussian minus root, {where}")
        compare("C35", ("sparse inverse", wide[stage], stage), root, f"sparse inverse minus root, {where}")
        if powers := [found for found in results if found.what in POWERS and found.stage == stage]:
            width = powers[0].width
            best = max(*powers, at["covariance", width, stage], key=lambda found: np.mean(found.correct))
            name = f"lead of power 1/2 over the best other power, plus one point, {where}, {on}"
            effects["C02"].append(difference_of(at["root", width, stage], best, name, 1))
    name = f"root of the stage chosen on validation images minus the best average, {on}"
    effects["C01"].append(difference_of(max(roots, key=attrgetter("validation")), strongest_average(deciding), name))
    second = [found for found in results if found.what in POOLS and found.stage == last]
    name = f"second order chosen on validation images, last stage, minus the own average, minus one point, {on}"
    effects["C36"].append(difference_of(max(second, key=attrgetter("validation")), own, name, -1))
    beside = [(BESIDE + what, wide[last], last) for what in ("root", "covariance")]
    compare("C33", *beside, f"{BESIDE}root minus {BESIDE}covariance")
    # The claim is about class tokens; what a convolutional network has instead is shown beside it.
    moments = "Moment Probing"
    compare("C32", (moments, 0, WITH_TOKEN + last), ("class token", 0, "tokens"), f"{moments} minus class token")
    compare("C32", (moments, 0, last), ("own average", 0, "own"), f"{moments} minus own average")
    return {claim: found for claim, found in effects.items() if found}
