"""What a notebook's result depends on: the modules that it uses, directly or through others, and the tables they name.

A name is followed to the module that defines it, so that the list of names of a package does not tie a notebook to
everything in the package. Of a module the syntax counts, not its comments, docstrings and layout.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gcplib.lab.files import digest, project_root

__all__ = ["Library", "parse_cell"]

PACKAGE = Path(__file__).resolve().parents[2]
DATA = (".csv", ".json", ".txt", ".yaml")


class Library:
    """The sources of the package and its small data, each read once.

    Args:
        package: folder of the package.
        data: folder of the small data; its ``evidence`` holds the tables that notebooks name.
    """

    def __init__(self, package: Path = PACKAGE, data: Path | None = None) -> None:
        self.package, self.data = package, data or project_root() / "data"
        self._trees: dict[Path, ast.Module] = {}
        self._used: dict[Path, list[Path]] = {}
        self._digests: dict[Path, str] = {}

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
                if path.suffix == ".py":
                    if path not in self._used:
                        names = path.name == "__init__.py"
                        self._used[path] = list(self._uses(self._tree(path), path.parent, lazy=names))
                    queue += self._used[path]
        return sorted(found)

    def _uses(self, tree: ast.Module, folder: Path, lazy: bool = True) -> Iterator[Path]:
        """Yield the files that a piece of code names.

        Args:
            tree: the code. folder: where the data lie that it names. lazy: imports for type checkers count, because
                they stand for names that are imported when asked for.
        """
        for node in _walk(tree, lazy):
            match node:
                case ast.Import(names=names):
                    yield from filter(None, (self._module(alias.name) for alias in names))
                case ast.ImportFrom(module=str(module), names=names) if self._module(module):
                    yield from (self._place(module, alias.name) for alias in names)
                case ast.Constant(value=str(text)) if re.fullmatch(r"[\w-][\w.-]*", text):
                    if "." in text and (path := self._module(text)):  # a module that is imported by its name
                        yield path
                    yield from self._data(text, folder)

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
            if isinstance(node, ast.ImportFrom) and self._module(node.module or ""):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._place(node.module, alias.name)
        return home

    def _data(self, name: str, folder: Path) -> Iterator[Path]:
        for path in (folder / name, folder / f"{name}.csv", self.data / name):
            if path.suffix in DATA and path.is_file():
                yield path
        if (folder / name).is_dir() and not (folder / name / "__init__.py").exists():
            yield from (path for path in (folder / name).iterdir() if path.suffix in DATA)

    def _tree(self, path: Path) -> ast.Module:
        if path not in self._trees:
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
                    node, clean=False
                ):
                    del node.body[0]
            self._trees[path] = tree
        return self._trees[path]

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            content = ast.dump(self._tree(path)).encode() if path.suffix == ".py" else path.read_bytes()
            self._digests[path] = hashlib.sha256(content).hexdigest()
        return self._digests[path]


def parse_cell(source: str) -> ast.Module:
    """Return the syntax tree of a notebook's cell; lines for IPython (``%matplotlib``, ``!ls``) do nothing."""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def _walk(tree: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, without imports for type checkers unless these are wanted."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if lazy or not (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        ):
            yield node
            stack.extend(ast.iter_child_nodes(node))
