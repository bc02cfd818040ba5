"""The kept table of what each pool passes is what is found now."""

import pytest

from gcplib.lab.bench.transforms import CHECKS, SLOW, kept_transforms, measure_transforms
from gcplib.nn import list_pools

QUICK = [check for check in CHECKS if check not in SLOW]


@pytest.mark.parametrize("name", list_pools())
def test_quick_checks(name):
    assert measure_transforms(QUICK, [name])[name] == {check: kept_transforms()[name][check] for check in QUICK}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_pools())
def test_slow_checks(name):
    assert measure_transforms(SLOW, [name])[name] == {check: kept_transforms()[name][check] for check in SLOW}


def test_the_table_is_of_all_pools_and_reasons_are_refusals():
    kept = kept_transforms()
    assert list(kept) == list_pools()
    for name, row in kept.items():
        assert list(row) == list(CHECKS)
        for check, outcome in row.items():
            refused = outcome.startswith(("NotImplementedError: ", "ValueError: "))
            assert outcome == "yes" or (refused and check in ("double backward", "ONNX")), f"{name}, {check}: {outcome}"
