"""What happens to long runs: killed processes, full disks, damaged files, images and loaders."""

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import gcplib.lab.training.train as train_module
from gcplib.lab.training import Engine, PoolSwitch, Recipe, RunSpec, ensure
from gcplib.lab.training.sources import MOST_RESTARTS, Batch, ImageSource
from gcplib.lab.training.state import CHECKPOINT_VERSION, CheckpointError, checkpoints

TIMES = ["seconds", "images_per_second", "waiting_share"]


def assert_same(first, second):
    """Two folders of a run hold the same weights, to the bit, and the same numbers but for times."""
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    tables = [pd.read_csv(folder / "metrics.csv").drop(columns=TIMES) for folder in (first, second)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (first, second)]
    assert results[0] | {"seconds": 0} == results[1] | {"seconds": 0}


@pytest.fixture(scope="module")
def driven(small, tmp_path_factory):
    """The report of ``fault_driver.py``, on a run in which every part of the state matters, and its folder."""
    folder = tmp_path_factory.mktemp("driven")
    recipe = {"epochs": 4, "schedule": "step", "milestones": (1, 3), "flip": True, "crop": "random", "ema": 0.9}
    spec = small(**recipe, label_smoothing=0.1, report_best=True, switch=(PoolSwitch("svd_pade"),))
    spec = dataclasses.replace(spec, backbone_options={"drop_path_rate": 0.3})
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec.to_dict()))
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "GCPLIB_PROGRESS": "0"}
    driver = Path(__file__).with_name("fault_driver.py")
    done = subprocess.run([sys.executable, driver, folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert report["whole"] == 0
    return report, folder, spec.name


@pytest.mark.slow
def test_a_run_that_is_killed_at_twenty_random_moments_ends_with_the_same_weights(driven):
    report, folder, name = driven
    killed = report["killed"]
    assert killed["codes"] == [-signal.SIGKILL] * 23
    assert killed["last"] == 0
    # The kills are spread over the run, in both of its phases and within epochs, and each found some progress.
    places, steps = killed["places"], report["steps"]
    assert places == sorted(places)
    assert len(set(places)) >= 15
    assert {place // steps for place in places} >= {0, 1, 2}
    assert sum(place % steps > 0 for place in places) >= 12
    assert_same(folder / "whole" / "train" / name, folder / "killed" / "train" / name)
    assert not list((folder / "killed" / "train" / name).glob(".*"))  # half-written files of the dead are gone


@pytest.mark.slow
@pytest.mark.parametrize("which", ["stopped", "stopped-group"])
def test_sigterm_leaves_a_checkpoint_and_a_message_and_the_same_command_continues(driven, which):
    report, folder, name = driven
    stopped = report[which]
    assert stopped["code"] == 143
    assert (stopped["before"], stopped["after"], stopped["last"]) == (0, 1, 0)
    assert "Stopped. A checkpoint is written; the same command continues." in stopped["output"]
    assert_same(folder / "whole" / "train" / name, folder / which / "train" / name)


@pytest.mark.slow
def test_a_step_that_does_not_end_is_not_waited_for(driven):
    told = driven[0]["in-vain"]
    assert told["code"] == 143
    assert told["output"] == "Asked to end, and the step does not: ending without a checkpoint.\n"


def test_nobody_is_ended_who_has_stopped_in_time(monkeypatch):
    monkeypatch.setattr(train_module, "GRACE_SECONDS", 0.1)
    ended = []
    monkeypatch.setattr(train_module.os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGTERM)
    with train_module._asked_to_stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
    time.sleep(0.3)
    assert ended == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_process_without_its_parent_ends_and_says_so(driven):
    assert driven[0]["orphan"] == "my parent is gone\n"


@pytest.mark.slow
def test_two_processes_evaluate_with_the_same_statistics_of_batch_norm_as_one(driven):
    report, folder, _ = driven
    assert report["two"] == [0, 0], [(folder / f"two-{rank}.txt").read_text() for rank in (0, 1)]
    first, second, alone = (torch.load(folder / f"logits.{which}", weights_only=True) for which in ("0", "1", "alone"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, atol=1e-6, rtol=1e-5)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr("gcplib.lab.training.writer.CHECKPOINT_FRACTION", float("inf"))
    return Engine("cpu", loaders=0, checkpoint_seconds=0)


@pytest.fixture
def head_spec(tiny_spec, own_runs):
    return RunSpec(reduction=8, data=tiny_spec, recipe=Recipe(epochs=3, batch_size=4, learning_rate=0.05, ema=0.8))


def whole_run(spec, tmp_path):
    """Train a run, move it away, and return the folder that it is in now and the one it was in."""
    directory = ensure(spec, Engine("cpu")).directory
    return Path(shutil.move(directory, tmp_path / "whole")), directory


@pytest.fixture
def in_steps(monkeypatch):
    """Call a function, given the epoch and the steps that are done, after every step."""
    train_epoch = train_module.train_epoch

    def install(function):
        def with_function(state, fabric, source, indices, recipe, seed, watch, stop):
            def watched(steps):
                following = iter(watch(steps))
                step = next(following, None)
                while step is not None:
                    yield step
                    step = next(following, None)  # saves the state, where a checkpoint is due
                    function(state.epoch, state.step)

            return train_epoch(state, fabric, source, indices, recipe, seed, watched, stop)

        monkeypatch.setattr(train_module, "train_epoch", with_function)

    yield install
    monkeypatch.setattr(train_module, "train_epoch", train_epoch)


def interrupt(epoch, step):
    def function(*place):
        if place == (epoch, step):
            raise KeyboardInterrupt

    return function


@pytest.fixture
def interrupted(head_spec, often, in_steps, tmp_path):
    """The folder of a whole run, and that of the same one interrupted in its second epoch, with two checkpoints."""
    whole, directory = whole_run(head_spec, tmp_path)
    in_steps(interrupt(1, 3))
    with pytest.raises(KeyboardInterrupt):
        ensure(head_spec, often)
    in_steps(lambda *place: None)
    assert [path.name for path in checkpoints(directory)] == [f"checkpoint-00001-000000{step}.pt" for step in (3, 2)]
    return whole, directory


def test_an_interrupted_run_is_continued_in_its_step(interrupted, head_spec, in_steps):
    whole, directory = interrupted
    places = []
    in_steps(lambda *place: places.append(place))
    ensure(head_spec)
    assert places == [(1, 4), *((2, step) for step in (1, 2, 3, 4))]
    assert_same(whole, directory)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip_a_bit(path):
    """Change the lowest bit of a number of a weight."""
    data = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["state"]["network"]["classifier.weight"].numpy().tobytes()
    place = data.index(weight)
    data[place] ^= 1
    path.write_bytes(data)
    changed = torch.load(path, weights_only=True)["state"]["network"]["classifier.weight"]
    assert changed.numpy().tobytes() != weight  # torch reads it without a word


class _Touch:
    """Runs a command when it is unpickled by who trusts the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def with_code(path):
    torch.save({"version": CHECKPOINT_VERSION, "state": _Touch(path.with_name("executed"))}, path)


DAMAGES = [
    (truncate, ""),
    (empty, "File is not a zip file"),
    (flip_a_bit, "checksum of .* is wrong"),
    (with_code, "Weights only load failed"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(interrupted, head_spec, damage, reason):
    whole, directory = interrupted
    newest = checkpoints(directory)[0]
    damage(newest)
    message = rf"{re.escape(newest.name)} of {head_spec.name} is damaged \(.*{reason}.*\); trying the one before"
    with pytest.warns(UserWarning, match=message):
        ensure(head_spec)
    assert_same(whole, directory)
    assert not (directory / "executed").exists()


def test_the_file_with_code_would_run_it(tmp_path):
    with_code(tmp_path / "checkpoint.pt")
    torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_without_a_whole_checkpoint_the_run_starts_anew(interrupted, head_spec, in_steps):
    whole, directory = interrupted
    places = []
    in_steps(lambda *place: places.append(place))
    for path in checkpoints(directory):
        truncate(path)
    with pytest.warns(UserWarning, match="damaged") as caught:
        ensure(head_spec)
    assert len([warning for warning in caught if "damaged" in str(warning.message)]) == 2
    assert places[0] == (0, 1)
    assert_same(whole, directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, r"has version 1, this gcplib continues from version \d+; finish the run with the gcplib that"),
        ({"run": "another"}, r"is of the run another, not of mpn_cov-.*; delete it, or move it back"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(interrupted, head_spec, change, message):
    newest = checkpoints(interrupted[1])[0]
    torch.save(torch.load(newest, weights_only=True) | change, newest)
    with pytest.raises(CheckpointError, match=message):
        ensure(head_spec)


def test_what_is_no_checkpoint_of_gcplib_is_refused(interrupted, head_spec):
    torch.save([1, 2], checkpoints(interrupted[1])[0])
    with pytest.raises(CheckpointError, match="has version None"):
        ensure(head_spec)


def limited(save):
    """torch.save with files of at most 100 bytes: what torch makes of a disk that fills while it writes."""

    def full(content, path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            save(content, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


def no_space(save):
    def full(content, path):
        Path(path).write_bytes(b"the beginning")
        raise OSError(28, "No space left on device")

    return full


@pytest.mark.parametrize("fault", [limited, no_space])
def test_a_full_disk_costs_checkpoints_and_not_the_run(head_spec, often, in_steps, tmp_path, monkeypatch, fault):
    whole, directory = whole_run(head_spec, tmp_path)
    save, files = torch.save, []

    def fill(epoch, step):
        if (epoch, step) == (0, 2):
            monkeypatch.setattr(torch, "save", fault(save))
        files.append(sorted(path.name for path in directory.iterdir()))

    in_steps(fill)
    with pytest.warns(UserWarning, match=r"could not write \(.*\); going on: free some space"):
        ensure(head_spec, often)
    kept = ["checkpoint-00000-0000001.pt", "checkpoint-00000-0000002.pt"]
    assert all([name for name in names if "checkpoint" in name] == kept for names in files[1:])
    assert_same(whole, directory)


def test_corrupt_images_are_named_before_training(small, own_runs, tmp_path, birds, in_steps):
    root = Path(shutil.copytree(birds, tmp_path / "CUB_200_2011"))
    bad = sorted(root.rglob("*.jpg"))[::20]
    for path in bad:
        truncate(path)
    spec = small()
    spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, root=str(root)))
    in_steps(lambda *place: pytest.fail("it trains"))
    with pytest.raises(ValueError, match=r"4 of the 64 images .* cannot be decoded.*skip_corrupt of Im") as caught:
        ensure(spec, Engine("cpu"))
    assert all(path.name in str(caught.value) for path in bad)


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_image_that_becomes_corrupt_while_training(small, own_runs, tmp_path, birds, often, in_steps, loaders):
    root = Path(shutil.copytree(birds, tmp_path / "CUB_200_2011"))
    spec = small(flip=True)
    spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, root=str(root)))
    whole, directory = whole_run(spec, tmp_path)
    images = {path: path.read_bytes() for path in (root / "images").rglob("*_Albatross_*.jpg")}

    def damage(epoch, step):
        if (epoch, step) == (0, 5):
            for path, data in images.items():
                path.write_bytes(bytes(len(data)))

    in_steps(damage)
    engine = dataclasses.replace(often, loaders=loaders)
    with pytest.raises(ValueError, match=r"^\S*_Albatross_\d+.jpg cannot be read as an image: Unident") as caught:
        ensure(spec, engine)
    assert "Traceback" not in str(caught.value)
    assert len(checkpoints(directory)) == 2
    for path, data in images.items():
        path.write_bytes(data)
    in_steps(lambda *place: None)
    ensure(spec, engine)
    assert_same(whole, directory)


@pytest.fixture
def impatient(monkeypatch):
    """torch looks five times a second, not every five seconds, whether loaders are alive."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)


def test_a_loader_that_dies_is_replaced(small, own_runs, tmp_path, in_steps, impatient):
    spec, victims = small(flip=True, batch_size=2), []
    whole, directory = whole_run(spec, tmp_path)
    before = psutil.Process().children()  # other tests' workers

    def kill(epoch, step):
        if step == 3:
            victims.append(next(p for p in psutil.Process().children() if p not in before))
            victims[-1].kill()
            time.sleep(0.2)  # it is noticed here, between two steps, by who would raise at once

    in_steps(kill)
    with pytest.warns(UserWarning, match=r"a loader died \(.+\); starting the loaders again at batch \d+ of 26"):
        ensure(spec, Engine("cpu", loaders=2))
    assert len(victims) == 2
    assert_same(whole, directory)


class _Deadly:
    """A data set that kills whoever decodes its fourth image."""

    def images(self, indices):
        if 3 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(len(indices), 2, 2, 3, dtype=torch.uint8).numpy()


def test_loaders_that_die_again_and_again_stop_the_run(impatient):
    source = ImageSource(_Deadly(), lambda x: x, torch.zeros(6), torch.device("cpu"), loaders=1)
    batches = [Batch(torch.tensor([n])) for n in range(6)]
    message = r"the loaders died 4 times, at last in batch [1-3] of 6 \(.+\); is there memory"
    with pytest.warns(UserWarning, match="a loader died") as caught, pytest.raises(RuntimeError, match=message):
        list(source.batches(batches))
    assert len(caught) == MOST_RESTARTS


class _Odd:
    """A data set whose images do not fit the network."""

    def images(self, indices):
        return torch.zeros(len(indices), 2, 2, 3, dtype=torch.uint8).numpy()


@pytest.mark.parametrize("loaders", [0, 1])
def test_an_error_in_this_process_is_no_dead_loader(loaders):
    def prepare(images):
        raise RuntimeError("the DataLoader worker has nothing to do with this")

    source = ImageSource(_Odd(), prepare, torch.zeros(6), torch.device("cpu"), loaders)
    with pytest.raises(RuntimeError, match="has nothing to do with this"):
        list(source.batches([Batch(torch.tensor([n])) for n in range(6)]))
