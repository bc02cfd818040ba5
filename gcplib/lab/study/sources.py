"""What a notebook's result depends on: the modules that it uses, directly or through others, and the tables they name.

A name is followed to the module that defines it, so that the list of names of a package does not tie a notebook to
everything in the package. Of a module the syntax counts, not its comments, docstrings and layout.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gcplib.lab.files import digest, project_root
from gcplib.lab.study.evidence import IMAGES

__all__ = ["Library", "parse_cell"]

PACKAGE = Path(__file__).resolve().parents[2]
DATA = (".csv", ".json", ".txt", ".yaml")


class Library:
    """The sources of the package and its small data, as they are now; each file is read once."""

    def __init__(self, package: Path | None = None, data: Path | None = None) -> None:
        self.package, self.data = package or PACKAGE, data or project_root() / "data"
        for name in ("_tree", "_digest", "_used"):
            setattr(self, name, functools.cache(getattr(self, name)))

    def digest_of(self, *code: str) -> str:
        """Return a digest of everything that pieces of code depend on."""
        return digest({os.path.relpath(path, self.package): self._digest(path) for path in self.files_of(*code)})

    def files_of(self, *code: str) -> list[Path]:
        """Return the files that pieces of code depend on, directly or through others."""
        queue = [path for text in code for path in self._uses(parse_cell(text), self.data / "evidence")]
        found: set[Path] = set()
        while queue:
            if (path := queue.pop()) not in found:
                found.add(path)
                queue += self._used(path)
        return sorted(found)

    def _used(self, path: Path) -> list[Path]:
        return list(self._uses(self._tree(path), path.parent, path.name)) if path.suffix == ".py" else []

    def _uses(self, tree: ast.Module, folder: Path, name: str = "__init__.py") -> Iterator[Path]:
        """Yield the files that code names: modules, by imports or by text, and data of a folder."""
        stack: list[ast.AST] = [tree]
        while stack:
            match stack.pop():
                # Imports for type checkers are none, but in a list of names they stand for those made when asked for.
                case ast.If(test=ast.Name(id="TYPE_CHECKING")) if name != "__init__.py":
                    continue
                case ast.Import(names=names):
                    yield from filter(None, (self._module(alias.name) for alias in names))
                case ast.ImportFrom(module=str(module), names=names) if self._module(module):
                    yield from (self._place(module, alias.name) for alias in names)
                case ast.Constant(value=str(text)) if re.fullmatch(r"[\w-][\w.-]*", text):
                    paths = [folder / text, folder / f"{text}@{IMAGES[0]}.csv", self.data / text]
                    if (folder / text).is_dir() and not (folder / text / "__init__.py").exists():
                        paths += (folder / text).iterdir()
                    yield from (path for path in paths if path.suffix in DATA and path.is_file())
                    yield from filter(None, [self._module(text) if "." in text else None])
                case node:
                    stack += ast.iter_child_nodes(node)

    def _module(self, name: str) -> Path | None:
        head, *parts = name.split(".")
        base = self.package.joinpath(*parts)
        places = (base / "__init__.py", base.with_name(f"{base.name}.py"))
        return next((path for path in places if path.is_file()), None) if head == self.package.name else None

    def _place(self, module: str, name: str) -> Path:
        """Return the file that defines a name, which a package may take over from another module."""
        if path := self._module(f"{module}.{name}"):
            return path
        home = self._module(module)
        for node in ast.walk(self._tree(home)) if home.name == "__init__.py" else ():
            match node:
                case ast.ImportFrom(module=str(other), names=aliases) if self._module(other):
                    for alias in aliases:
                        if (alias.asname or alias.name) == name:
                            return self._place(other, alias.name)
                # What a package imports when it is asked for, by the modules within it.
                case ast.Assign(targets=[ast.Name(id="_HOMES")], value=table):
                    for part, names in ast.literal_eval(table).items():
                        if name in names.split():
                            return self._place(f"{module}.{part}", name)
        return home

    def _tree(self, path: Path) -> ast.Module:
        return _parsed(path.read_text(encoding="utf-8"), str(path))[0]

    def _digest(self, path: Path) -> str:
        if path.suffix != ".py":
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return _parsed(path.read_text(encoding="utf-8"), str(path))[1]


@functools.lru_cache(maxsize=1024)
def _parsed(text: str, name: str) -> tuple[ast.Module, str]:
    """Return the syntax tree of a module without its docstrings, and a digest of it; plans share unchanged files."""
    tree = ast.parse(text, name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            del node.body[0]
    return tree, hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def parse_cell(source: str) -> ast.Module:
    """Return the syntax tree of a notebook's cell; lines for IPython (``%matplotlib``, ``!ls``) do nothing."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
