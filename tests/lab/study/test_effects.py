"""Effects by seed, and the evidence that is made of them."""

import pandas as pd

from gcplib.lab.study import effects_of, evidence_of


def test_evidence_is_of_one_claim_and_of_two_seeds_or_more():
    effects = pd.concat(
        [
            effects_of("C20", "decades", {"b": {0: 1.0, 1: 3.0}, "a": pd.Series([2.0, 2.0])}),
            effects_of("C20", "points", {"few": {0: 1.0}, "none": {}}),
            effects_of("", "decades", {"length": {0: 1.0, 1: 1.0}}),
        ]
    )
    found = evidence_of(effects, "C20")
    assert [(item.name, item.effect, item.n, item.unit) for item in found] == [
        ("b", 2.0, 2, "decades"),
        ("a", 2.0, 2, "decades"),
    ]
    assert evidence_of(effects, "C21") == []
