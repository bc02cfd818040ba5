"""The profile of the paper's setting: in form, and run end to end on a tiny tree in CUB's layout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from gcplib.study.profiles import load_plan

PROFILE = Path(__file__).parents[2] / "notebooks" / "profiles" / "paper.yaml"
BIRDS = ("Sooty_Albatross", "Laysan_Albatross", "House_Wren", "Marsh_Wren")


def make_cub(root, train=6, test=3):
    """Four birds of two kinds: stripes, their distance the kind, their direction the bird, on noise."""
    lines = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    rng = np.random.default_rng(0)
    for label, name in enumerate(BIRDS, 1):
        folder = root / "images" / f"{label:03d}.{name}"
        folder.mkdir(parents=True)
        lines["classes"].append(f"{label} {folder.name}")
        for place in range(train + test):
            number = len(lines["images"]) + 1
            stripes = np.indices((100, 120))[label % 2] // (6 if label > 2 else 3) % 2
            picture = 120 * stripes[..., None] + rng.integers(0, 100, (100, 120, 3))
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{place}.jpg")
            lines["images"].append(f"{number} {folder.name}/{place}.jpg")
            lines["image_class_labels"].append(f"{number} {label}")
            lines["train_test_split"].append(f"{number} {int(place < train)}")
    for name, rows in lines.items():
        (root / f"{name}.txt").write_text("\n".join(rows) + "\n")


def test_the_setting_is_the_papers():
    shared = load_plan(PROFILE).profile.shared
    assert (shared["dataset"], shared["backbone"], shared["pixels"], shared["reduction"]) == (
        "cub",
        "resnet50",
        448,
        256,
    )
    assert shared["recipe"]["learning_rate"] == 3e-3
    assert load_plan(PROFILE).data == {}  # no typefaces are drawn for it


@pytest.mark.timeout(900)
def test_a_tiny_tree_runs_through_all_its_notebooks(tmp_path):
    make_cub(tmp_path / "CUB_200_2011")
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
