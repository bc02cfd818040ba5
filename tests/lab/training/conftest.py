"""A run of the full stage that takes about two seconds: 52 images, 13 steps an epoch."""

import pytest
from trees import BIRDS, make_cub, shaded

from gcplib.lab.data import ImagesSpec
from gcplib.lab.training import Recipe, RunSpec


@pytest.fixture(scope="session")
def birds(tmp_path_factory):
    return make_cub(tmp_path_factory.mktemp("birds") / "CUB_200_2011", 14, 2, BIRDS, shaded)


@pytest.fixture
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def small(birds):
    """Call it with fields of the recipe."""

    def make(**fields):
        recipe = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "schedule": "constant"} | fields
        return RunSpec(
            pool="isqrt_cov",
            reduction=8,
            stage="full",
            backbone="test_resnet",
            pretrained=False,
            data=ImagesSpec("cub", str(birds), pixels=64, scale=72),
            recipe=Recipe(**recipe),
        )

    return make
