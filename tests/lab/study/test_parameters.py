import pytest

from gcplib.lab.study.parameters import Parameter, convert, fit_problem, options_of, read_parameters

CELL = """
profile = "smoke"  # name of the profile
seeds: int = 3
rate = 1e-3
pools = ["gap", "cov"]
device: str | None = None
limit = 1.0  # type: float | None  # in seconds
sizes = [1, 2.5]
anything = None
"""


def test_names_and_types_are_read_from_the_cell(world):
    found = read_parameters(world.notebook("a", parameters=CELL))
    types = ["str", "int", "float", "list[str]", "str | None", "float | None", "list[float]", "Any"]
    assert [parameter.type for parameter in found.values()] == types
    assert list(found) == ["profile", "seeds", "rate", "pools", "device", "limit", "sizes", "anything"]
    assert found["pools"].default == ["gap", "cov"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a = 1\nb = a * 2", "parameter 'b' must be a literal"),
        ("import os", "may only assign literals"),
        ("a: int = 'x'", "does not fit its own type"),
        ("a = (", "not valid Python"),
    ],
)
def test_a_cell_that_is_no_list_of_literals_is_refused(world, cell, message):
    with pytest.raises(ValueError, match=message):
        read_parameters(world.notebook("a", parameters=cell))


def test_exactly_one_parameters_cell_is_required(world):
    path = world.notebook("a")
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ValueError, match=r"a.ipynb: expected exactly one cell tagged 'parameters', found 0"):
        read_parameters(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not a readable notebook"):
        read_parameters(path)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", 3), ("float", 3), ("float", 0.1), ("str", "a"), ("bool", True), ("Any", object), ("str | None", None),
        ("list[float]", [1, 2.5]), ("list", [1, "a"]), ("dict", {"a": 1}), ("Literal['a', 'b']", "b"),
    ],
)  # fmt: skip
def test_values_that_fit(kind, value):
    assert fit_problem(Parameter("p", None, kind), value) is None


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("int", True, "expected int, got True (bool)"),
        ("float", True, "expected float"),
        ("int", 3.0, "expected int, got 3.0 (float)"),
        ("float", "1e-3", "write 1.0e-3"),
        ("float", "2.5e4", "write 2.5e+4"),
        ("int", "3", "write 3 without quotes"),
        ("bool", "true", "write true without quotes"),
        ("bool", 1, "expected bool, got 1 (int)"),
        ("str", False, "booleans in YAML"),
        ("str", None, "got None (null)"),
        ("list[int]", [1, "2"], "expected list[int]"),
        ("list[str]", "gap", "write a list: [gap]"),
        ("Literal['a', 'b']", "c", "got 'c' (str)"),
    ],
)
def test_values_that_do_not_fit_say_what_to_write(kind, value, message):
    assert message in fit_problem(Parameter("p", None, kind), value)


def test_a_whole_number_given_for_a_float_becomes_one():
    assert type(convert(Parameter("p", 0.5, "float"), 3)) is float
    assert list(map(type, convert(Parameter("p", [0.5], "list[float]"), [1, 2]))) == [float, float]


def test_options_take_defaults_for_what_is_left_out():
    assert options_of("more", {"k": 15}, ["k"], ks=[4], pairs=2) == {"k": 15, "ks": [4], "pairs": 2}
    assert options_of("more", {"k": 15, "pairs": 0}, ["k"], pairs=2) == {"k": 15, "pairs": 0}


def test_an_unknown_option_is_named_with_the_nearest_one_and_a_missing_one_too():
    with pytest.raises(ValueError, match=r"'whole' has no option 'pixel'; did you mean 'pixels'\?"):
        options_of("whole", {"pixel": 64}, ["pixels"], rate=0.02)
    with pytest.raises(ValueError, match="'whole' lacks 'pixels', 'batch'; it has \\['rate'\\]"):
        options_of("whole", {"rate": 1}, ["pixels", "batch"], rate=0.02)
