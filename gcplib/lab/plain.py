"""Plain values, as YAML has them: read from what people write, merged, and made of richer ones."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

__all__ = ["SpecError", "merge", "plain", "read_yaml"]


class SpecError(ValueError):
    """What somebody wrote does not fit; the message lists every problem."""

    def __init__(self, where: str, problems: Sequence[str]):
        self.where, self.problems = where, tuple(dict.fromkeys(problems))
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        super().__init__(f"{where} has {count}:\n  - " + "\n  - ".join(self.problems))

    def __reduce__(self) -> tuple:
        return SpecError, (self.where, self.problems)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is refused, 1e-3 is a number, and a date is text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        own = [key for key, _ in node.value if not key.tag.endswith(":merge")]
        keys = [self.construct_object(key, deep=True) for key in own]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if re.fullmatch(r"[-+]?0[\d_]+|.*:.*", node.value):
            message = f"{node.value} is {super().construct_yaml_int(node)} to some readers of YAML and not to others; "
            message += "write a number without leading zeros or colons, or put the text in quotes"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
# PyYAML follows YAML 1.1, which wants a dot in the mantissa and a sign in the exponent.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(source: Path | str) -> Any:
    """Return what a YAML file holds, or a text.

    Raises:
        FileNotFoundError: there is no such file.
        SpecError: it is not valid YAML, gives a key twice, or has a number that readers of YAML take differently.
    """
    try:
        text = source if isinstance(source, str) else source.read_text(encoding="utf-8-sig")
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = "text" if isinstance(source, str) else str(source)
        raise SpecError(where, [f"not valid YAML: {error}"]) from error


def plain(value: Any) -> Any:
    """Return nested values as YAML has them: lists for tuples, texts for paths, Python's numbers for NumPy's."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if getattr(value, "shape", None) == () else value


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings with some of their values changed."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
