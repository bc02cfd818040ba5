"""Two processes: what they train is what one trains, and when one dies the other stops and the run can go on."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

import gcplib
from gcplib.lab.files import locked
from gcplib.lab.training import Engine, PeerLost, ensure
from gcplib.lab.training.runs import Run, _alone, run_directory
from gcplib.lab.training.state import checkpoints
from gcplib.lab.training.train import train

OFTEN = str(Path(__file__).with_name("train_often.py"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
FABRIC_RUN = [str(Path(sys.executable).with_name("fabric")), "run", "--accelerator", "cpu", "--devices", "2"]
FABRIC_RUN += ["--strategy", "ddp"]
MINUTE = 60


class Launched:
    """A command that trains, its output, and the processes that train for it."""

    def __init__(self, command, output):
        self.output = output
        environment = os.environ | {"GCPLIB_PROGRESS": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with open(output, "w") as file:
            self.process = psutil.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def wait_for_checkpoint(self, directory, after=(-1, -1)):
        """Return epoch and step of a newer checkpoint."""
        deadline = time.monotonic() + 5 * MINUTE  # two processes import torch, on a busy machine
        while time.monotonic() < deadline and self.process.poll() is None:
            found = checkpoints(directory)
            place = tuple(map(int, found[0].stem.split("-")[1:])) if found else (-1, -1)
            if place > after:
                return place
            time.sleep(0.01)
        raise AssertionError(f"no checkpoint after {after}: {self.text()}")

    def text(self):
        return self.output.read_text()

    def ends(self):
        """Wait until all have ended, and return the exit code of the command."""
        everyone = [self.process, *self.family]
        _, alive = psutil.wait_procs(everyone, timeout=MINUTE)
        for process in alive:
            process.kill()
        assert not alive, self.text()
        return self.process.returncode

    @property
    def family(self):
        self._family = getattr(self, "_family", None) or self.process.children(recursive=True)
        return self._family


@pytest.fixture(scope="module")
def story(small, tmp_path_factory):
    """A run whose processes die three times, and the same in one process: folders, and what the commands did."""
    folder, told = tmp_path_factory.mktemp("two"), {}
    spec = small(epochs=4, batch_size=10, freeze_batch_norm=True, flip=True, crop="random", clip=0.1, accumulate=2)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec.to_dict()))
    options = ["--config", str(folder / "spec.yaml"), "--accelerator", "cpu", "--loaders", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCPLIB_RUNS", str(folder / "one"))
        one = ensure(spec, Engine("cpu", loaders=0))
        patch.setenv("GCPLIB_RUNS", str(folder / "two"))
        directory, place = run_directory(spec), (0, 0)
        commands = {
            "second": [sys.executable, OFTEN, *options, "--devices", "2"],
            "first": [sys.executable, OFTEN, *options, "--devices", "2"],
            "torchrun": [*TORCHRUN, OFTEN, *options],
        }
        for name, command in commands.items():
            launched = Launched(command, folder / f"{name}.txt")
            epoch, step = place
            place = launched.wait_for_checkpoint(directory, (epoch, step + 2))
            family = launched.family
            victim = launched.process if name == "first" else family[-1]
            victim.kill()
            start = time.monotonic()
            told[name] = {"code": launched.ends(), "seconds": time.monotonic() - start, "text": launched.text()}
            told[name]["place"] = place
        script = str(Path(gcplib.__file__).with_name("__main__.py"))
        last = Launched([*FABRIC_RUN, script, "train", *options], folder / "last.txt")
        told["last"] = {"code": last.process.wait(2 * MINUTE), "text": last.text()}
    return one, Run(spec, directory), told


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["second", "first", "torchrun"])
def test_when_a_process_dies_the_others_stop_and_say_so(story, victim):
    told = story[2][victim]
    assert told["code"] != 0
    assert told["seconds"] < MINUTE
    # Who waits for the dead one says it, or is ended first by Fabric, or because its parent is gone.
    messages = (
        "gcplib: error: another of the 2 processes of this run has ended: ",
        "The process that started this one is gone; the same command continues the run.",
        "terminated with code -9. Forcefully terminating all other processes",
    )
    assert any(message in told["text"] for message in messages), told["text"]


@pytest.mark.slow
def test_the_same_command_continues_the_run(story):
    told = story[2]
    places = [told[name]["place"] for name in ("second", "first", "torchrun")]
    assert places == sorted(set(places))
    assert told["last"]["code"] == 0, told["last"]["text"]
    assert "Run: " in told["last"]["text"]
    assert told["last"]["text"].count("outcome: finished") == 1  # only one of the two reports


@pytest.mark.slow
def test_two_processes_train_what_one_does(story):
    """20 steps and more, with a last batch that is not full, a clipped gradient, and batch norm as in evaluation."""
    one, two, _ = story
    assert two.result["devices"] == 2
    assert len(one.metrics) * -(-52 // 10) >= 20
    for column in ("train_loss", "train_accuracy", "gradient_norm", "validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(two.metrics[column], one.metrics[column], atol=1e-4, err_msg=column)
    assert (one.metrics.gradient_norm > 0.2).all()  # clipping changes every step
    weights = [load_file(run.directory / "model.safetensors") for run in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-4, rtol=1e-4, msg=name)
    assert two.predictions.equals(one.predictions)
    assert two.result["test_accuracy"] == one.result["test_accuracy"]


def test_fewer_images_a_step_than_devices_are_refused(small, own_runs):
    fabric = SimpleNamespace(world_size=5, device=torch.device("cpu"))
    spec = small(batch_size=4)
    with pytest.raises(ValueError, match=r"recipe\.batch_size is 4, fewer than the 5 devices"):
        train(spec, run_directory(spec), fabric, Engine("cpu"))


TWO = SimpleNamespace(world_size=2, is_global_zero=True, broadcast=lambda value: value)


def test_a_run_is_not_trained_twice_at_the_same_time(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(ValueError, match="run is being trained by somebody else; wait for"):
        _alone(tmp_path / "run", TWO).__enter__()
    with _alone(tmp_path / "run", TWO):
        pass  # the lock is free again


GLOO = "[/somewhere/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1\nmore"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(GLOO),
        torch.distributed.DistBackendError("NCCL error: unhandled\nmore"),
        torch.distributed.DistNetworkError("Broken pipe"),
    ],
)
def test_a_lost_connection_is_a_lost_process(tmp_path, error):
    message = (
        "another of the 2 processes of this run has ended: .*; the same command continues from the last checkpoint"
    )
    with pytest.raises(PeerLost, match=message) as caught, _alone(tmp_path / "run", TWO):
        raise error
    assert "more" not in str(caught.value)


def test_other_errors_stay_what_they_are(tmp_path):
    text = "no peer, and no socket, has to do with shapes that do not fit"
    with pytest.raises(RuntimeError, match=f"^{text}$"), _alone(tmp_path / "run", TWO):
        raise RuntimeError(text)


@pytest.mark.slow
def test_a_job_of_a_cluster_with_fewer_tasks_than_devices_is_refused(tmp_path):
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}
    job |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "GCPLIB_RUNS": str(tmp_path)}
    command = [sys.executable, "-m", "gcplib", "train", "--accelerator", "cpu", "--devices", "2"]
    done = subprocess.run(command, env=os.environ | job, capture_output=True, text=True, timeout=5 * MINUTE)
    assert done.returncode == 2
    assert "2 devices were asked for, and the cluster's job has 1 process; start one task per device" in done.stderr
    assert not list(tmp_path.iterdir())
