"""Pools of one's own by name."""

import re

import pytest
from torch import nn

from gcplib import create_pool, list_pools
from gcplib.nn import UnknownOptionError, register_pool, registry


@pytest.fixture(autouse=True)
def only_here(monkeypatch):
    monkeypatch.setattr(registry, "POOLS", dict(registry.POOLS))
    monkeypatch.setattr(registry, "_ADDED", set())


class Own(nn.Module):
    def __init__(self, in_channels, *, exponent=0.5):
        super().__init__()
        self.out_features, self.exponent = in_channels, exponent


class Newer(Own):
    pass


def test_a_cut_has_a_number_or_a_rule():
    with pytest.raises(ValueError, match="a number to drop or a rule, not both: 6 and original"):
        create_pool("svd_top_n", 8, drop=6, rule="original")


def test_a_registered_pool_is_made_by_name():
    register_pool("own", Own)
    assert list_pools()[-1] == "own"
    pool = create_pool("own", 8, exponent=0.25)
    assert (type(pool), pool.out_features, pool.exponent) == (Own, 8, 0.25)
    with pytest.raises(UnknownOptionError, match=r"exponents.*exponent"):
        create_pool("own", 8, exponents=1)


def test_registered_again_it_is_the_new_one():
    register_pool("own", Own)
    register_pool("own", Newer)
    assert type(create_pool("own", 8)) is Newer
    assert list_pools().count("own") == 1


def test_pools_of_the_library_are_not_replaced():
    with pytest.raises(ValueError, match="needs a name that the library does not have, got 'gap'"):
        register_pool("gap", Own)
    with pytest.raises(ValueError, match="got ''"):
        register_pool("", Own)
    with pytest.raises(TypeError, match="made by a class or function, got str: 'gap'"):
        register_pool("own", "gap")
    with pytest.raises(TypeError, match="made by a class or function, got Own: Own"):
        register_pool("own", Own(8))


def test_a_pool_whose_options_nobody_knows_is_refused_at_once():
    def make(in_channels, **options):
        return Own(in_channels, **options)

    with pytest.raises(TypeError, match=r"make hands options on .* needs the class that it returns"):
        register_pool("own", make)
    make.__annotations__["return"] = Own
    register_pool("own", make)
    assert create_pool("own", 8, exponent=0.25).exponent == 0.25


@pytest.mark.parametrize(
    ("name", "option", "least"),
    [
        ("isqrt_cov", "steps", "an integer from 1"),
        ("mpn_cov", "exponent", "positive"),
        ("isice", "step_size", "above 0"),
        ("isice", "sparsity", "0 or more"),
        ("dropcov", "preserve", "above 0"),
    ],
)
@pytest.mark.parametrize("value", ["5", True, float("nan")])
def test_a_setting_that_is_no_number_is_refused_by_name(name, option, least, value):
    with pytest.raises(ValueError, match=f"must be {least}.*{re.escape(repr(value))}"):
        create_pool(name, 8, **{option: value})
