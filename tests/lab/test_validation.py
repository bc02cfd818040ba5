"""What people write: every problem at once, with its path and the nearest name; text stays text."""

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Discriminator, Field, PositiveInt, Tag

from gcplib.lab.plain import merge, plain
from gcplib.lab.validation import Items, SpecError, apply_changes, one_of, read_yaml, specification, validated


@specification
class Left:
    place: str
    size: PositiveInt = 1


@specification
class Right:
    depth: Annotated[float, Field(gt=0)] = 0.5
    size: PositiveInt = 1


Side = Annotated[
    Annotated[Left, Tag("Left")] | Annotated[Right, Tag("Right")],
    Discriminator(lambda value: "Left" if "place" in getattr(value, "__dict__", value) else "Right"),
]


@specification
class Whole:
    name: one_of("name", lambda: ["alpha", "beta"]) = "alpha"
    mode: Literal["fast", "slow"] = "fast"
    number: int = 0
    switch: bool = False
    weights: bool | str = True
    sizes: Items[PositiveInt] = ()
    side: Side = dataclasses.field(default_factory=Right)
    parts: Items[Left] = ()
    anything: dict[str, dict] = dataclasses.field(default_factory=dict)


FIELDS = [field.name for field in dataclasses.fields(Whole)]


def test_every_problem_is_told_at_once_with_its_path():
    values = {
        "name": "alhpa",
        "mode": "fats",
        "number": "0",
        "switch": 1,
        "sizes": [1, 0],
        "side": {"place": "x", "sise": 3, "size": True},
        "parts": [{"place": "a"}, {"size": 2}],
        "nmae": 1,
        "anything": {"a": 1},
    }
    with pytest.raises(SpecError) as caught:
        validated(Whole, values, "my.yaml")
    assert set(caught.value.problems) == {
        "name: unknown name 'alhpa'; did you mean 'alpha'? known: alpha, beta",
        "mode: unknown name 'fats'; did you mean 'fast'? known: fast, slow",
        "number: should be a valid integer; got '0'",
        "switch: should be a valid boolean; got 1",
        "sizes[1]: should be greater than 0; got 0",
        "side: unknown key 'sise'; did you mean 'size'? known: place, size",
        "side.size: should be a valid integer; got True",
        "parts[1].place: is missing",
        "unknown key 'nmae'; did you mean 'name'? known: " + ", ".join(FIELDS),
        "anything.a: should be a valid dictionary; got 1",
    }
    assert str(caught.value).startswith("my.yaml has 10 problems:\n  - ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_object_made_by_hand_is_checked_as_well():
    for fields in ({"number": "1"}, {"numbr": 1}):
        with pytest.raises(SpecError, match="Whole has 1 problem"):
            Whole(**fields)
    with pytest.raises(
        SpecError,
        match=r"Left has 2 problems:\n  - place: should be a valid string \(in YAML, put it in quotes\); got 3",
    ):
        Left(3, -1)
    with pytest.raises(TypeError, match="Left takes each of these once: place, size"):
        Left("x", place="y")
    with pytest.raises(SpecError, match="Whole has 1 problem"):
        dataclasses.replace(Whole(), number=1.5)


def test_a_specification_is_a_dataclass_of_plain_values():
    made = Whole(
        number=np.int64(3), sizes=[np.int32(1)], side=Left(Path("a") / "b"), switch=np.True_, parts=(Left("c"),)
    )
    assert made == Whole("alpha", number=3, sizes=(1,), side=Left("a/b"), switch=True, parts=[Left("c", 1)])
    assert [type(value) for value in dataclasses.astuple(made)[2:4]] == [int, bool]
    assert type(Right(np.float32(0.25)).depth) is type(Right(2).depth) is float
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), dataclasses.replace(made)):
        assert again == made
        assert again.parts == (Left("c"),)
    assert validated(Whole, plain(dataclasses.asdict(made)), "x") == made
    assert hash(Left("a")) == hash(Left("a", 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Left("a").size = 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e+3", 1500.0), ("2024-01-02", "2024-01-02"), ("0x10", 16), ("0", 0)],
)
def test_numbers_and_dates_of_yaml(text, value):
    assert read_yaml(f"a: {text}") == {"a": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "given twice: a"),
        ("a: {b: 1, b: 2}", "given twice: b"),
        ("a: 010", "010 is 8 to some readers of YAML and not to others; write a number without leading zeros"),
        ("a: 1:30", "1:30 is 90 to some readers"),
        ("a: [", "not valid YAML"),
    ],
)
def test_yaml_that_can_be_misread_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        read_yaml(text)


def test_merge_keys_and_byte_order_marks_are_read(tmp_path):
    (tmp_path / "a.yaml").write_bytes("\ufeffa: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\n".encode())
    assert read_yaml(tmp_path / "a.yaml")["d"] == {"b": 1, "c": 3}
    (tmp_path / "b.yaml").write_bytes("a: ö".encode("latin-1"))
    with pytest.raises(SpecError, match=r"b\.yaml has 1 problem"):
        read_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    "text", ["my data #1", "a=b", "{x}", "'quoted'", '"x"', " x ", "2024", "no", "1e-3", "~", "a: b", "[x"]
)
def test_a_text_stays_what_it_is(text):
    changed = apply_changes({"side": {"size": 1}}, [f"side.place={text}", "parts={}", f"name={text}"], Whole)
    assert changed == {"side": {"size": 1, "place": text}, "parts": {}, "name": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3", 3),
        ("false", False),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
        ("weights #2.pth", "weights #2.pth"),
        ("C: x", "C: x"),
        ("010", "010"),
        ("2024-01-02", "2024-01-02"),
    ],
)
def test_elsewhere_a_text_is_what_it_means(text, value):
    assert apply_changes({}, [f"weights={text}", f"anything.a.b={text}"], Whole) == {
        "weights": value,
        "anything": {"a": {"b": value}},
    }


def test_changes_that_cannot_be_made_are_told_together():
    with pytest.raises(SpecError) as caught:
        apply_changes({"number": 1}, ["number=1", "number=2", "x", "=3", "number.a=1"], Whole)
    assert caught.value.problems == (
        "number is given twice",
        "wanted KEY=VALUE, got 'x'",
        "wanted KEY=VALUE, got '=3'",
        "number.a=1: 'number' is a value, not a group of fields",
    )


def test_nested_values_are_merged_and_left_alone():
    base, changes = {"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": {"x": 1}}, "e": 3}
    merged = merge(base, changes)
    assert merged == {"a": {"b": {"x": 1}, "c": [1]}, "d": 2, "e": 3}
    merged["a"]["c"].append(2)
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}
