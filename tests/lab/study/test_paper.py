"""The profile of the paper's setting: in form, and run end to end on a tiny tree in CUB's layout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from trees import BIRDS, make_cub, striped

from gcplib.lab.study.profiles import make_plan

PROFILE = Path(__file__).parents[3] / "notebooks" / "profiles" / "paper.yaml"


def test_the_setting_is_the_papers():
    plan = make_plan(PROFILE)
    shared = plan.shared
    assert (shared["dataset"], shared["backbone"], shared["pixels"], shared["reduction"]) == (
        "cub",
        "resnet50",
        448,
        256,
    )
    assert shared["recipe"]["learning_rate"] == 3e-3
    assert "data" not in plan.jobs  # no typefaces are drawn for it


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tiny_tree_runs_through_all_its_notebooks(tmp_path):
    make_cub(tmp_path / "CUB_200_2011", train=6, test=3, birds=BIRDS, paint=striped)
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "weights.pth")
    profile = yaml.safe_load(PROFILE.read_text())
    # The paper's stage, layout, options and recipe; small numbers for the rest.
    profile["shared"] |= {"root": str(tmp_path / "CUB_200_2011"), "pixels": 96, "backbone": "resnet10t"}
    profile["shared"] |= {"pretrained": str(tmp_path / "weights.pth"), "reduction": 16, "epochs": 2, "seeds": 2}
    profile["shared"]["recipe"] |= {"batch_size": 4, "milestones": [1]}
    for entry in profile["notebooks"].values():
        entry |= {"threads": 1, "parameters": {}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(profile))
    own = {"GCPLIB_RUNS": tmp_path / "runs", "GCPLIB_CACHE": tmp_path / "cache"}
    done = subprocess.run(
        [sys.executable, "-m", "gcplib", "study", "--profile", str(path)],
        env=os.environ | {name: str(value) for name, value in own.items()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in profile["notebooks"]:
        assert (tmp_path / "runs" / "tiny" / "notebooks" / f"{name}.ipynb").is_file()
