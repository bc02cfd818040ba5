"""The command ``python -m gcplib train`` with a checkpoint after every step, for tests that interrupt it."""

import sys

import torch

from gcplib.lab.cli import main
from gcplib.lab.training.writer import RunWriter


def checkpoint_often() -> None:
    RunWriter._due = lambda self: True


if __name__ == "__main__":
    torch.set_num_threads(1)
    checkpoint_often()
    sys.exit(main(["train", *sys.argv[1:]]))
