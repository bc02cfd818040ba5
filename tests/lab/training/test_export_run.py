"""The command ``export``: the whole network of a finished run as an ONNX file."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import torch

from gcplib.exporting import read_metadata
from gcplib.lab.cli import main
from gcplib.lab.training import Recipe, RunSpec, ensure


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["head", "full"])
def test_a_run_is_exported_with_its_names_and_constants(stage, tiny_spec, tiny_data, own_runs, tmp_path, capsys):
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.05)
    spec = RunSpec(pool="mpn_cov", reduction=8, data=tiny_spec, recipe=recipe)
    if stage == "full":
        spec = dataclasses.replace(spec, stage="full", backbone="test_resnet", pretrained=False)
    run = ensure(spec)
    path = tmp_path / "a b" / "model.onnx"
    assert main(["export", run.directory.name, "--output", str(path)]) == 0
    assert "Written:" in capsys.readouterr().out
    found = read_metadata(path)
    assert found["classes"] == tiny_data.class_names("fine") == run.class_names
    model = run.load_model(whole=True)
    assert found["mean"] == list(model.backbone.mean)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = run.predictions.image.tolist()
    inputs = model.backbone.prepare(tiny_data.images(images))
    (logits,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(inputs), rtol=1e-3, atol=1e-3)
    assert logits.argmax(1).tolist() == run.predictions.prediction.tolist()


def test_what_is_no_finished_run_says_so(own_runs, tmp_path, capsys):
    assert main(["export", "nonsense"]) == 2
    assert "nonsense is no finished run" in capsys.readouterr().err
    (tmp_path / "spec.yaml").write_text("{}")
    (tmp_path / "result.json").write_text(json.dumps({"outcome": "diverged"}))
    assert main(["export", str(tmp_path)]) == 2
