"""What a record says of the machine."""

import importlib.metadata

import gcplib
from gcplib.lab import machine


def test_the_version_is_that_of_the_code_and_not_of_an_older_installation(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0")
    versions = machine.describe_machine.__wrapped__()["versions"]
    assert versions["gcplib"] == gcplib.__version__
    assert versions["torch"] == "0.0"


def test_packages_that_are_not_installed_are_left_out():
    assert list(machine.installed_versions(["torch", "no-such-package"])) == ["torch"]


def test_threads_are_those_that_are_given_and_no_more_than_there_are(monkeypatch):
    monkeypatch.setattr(machine, "cpu_count", lambda: 4)
    for given, threads in (("3", 3), ("9", 4), ("0", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert machine.allotted_cores() == threads
