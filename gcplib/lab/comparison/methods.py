"""Methods that are compared: names for people, the runs that they stand for, and one table of what became of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gcplib.lab.analysis import curves_of
from gcplib.lab.plain import merge
from gcplib.lab.setting import Setting
from gcplib.lab.training import Run, RunSpec
from gcplib.nn import list_pools

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Case", "Methods", "Trained", "most_confused", "train_methods"]

Case = tuple[str, str, int, float]  # method, labels, seed, peak learning rate


@dataclass(frozen=True)
class Methods:
    """Names for people, and the fields of a ``RunSpec`` that each stands for.

    Args:
        base: the run that all are variants of.
        fields: by name; with ``labels`` among them a method is trained on these alone, and an epoch of
            ``recipe.switch`` may be a fraction of all epochs.
        rates: the learning rates to choose from, of a method without its own.
    """

    base: RunSpec
    fields: Mapping[str, Mapping[str, Any]]
    rates: float | Sequence[float]

    @classmethod
    def of(
        cls,
        base: RunSpec,
        known: Mapping[str, Mapping[str, Any]],
        always: Iterable[str],
        chosen: Mapping[str, Mapping[str, Any]],
        rates: float | Sequence[float],
    ) -> Methods:
        """Return the methods that are always there and those that somebody chose.

        Args:
            base: the run that all are variants of.
            known: fields by name; every pool is known by its own name.
            always: some of these names.
            chosen: other names, or further fields of these.
            rates: the learning rates to choose from.

        Raises:
            ValueError: a chosen method is not known, and names no pool.
        """
        everything = dict(known) | {pool: {"pool": pool} for pool in list_pools()}
        names = dict.fromkeys([*always, *chosen])
        fields = {name: merge(dict(everything.get(name, {})), dict(chosen.get(name, {}))) for name in names}
        if unclear := [name for name in names if "pool" not in fields[name]]:
            raise ValueError(f"methods {unclear} are none of {', '.join(everything)}; give a pool")
        return cls(base, fields, rates)

    def kinds(self, name: str, kinds: Sequence[str]) -> list[str]:
        """Return the kinds of labels, of some, that a method is trained on."""
        return [kind for kind in kinds if self.fields[name].get("labels", kind) == kind]

    def spec(self, name: str, labels: str, seed: int, rate: float) -> RunSpec:
        """Return the run of a method; a switch after a fraction of the epochs gets its number."""
        own = {key: value for key, value in self.fields[name].items() if key != "labels"}
        values = merge(self.base.to_dict(), own)
        plan = values["recipe"] | {"learning_rate": rate}
        switch = [dict(entry) for entry in plan["switch"]]
        for entry in switch:
            if isinstance(entry["epoch"], float):
                entry["epoch"] = max(1, int(entry["epoch"] * plan["epochs"]))
        run = {"labels": labels, "seed": seed, "recipe": plan | {"switch": switch}}
        return RunSpec.from_dict(values | run)

    def rates_of(self, name: str) -> list[float]:
        """Return the learning rates to choose from for a method."""
        own = self.fields[name].get("recipe", {}).get("learning_rate", self.rates)
        return np.atleast_1d(own).tolist()

    def tune(self, setting: Setting) -> tuple[dict[str, float], pd.DataFrame]:
        """Return the rate of each method that is best on validation images at seed 0, and the accuracies tried.

        It is chosen on the first kind of labels that a method has; see ``gcplib.lab.training.tune``.
        """
        labels = {name: found[0] for name in self.fields if (found := self.kinds(name, setting.kinds))}
        first = {name: self.spec(name, kind, 0, self.rates_of(name)[0]) for name, kind in labels.items()}
        tuned = setting.tune(first, {name: self.rates_of(name) for name in first})
        return {name: self.rates_of(name)[0] for name in self.fields} | tuned.best, tuned.table

    def cases(self, kinds: Sequence[str], seeds: int, rates: Mapping[str, float]) -> list[Case]:
        """Return every run: of each kind of labels, each method that has it, and each seed."""
        names = {kind: [name for name in self.fields if self.kinds(name, [kind])] for kind in kinds}
        return [(name, kind, seed, rates[name]) for kind in kinds for name in names[kind] for seed in range(seeds)]

    def by_pools(self) -> dict[str, str]:
        """Return the methods without options by their pools, joined by + where one takes over from another."""
        found: dict[str, str] = {}
        for name, fields in self.fields.items():
            if not fields.get("options"):
                switch = fields.get("recipe", {}).get("switch", [])
                found.setdefault("+".join([fields["pool"], *(entry["pool"] for entry in switch)]), name)
        return found


@dataclass(frozen=True)
class Trained:
    """Runs by case; ``results`` with a row for each and its ``score`` in percent, ``curves`` with one per epoch."""

    runs: Mapping[Case, Run]
    results: pd.DataFrame
    curves: pd.DataFrame


def train_methods(setting: Setting, methods: Methods, cases: Sequence[Case]) -> Trained:
    """Train the missing runs of some cases, and say in a line how it went; for scores see ``Setting.scores``.

    Args:
        setting: images and network.
        methods: what the names of the cases stand for; the runs are variants of the setting's.
        cases: what to train.
    """
    of_setting = Methods(setting.base, methods.fields, methods.rates)
    runs = setting.train(of_setting.spec(*case) for case in cases)
    by_case = dict(zip(cases, runs, strict=True))
    table = setting.scores(by_case, ["method", "labels", "seed", "learning_rate"])
    table.insert(0, "method", table.pop("method"))
    table["images"], table["pixels"] = len(setting.dataset), setting.base.data.pixels
    return Trained(by_case, table, curves_of(by_case, ["method", "labels", "seed", "rate"]))


def most_confused(trained: Trained, method: str, names: Sequence[str], count: int = 8) -> pd.DataFrame:
    """Return the fine classes that a method confuses most, over all seeds, in percent of a class's test images."""
    import pandas as pd

    told = pd.concat(
        run.predictions
        for case, run in trained.runs.items()
        if case[:2] == (method, "fine") and run.result["outcome"] == "finished"
    )
    wrong = told[told.label != told.prediction].groupby(["label", "prediction"]).size()
    every = told.groupby("label").size()
    percent = 100 * wrong / every.reindex(wrong.index.get_level_values(0)).to_numpy()
    rows = [(names[a], names[b], f"{value:.0f}") for (a, b), value in percent.nlargest(count).items()]
    return pd.DataFrame(rows, columns=["class", "taken for", "% of its test images"])
