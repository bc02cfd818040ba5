"""A finished run without its data set: what its folder tells, and what it says about pictures."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from trees import make_cub, save, shaded, striped

from gcplib import __version__
from gcplib.lab.cli import main
from gcplib.lab.data import ImagesSpec, load_data
from gcplib.lab.training import Engine, Recipe, Run, RunSpec, ensure
from gcplib.lab.training.predict import find_pictures

ENGINE = Engine("cpu", loaders=0)
COLUMNS = ["file", "class", "probability", "class_2", "probability_2", "problem"]


@pytest.fixture
def full(small):
    return small(epochs=1)


def _pictures(spec):
    data = load_data(spec.data)
    return [data.path / data.listing.paths[place] for place in data.indices("test")]


SYSTEMS = [
    ("isqrt_cov", {"views": {"mode": "all"}}),
    ("isqrt_cov", {"gate": {"stages": ["layer2", "features"], "width": 8}}),
    ("gap", {"coarse2fine": {"maps": 2, "first": 1}}),
]


@pytest.mark.parametrize(("pool", "systems"), [("isqrt_cov", {}), *SYSTEMS])
def test_test_pictures_are_predicted_as_they_were_evaluated(small, own_runs, monkeypatch, pool, systems):
    import gcplib.lab.training.train as train_module

    evaluate, seen = train_module.evaluate, []
    monkeypatch.setattr(train_module, "evaluate", lambda *a: seen.append(evaluate(*a)) or seen[-1])
    run = ensure(dataclasses.replace(small(flip=True), pool=pool, systems=systems), ENGINE)
    table = run.predict(_pictures(run.spec), top=2, accelerator="cpu")
    assert list(table) == COLUMNS
    assert table["class"].tolist() == run.predictions.prediction_name.tolist()
    np.testing.assert_allclose(table.probability, seen[-1].double().softmax(1).amax(1), rtol=1e-4)
    np.testing.assert_allclose(table.probability_2, seen[-1].double().softmax(1).topk(2).values[:, 1], rtol=1e-4)


def test_a_head_predicts_pictures_with_its_backbone(tiny_spec, tiny_data, own_runs, tmp_path):
    run = ensure(RunSpec(reduction=8, data=tiny_spec, recipe=Recipe(epochs=2, batch_size=8, learning_rate=0.05)))
    places = run.predictions.image.tolist()
    for place, image in zip(places, tiny_data.images(places), strict=True):
        Image.fromarray(image).save(tmp_path / f"{place:03d}.png")
    table = run.predict(tmp_path, accelerator="cpu")
    assert [int(Path(file).stem) for file in table.file] == places
    assert table["class"].tolist() == run.predictions.prediction_name.tolist()
    assert "file" not in run.predictions
    assert run.description["resize"] is None


@pytest.mark.slow
def test_a_folder_is_all_that_a_run_needs(full, own_runs, tmp_path, monkeypatch, birds):
    root = shutil.copytree(birds, tmp_path / "gone")
    run = ensure(dataclasses.replace(full, data=dataclasses.replace(full.data, root=str(root))), ENGINE)
    pictures = [shutil.copy(path, tmp_path / f"{number}.jpg") for number, path in enumerate(_pictures(run.spec))]
    data = load_data(run.spec.data)
    assert run.predictions.file.tolist() == [data.listing.paths[place] for place in run.predictions.image]
    names = np.array(data.class_names())
    assert run.predictions.label_name.tolist() == names[run.predictions.label].tolist()
    want = run.predict(pictures, accelerator="cpu")

    shutil.rmtree(root)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = shutil.move(run.directory, tmp_path / "elsewhere" / "mine")
    again = Run.load("mine")
    assert again.spec == run.spec
    pd.testing.assert_frame_equal(again.predict(pictures, accelerator="cpu"), want)
    known = {"pixels": 64, "resize": "shorter", "scale": 72, "backbone": "test_resnet", "stride": 16}
    known |= {key: list(getattr(again.load_model().backbone, key)) for key in ("mean", "std")}
    assert again.description == known | {"classes": data.class_names(), "gcplib": __version__}
    assert main(["export", str(moved), "--output", "model.onnx"]) == 0


def test_names_that_look_like_numbers_or_nothing_stay_names(own_runs, tmp_path, full):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("NA", "007", "None")):
            for number in range(count):
                save(tmp_path / "odd" / split / name / f"{number}.png", shaded(label, rng))
    spec = dataclasses.replace(full, data=ImagesSpec("folder", str(tmp_path / "odd"), pixels=64))
    assert ensure(spec, ENGINE).predictions.label_name.tolist() == ["007", "NA", "None"]


def test_the_command_names_what_it_cannot_read_and_predicts_the_rest(full, own_runs, tmp_path, capsys):
    run = ensure(full, ENGINE)
    good = _pictures(full)[0]
    shutil.copy(good, tmp_path / "b.JPG")
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:200])
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    gone = tmp_path / "gone.jpg"
    assert main(["predict", run.directory.name, str(tmp_path), str(gone), str(tmp_path / "b.JPG"), "--top", "2"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == COLUMNS[:-1]
    assert len(lines) == 2
    assert "b.JPG" in lines[1]
    assert [line.split(" cannot be read")[0] for line in err.splitlines() if "error" in line] == [
        f"gcplib: error: {tmp_path / 'broken.jpg'}",
        f"gcplib: error: {gone}",
    ]

    csv = tmp_path / "answers" / "out.csv"
    assert main(["predict", str(run.directory), str(good), "--csv", str(csv), "--top", "99"]) == 0
    table = pd.read_csv(csv)
    assert len([name for name in table if name.startswith("class")]) == 4  # there are no more
    assert table.filter(like="probability").sum(axis=1).item() == pytest.approx(1)
    assert main(["predict", str(run.directory), str(gone)]) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["{empty}"], "has no pictures"),
        (["x.jpg", "--top", "0"], "top is 0; give at least 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(full, own_runs, tmp_path, capsys, more, message):
    (tmp_path / "empty").mkdir()
    more = [word.format(empty=tmp_path / "empty") for word in more]
    assert main(["predict", str(ensure(full, ENGINE).directory), *more]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="no picture is given"):
        find_pictures([])


def test_folders_without_a_model_say_why(own_runs, tmp_path, full):
    with pytest.raises(FileNotFoundError, match=r"nonsense is no finished run; give a folder with a result\.json"):
        Run.load("nonsense")
    folder = own_runs / "train" / "begun"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(yaml.safe_dump(full.to_dict()))
    with pytest.raises(FileNotFoundError, match="begun is no finished run; the command that began it continues it"):
        Run.load("begun")
    (folder / "result.json").write_text(json.dumps({"outcome": "diverged", "reason": "epoch 0, step 1: loss nan"}))
    run = Run.load(folder)
    assert run.result["outcome"] == "diverged"
    for ask in (run.load_model, lambda: run.predict("x.jpg"), lambda: run.class_names):
        with pytest.raises(ValueError, match=r"begun diverged and has no model \(epoch 0, step 1: loss nan\); train"):
            ask()
    (folder / "result.json").write_text(json.dumps({"outcome": "finished"}))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is gone; delete the folder and train"):
        Run.load(folder).load_model()


def test_a_run_in_half_precision_predicts_in_it(small, own_runs):
    run = ensure(small(epochs=1, precision="bf16"), ENGINE)
    pictures = _pictures(run.spec)
    table = run.predict(pictures, accelerator="cpu")
    assert table["class"].tolist() == run.predictions.prediction_name.tolist()
    exact = dataclasses.replace(run, spec=small(epochs=1))
    assert (exact.predict(pictures, accelerator="cpu").probability != table.probability).any()


def test_a_dry_run_of_a_head_tells_of_features_rates_and_results(tmp_path, own_runs, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    root = make_cub(tmp_path / "CUB_200_2011", paint=striped)
    spec = RunSpec(reduction=8, data=ImagesSpec("cub", str(root), pixels=64), recipe=Recipe(batch_size=4))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec.to_dict()))
    command = ["train", "--config", str(tmp_path / "spec.yaml"), "--dry-run", "--accelerator", "cpu"]
    assert main(command) == 0
    out = capsys.readouterr().out
    (file,) = (tmp_path / "cache").glob("features-*")
    size = 21 * 112 * 4 * 4 * 4
    assert f"features: {size / 1e9:.3g} GB in {tmp_path / 'cache'}, now written: {file.name}" in out
    assert sum(part.stat().st_size for part in file.iterdir()) == pytest.approx(size, rel=0.05)
    assert "advice: recipe.learning_rate 0.2 is the default, for heads on typefaces; try " in out
    assert f"results go to: {own_runs / 'train' / spec.name}" in out
    assert not own_runs.exists()
    assert main([*command, "--set", "recipe.learning_rate=0.1"]) == 0
    out = capsys.readouterr().out
    assert "there before" in out
    assert "advice" not in out


@pytest.mark.parametrize("stage", ["head", "full"])
def test_the_constants_beside_the_weights_are_those_of_the_backbone(stage, own_runs, tiny_spec):
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.01)
    run = ensure(RunSpec(reduction=8, stage=stage, data=tiny_spec, recipe=recipe), ENGINE)
    backbone = run.load_model(whole=True).backbone
    assert (run.description["mean"], run.description["std"]) == (list(backbone.mean), list(backbone.std))
