"""Functions, rules and sets are plain values: what they are does not depend on which object holds them."""

import copy
import io
import multiprocessing
import pickle
from dataclasses import replace

import pytest
import torch

from gcplib.linalg import (
    SpectralFunction,
    covariance_map,
    get_eigenvalue_set,
    get_function,
    get_rule,
    list_eigenvalue_sets,
    list_functions,
    list_rules,
    truncate,
)
from gcplib.linalg.calls import Partial, read_call, resolve, write_call

NAMED = {
    get_function: "power(0.25) power(-1.5) power(0.1234567891234567) newton_schulz(3) accelerated(3,1e-05) taylor(4)",
    get_rule: "clip(1e3) top_n(3) power_iteration(7) newton(5) taylor(9) pade(17.5) pade_released(50,30)",
    get_eigenvalue_set: "top(3) energy_top(0.1234567891234567) energy_random(0.3,7)",
}
LISTED = {get_function: list_functions, get_rule: list_rules, get_eigenvalue_set: list_eigenvalue_sets}
TEXTS = [(get, text) for get, texts in NAMED.items() for text in (*texts.split(), *LISTED[get]()) if text != "power"]


def shifted(lam):
    return lam + 1


def one(a, b):
    return torch.ones_like(a + b)


def doubled(q, lam):
    return torch.full_like(q[..., :1], 2.0), torch.zeros_like(q), torch.zeros_like(q)


def objects():
    """Everything that has a name, and what can be made of it."""
    made = [get(text) for get, text in TEXTS]
    for name in ("exact", "original", "newton(5)", "taylor"):
        for where in ("both", "forward", "backward"):
            made += [truncate(name, keep, where) for keep in ("top(3)", "random(3, 1)", "energy_bottom(0.5)")]
    own = SpectralFunction("own", shifted, one, zero=1.0, smooth=True)
    return [*made, own, replace(get_function("sqrt"), name="gain", gain=doubled, base=get_function("sqrt"))]


def results(value):
    """What an object computes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 60, 90, dtype=torch.float64, generator=generator)
    if isinstance(value, SpectralFunction):
        lam = x[0, 0].abs()
        return value.value(lam), value.quotient(lam, lam.flip(0))
    if hasattr(value, "ranks"):
        return (value.mask(x[0].abs().sort(-1).values),)
    out = covariance_map(x.requires_grad_(), "sqrt", value, route="full")
    return out.detach(), torch.autograd.grad(out.cos().sum(), x)[0]


def pickled(value):
    return pickle.loads(pickle.dumps(value))


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def same(a, b):
    return all(torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("over", [copy.deepcopy, pickled, saved])
def test_copies_are_equal_and_compute_the_same(over):
    for value in objects():
        got = over(value)
        assert got == value
        assert hash(got) == hash(value)
        assert str(got) == str(value)
        assert same(results(got), results(value)), value


def _there(values):
    return values, [results(value) for value in values]


@pytest.mark.slow
def test_another_process_gives_equal_objects_that_compute_the_same():
    values = objects()
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        back, found = pool.apply(_there, (values,))
    assert back == values
    for value, got in zip(values, found, strict=True):
        for a, b in zip(got, results(value), strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize(("get", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_text_is_read_back_to_an_equal_object(get, text):
    made = get(text)
    assert get(str(made)) == made == get(made)


def test_another_default_device_or_dtype_changes_nothing():
    values = objects()
    try:
        torch.set_default_dtype(torch.float16)
        with torch.device("meta"):
            made = objects()
        assert made == values
        random = get_eigenvalue_set("random(3, 1)")
        lam = torch.arange(1.0, 7.0, dtype=torch.float64, device="cpu")
        with torch.device("meta"):
            drawn = random.mask(lam)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(drawn, random.mask(lam))


def test_objects_of_other_settings_differ():
    values = objects()
    for number, value in enumerate(values):
        others = [other for place, other in enumerate(values) if place != number and str(other) != str(value)]
        assert value not in others
    assert get_rule("taylor") == get_rule("taylor(100)")
    assert get_rule("taylor") != get_rule("taylor(99)")
    assert get_function("power(0.5)") == get_function("sqrt")
    assert replace(get_function("sqrt"), value=shifted) != get_function("sqrt")


def test_copies_of_the_root_take_what_the_root_takes():
    # Rules of the square root alone know it by its value.
    x = torch.randn(4, 9)
    torch.testing.assert_close(
        covariance_map(x, copy.deepcopy(get_function("sqrt")), copy.deepcopy(get_rule("lyapunov"))),
        covariance_map(x, "sqrt", "lyapunov"),
    )
    assert copy.deepcopy(get_rule("exact")).any_route


def test_settings_are_written_as_they_are_read():
    for settings in ((1,), (0.25, 3), (1e-5,), (1e300,), (-0.1234567890123456,), (10**18,)):
        assert read_call(write_call("name", *settings)) == ("name", settings, {})
    assert write_call("name", 9, defaults=(9,)) == write_call("name") == "name"


def test_partial_functions_compare_by_function_and_settings():
    assert Partial(pow, 2) == Partial(pow, 2)
    assert len({Partial(pow, 2), Partial(pow, 2), Partial(pow, 3), Partial(max, 2)}) == 3


@pytest.mark.parametrize(
    ("get", "text", "message"),
    [
        (get_function, "sqr", "unknown spectral function 'sqr'; did you mean 'sqrt'"),
        (get_function, "sqrt(3)", "'sqrt' has no settings"),
        (get_function, "power", "'power': .* missing 1 required positional argument: 'exponent'"),
        (get_function, "power(0)", "other than 0, got 0"),
        (get_function, "power('a')", "power"),
        (get_rule, "exakt", "unknown gradient rule 'exakt'; did you mean 'exact'"),
        (get_rule, "taylor(degree=9, x=1)", "unexpected keyword argument 'x'"),
        (get_eigenvalue_set, "topp(3)", r"unknown set of eigenvalues 'topp'; did you mean 'top'\? known: top, bottom"),
        (get_eigenvalue_set, "top(3", "cannot read"),
    ],
)
def test_errors_say_what_is_known(get, text, message):
    with pytest.raises(ValueError, match=message):
        get(text)


@pytest.mark.parametrize("get", [get_function, get_rule, get_eigenvalue_set])
def test_neither_text_nor_object(get):
    with pytest.raises(TypeError, match="is text or a"):
        get(5)


def test_factories_are_called_by_keyword_as_well():
    assert get_rule("taylor(degree=9)") == get_rule("taylor(9)")
    assert resolve(int, "number", "n(3)", {"n": int}) == 3
