"""The functions that a notebook defines, for tests: the subject of a notebook stands in it, not in the library."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def definitions(notebook: str) -> SimpleNamespace:
    """Run the imports, constants in capitals, functions and classes of a notebook, and nothing else, and return them.

    >>> definitions("00_start_here").__dict__ != {}
    True
    """
    (path,) = NOTEBOOKS.glob(f"{notebook}*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    body = [
        statement
        for cell in cells
        if cell["cell_type"] == "code"
        for statement in ast.parse("".join(cell["source"])).body
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        or (
            isinstance(statement, ast.Assign)  # Of one letter are matrices, such as X.
            and all(isinstance(t, ast.Name) and t.id.isupper() and len(t.id) > 1 for t in statement.targets)
        )
    ]
    space: dict = {}
    exec(compile(ast.Module(body, []), str(path), "exec"), space)
    return SimpleNamespace(**{name: value for name, value in space.items() if not name.startswith("__")})
