"""Learning rates are chosen by validation accuracy, from one list for all, and a step beyond its end."""

from types import SimpleNamespace

import pytest

from gcplib.lab.data import TypefacesSpec
from gcplib.lab.training import RunSpec, tune

SPEC = RunSpec(data=TypefacesSpec(families=2, train=2, validation=1, test=1, pixels=64))
RATES = [0.2, 0.05, 0.1]


def tuned(accuracy, rates=None):
    """The result, and the rates that were trained, where ``accuracy`` is a function of the rate."""
    asked = []

    def train(specs):
        asked.extend(spec.recipe.learning_rate for spec in specs)
        return [SimpleNamespace(result={"validation_accuracy": accuracy(spec.recipe.learning_rate)}) for spec in specs]

    return tune({"one": SPEC}, {"one": RATES if rates is None else rates}, train), asked


def test_the_best_rate_within_the_list_is_taken_and_no_other_is_tried():
    found, asked = tuned(lambda rate: 90 if rate == 0.1 else 80)
    assert (found.best, asked) == ({"one": 0.1}, [0.05, 0.1, 0.2])
    assert found.table.loc["one"].to_dict() == {0.05: 80, 0.1: 90, 0.2: 80}


@pytest.mark.parametrize(("sign", "beyond"), [(1, 0.4), (-1, 0.025)])
def test_where_an_end_is_best_the_rate_beyond_it_is_tried_once(sign, beyond):
    found, asked = tuned(lambda rate: 50 + sign * rate)
    assert (found.best, asked) == ({"one": beyond}, [0.05, 0.1, 0.2, beyond])


def test_the_rate_beyond_an_end_is_not_taken_where_it_is_worse():
    found, asked = tuned(lambda rate: 100 * rate if rate <= 0.2 else 0)
    assert (found.best, asked[-1]) == ({"one": 0.2}, 0.4)


def test_diverged_runs_are_never_the_best_and_ties_go_to_the_lowest_rate():
    found, _ = tuned(lambda rate: None if rate > 0.05 else 10)
    assert found.best == {"one": 0.05}
    assert tuned(lambda rate: 70)[0].best == {"one": 0.05}


def test_a_single_rate_is_taken_without_training_and_none_is_refused():
    found, asked = tuned(None, [0.3])
    assert (found.best, asked, len(found.table)) == ({"one": 0.3}, [], 0)
    with pytest.raises(ValueError, match="no learning rate to choose from for one"):
        tuned(None, [])
