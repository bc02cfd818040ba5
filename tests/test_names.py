"""Wherever a name is taken, a wrong one is answered with the nearest and with all that are known."""

import pytest
import torch

from gcplib import create_backbone, create_model, create_pool
from gcplib.lab.bench.networks import measure_training
from gcplib.lab.cli import main
from gcplib.lab.data.fonts import find_family
from gcplib.lab.study.profiles import profile_path
from gcplib.lab.study.verdicts import verdict
from gcplib.lab.training import RunSpec
from gcplib.lab.training.published import load_recipe
from gcplib.linalg import covariance_map, get_eigenvalue_set, get_function, get_rule, truncate
from gcplib.nn import amplify, create_gate

X = torch.randn(2, 8, 9)
PLACES = {
    "pool": (lambda: create_pool("mpn_cof", 8), "mpn_cov"),
    "option of a pool": (lambda: create_pool("mpn_cov", 8, exponant=0.5), "exponent"),
    "compute dtype": (lambda: create_pool("cov", 8, compute_dtype="float46"), "float64"),
    "gradient rule": (lambda: get_rule("tailor(9)"), "taylor"),
    "rule of a map": (lambda: covariance_map(X, rule="exakt"), "exact"),
    "spectral function": (lambda: get_function("squrt"), "sqrt"),
    "route": (lambda: covariance_map(X, route="thinn"), "thin"),
    "eigenvalue set": (lambda: get_eigenvalue_set("botom(3)"), "bottom"),
    "pass to truncate": (lambda: truncate("exact", "top(3)", "foreward"), "forward"),
    "amplification": (lambda: amplify("sqrt", "exp_relativ", 8), "exp_relative"),
    "shrinkage": (lambda: create_pool("mpn_cov", 8, shrinkage="ledoit_wolff"), "ledoit_wolf"),
    "gate": (lambda: create_gate(8, "chanel"), "channel"),
    "pool of a model": (
        lambda: create_model(create_backbone("test_resnet", pretrained=False), "gausian", 2),
        "gaussian",
    ),
    "run": (lambda: RunSpec.from_dict({"poool": "gap"}), "pool"),
    "pool of a run": (lambda: RunSpec.from_dict({"pool": "bccn"}), "bcnn"),
    "field of a recipe": (lambda: RunSpec.from_dict({"recipe": {"epoch": 3}}), "epochs"),
    "system": (lambda: RunSpec.from_dict({"systems": {"gates": {}}}), "gate"),
    "loss": (lambda: RunSpec.from_dict({"recipe": {"loss": "gcee(15)"}}), "gce"),
    "schedule": (lambda: RunSpec.from_dict({"recipe": {"schedule": "cosin"}}), "cosine"),
    "dataset": (lambda: RunSpec.from_dict({"data": {"dataset": "cubs", "root": "x"}}), "cub"),
    "published recipe": (lambda: load_recipe("tpami2022/cup"), "tpami2022/cub"),
    "typeface": (lambda: find_family("Robotto"), "Roboto"),
    "profile": (lambda: profile_path("smok"), "smoke"),
    "claim": (lambda: verdict("c04", []), "C04"),
    "network of the benchmark": (lambda: measure_training(64, ["gapp"], 1, 1, None), "gap"),
}
COMMANDS = {
    "command": (["trian"], "train"),
    "option": (["train", "--confg", "x"], "--config"),
    "set": (["train", "--set", "pol=gap", "--dry-run"], "pool"),
    "recipe": (["train", "--config", "tpami2022/cup"], "tpami2022/cub"),
    "notebook": (["study", "--profile", "smoke", "--only", "00_start_hre"], "00_start_here"),
}


@pytest.mark.parametrize("place", PLACES)
def test_nearest_name(place):
    call, near = PLACES[place]
    with pytest.raises((ValueError, KeyError, FileNotFoundError)) as raised:
        call()
    text = str(raised.value)
    assert f"did you mean '{near}'" in text
    assert "known: " in text


@pytest.mark.parametrize("place", COMMANDS)
def test_nearest_name_on_the_command_line(place, capsys):
    arguments, near = COMMANDS[place]
    try:
        code = main(arguments)
    except SystemExit as stop:  # by argparse
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    assert f"did you mean '{near}" in said
