"""nbgrader takes the notebooks as they are: it makes an assignment of them, and grades what comes back."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from notebook_code import NOTEBOOKS

from gcplib.lab.course.copies import make_copy

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
NAME = "00_start_here"
STUB = "raise NotImplementedError()"
WRITTEN = {"average": "return maps.flatten(1).mean(1)", "covariance": "return torch.cov(X, correction=0)"}
STUDENTS = {
    "right": (WRITTEN, 3),
    "half": (WRITTEN | {"covariance": "return X @ X.T / X.shape[1]"}, 1),
    "unsolved": ({}, 0),
    "clever": ({}, 0),  # asks for the solutions
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("graded", [True, False], ids=["source", "copy"])
def test_metadata_of_tasks_are_nbgraders(path, graded):
    from nbgrader.nbgraderformat import MetadataValidator, SchemaTooOldError

    notebook = make_copy(nbformat.read(path, as_version=4), NOTEBOOKS.parent / "learner", graded=graded)
    try:
        MetadataValidator().validate_nb(notebook)
    except SchemaTooOldError as error:  # not one to be upgraded
        pytest.fail(str(error))
    for cell in notebook.cells:
        if about := cell.metadata.get("nbgrader"):
            assert about["schema_version"] == 3
            # What is graded cannot be changed, and what is written is not graded by itself.
            assert about["grade"] == about["locked"] != about["solution"]
            assert not about["grade"] or about["points"] > 0


def nbgrader(course, *arguments):
    # It calls alembic by name, as in an activated environment.
    where = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=course, env=where, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def course(tmp_path):
    """A course of nbgrader with one assignment: the two tasks of the first notebook, and what they need."""
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'gcp'\n")
    notebook = make_copy(nbformat.read(NOTEBOOKS / f"{NAME}.ipynb", as_version=4), NOTEBOOKS, graded=True)
    needed = "import torch\nfrom torch import Tensor\n\nfrom gcplib.lab.course import check"
    tasks = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    notebook.cells = [new_code_cell(needed, id="needed"), *tasks]
    source = tmp_path / "source" / "00" / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(notebook, source)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nbgrader_makes_an_assignment_and_grades_it(course):
    source = course / "source" / "00" / f"{NAME}.ipynb"
    assert "Success! Your notebook passes all the tests." in nbgrader(course, "validate", str(source))
    nbgrader(course, "generate_assignment", "00")
    released = nbformat.read(course / "release" / "00" / source.name, as_version=4)
    assert "SOLUTION" not in nbformat.writes(released)
    for student, (answers, _) in STUDENTS.items():
        answer = nbformat.from_dict(released)
        for cell in answer.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id", "")[3:]
            if name in answers:
                assert STUB in cell.source
                cell.source = cell.source.replace(STUB, answers[name])
        if student == "clever":
            answer.cells[0].source += "\nfrom gcplib.lab.course import use_solutions\nuse_solutions()"
        place = course / "submitted" / student / "00" / source.name
        place.parent.mkdir(parents=True)
        nbformat.write(answer, place)
    told = nbgrader(course, "validate", str(course / "submitted" / "half" / "00" / source.name))
    assert "VALIDATION FAILED ON 1 CELL(S)" in told
    assert "the mean is not removed" in told
    nbgrader(course, "autograde", "00")
    nbgrader(course, "export", "--to", "grades.csv")
    with open(course / "grades.csv", newline="") as file:
        grades = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert grades == {student: (points, 3.0) for student, (_, points) in STUDENTS.items()}
