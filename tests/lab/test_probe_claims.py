"""The effects that probes measure for the claims: their names are those that decide, and they are what they say."""

import numpy as np
import pytest

from gcplib.lab.probe_claims import probe_effects
from gcplib.lab.probing import Result
from gcplib.lab.study.verdicts import assess, claims

IMAGES = 1000


def read(what, rate, width=0, stage="stride32", order=2, validation=0.0, length=320):
    """A probe that tells the first ``rate`` of the images."""
    correct = np.tile(np.arange(IMAGES) < rate * IMAGES, (2, 1))
    return Result(what, stage, order, correct, length, 1, 0.1, [1.0], False, validation, width)


def of_stage(stage, average, covariance, root, gaussian, sparse, powers):
    found = [read("average", average, stage=stage, order=1)]
    for width, less in ((24, 0.05), (64, 0.0)):
        rates = {"covariance": covariance, "root": root, "Gaussian": gaussian}
        found += [read(what, rate - less, width, stage, validation=rate - less) for what, rate in rates.items()]
    more = {"sparse inverse": sparse, "power 1/4": powers[0], "power 3/4": powers[1]}
    return found + [read(what, rate, 64, stage) for what, rate in more.items()]


@pytest.fixture
def results():
    found = [read("own average", 0.80, stage="own", order=1, length=1280)]
    found += of_stage("stride16", 0.40, 0.70, 0.75, 0.78, 0.60, (0.72, 0.76))
    found += of_stage("stride32", 0.70, 0.80, 0.85, 0.84, 0.90, (0.80, 0.81))
    found += [read("own average and covariance", 0.86, 64), read("own average and root", 0.88, 64)]
    return [*found, read("Moment Probing", 0.82)]


def test_every_claim_of_probes_gets_the_effects_that_decide_it(results):
    effects = probe_effects(results)
    assert list(effects) == ["C01", "C02", "C04", "C32", "C33", "C35", "C36"]
    for claim, found in effects.items():
        # Of a network without a class token, C32 has none.
        assert (assess(claim, found).missing == ()) == (claim != "C32"), claim
    assert not any(claims()["C32"].is_primary(effect.name) for effect in effects["C32"])
    sizes = {effect.name.removesuffix(", fine labels"): effect.effect for found in effects.values() for effect in found}
    assert sizes == pytest.approx(
        {
            "root minus average, stride 16": 35,
            "root as long as the average minus it, stride 16": 30,
            "root minus average, stride 32": 15,
            "root as long as the average minus it, stride 32": 10,
            # The own average is the best; the root of stride 32 has the best validation.
            "root of the stage chosen on validation images minus the best average": 5,
            "root minus covariance, stride 16": 5,
            "root minus covariance, stride 32": 5,
            "lead of power 1/2 over the best other power, plus one point, stride 16": 0,
            "lead of power 1/2 over the best other power, plus one point, stride 32": 5,
            "Gaussian minus root, stride 16": 3,
            "Gaussian minus root, stride 32": -1,
            "Moment Probing minus own average": 2,
            "own average and root minus own average and covariance": 2,
            "sparse inverse minus root, stride 16": -15,
            "sparse inverse minus root, stride 32": 5,
            "second order chosen on validation images, last stage, minus the own average, minus one point": 4,
        }
    )
    assert assess("C01", effects["C01"]).words == "holds at equal stage; holds against the strongest average"
    assert assess("C35", effects["C35"]).verdict == "holds in part"
    assert {effect.n for found in effects.values() for effect in found} == {IMAGES}


def test_what_was_not_asked_is_left_out(results):
    plain = ("own average", "average", "covariance", "root", "Gaussian")
    effects = probe_effects([found for found in results if found.what in plain], "coarse")
    assert list(effects) == ["C01", "C02", "C04", "C36"]
    assert all(effect.name.endswith(", coarse labels") for found in effects.values() for effect in found)
    assert assess("C02", effects["C02"]).verdict == "not tested"  # its primary effects are of fine labels


def test_the_choice_among_several_is_made_by_validation_images(results):
    before = probe_effects(results)["C36"][0].effect
    other = read("Gaussian", 0.99, 128, validation=0.1)  # the best on test images, and not on validation images
    assert probe_effects([*results, other])["C36"][0].effect == before


def test_stages_before_the_last_two_decide_nothing(results):
    early = of_stage("stride8", 0.97, 0.98, 0.99, 0.5, 0.5, (0.5, 0.5))
    name = "root of the stage chosen on validation images minus the best average, fine labels"
    both = [probe_effects(found)["C01"] for found in (results, [*results[:1], *early, *results[1:]])]
    before, after = ({effect.name: effect.effect for effect in found} for found in both)
    assert after[name] == before[name]
    assert after["root minus average, stride 8, fine labels"] == pytest.approx(2)
