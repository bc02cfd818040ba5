"""Parameters that a notebook cannot take are refused by its cell tagged ``check``, before anything runs."""

import json

import pytest
from notebook_code import NOTEBOOKS

REFUSED = [
    ("07", {"seeds": 1}, "seeds is 1"),
    ("07", {"full": {"epoch": 3}}, "unknown option of 'full' 'epoch'; did you mean 'epochs'"),
    ("07", {"epochs": 1, "methods": {"hybrid": {}}}, "hybrid changes its pool between two epochs"),
    ("07", {"probes": {"stride": [16]}}, "unknown option of 'probes' 'stride'; did you mean 'strides'"),
    ("07", {"stride": 64}, "64 pixels at stride 64 are one position"),
    ("07", {"stride": 32, "full": {"pixels": 32}}, "32 pixels at stride 32 are one position"),
    ("03", {"stride": 32, "reduction": 64}, r"give a reduction of 6 to 48 channels .* got 64"),
    ("04", {"stride": 32, "reduction": 64}, "keeps 52; give a smaller reduction or more pixels"),
    ("07", {"full": "pixels: 32"}, "'full' is a dict, got 'pixels: 32'; papermill takes one with -y"),
    ("08", {"compare": {"rates": {"average": [0.1]}}}, "lacks 'covariance'"),
    ("08", {"whole": {"steps": 5, "every": 0, "etas": 5}}, "every >= 1"),
    ("08", {"whole": {"steps": 5, "every": 4}}, "lacks 'etas'"),
    ("08", {"robust": {"images": 3, "severities": [1], "kind": "fog"}}, "unknown option of 'robust' 'kind'"),
    ("08", {"stride": 64}, "64 pixels at stride 64 are one position"),
    ("09", {"full": {"methods": ["average", "gates"]}}, "full names the methods {'gates'}"),
    ("09", {"stride": 64}, "64 pixels at stride 64 are one position"),
    ("10", {"fractions": [2.0]}, "fractions lie between 0 and 1"),
    ("10", {"second": {"dataset": "typefaces"}}, "choose another"),
    ("10", {"second": {"pixels": 64}}, "lacks 'dataset'"),
    ("10", {"stride": 96}, "64 pixels at stride 96 are one position"),
    ("10", {"stride": 64, "second": {"dataset": "elpv", "pixels": 64}}, "64 pixels at stride 64 are one position"),
    ("11", {"more": {"k": 40, "longer": 0, "pairs": 1}}, "40.*leave 11 negatives"),
    ("11", {"more": {"k": 3, "longer": 0, "pairs": 1, "pools": ["gap"]}}, r"more\['pools'\] names {'gap'}"),
    ("11", {"stride": 96}, "are 9 positions, and the block hides patches of 3 by 3"),
    ("11", {"stage": "tail"}, "'head' or 'full', got 'tail'"),
    ("12", {"attention": {"first": 5}}, "first is 5, but there are 4 epochs"),
    ("12", {"epochs": 1}, "first is 1, but there are 1 epochs"),
    ("12", {"looks": {"pair": 3}}, "did you mean 'pairs'"),
    ("12", {"pixels": 8}, "8 pixels at stride 8 are one position"),
]


def checked(notebook, changes):
    """Run the parameters cell and the check of a notebook, as planning a study does."""
    (path,) = NOTEBOOKS.glob(f"{notebook}*.ipynb")
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    tags = [cell["metadata"].get("tags", []) for cell in cells[:2]]
    assert tags == [["parameters"], ["check"]]
    space: dict = {}
    exec("".join(cells[0]["source"]), space)
    space |= changes
    exec("".join(cells[1]["source"]), space)


@pytest.mark.parametrize("stride", [16, 32, -1])  # -1 is the last stage
@pytest.mark.parametrize("notebook", ["07", "08", "09", "10", "12"])
def test_strides_of_photographs_are_taken(notebook, stride):
    checked(notebook, {"dataset": "folder", "root": "here", "pixels": 224, "stride": stride})


@pytest.mark.parametrize("notebook", ["07", "08", "09", "10", "11", "12"])
def test_defaults_are_taken(notebook):
    checked(notebook, {})


@pytest.mark.parametrize(("notebook", "changes", "message"), REFUSED)
def test_what_a_notebook_cannot_take_is_refused(notebook, changes, message):
    with pytest.raises(ValueError, match=message):
        checked(notebook, changes)
