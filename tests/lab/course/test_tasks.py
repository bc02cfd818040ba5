"""Every task accepts right answers however they are written, and refuses wrong ones by the name of the error."""

from pathlib import Path

import pytest
import torch

from gcplib.lab.course.checking import Unsolved, Wrong, judge, tasks_of
from gcplib.lab.course.comparing import Different, compare, flat, frozen

NOTEBOOKS = sorted(
    path.stem.removeprefix("notebook_")
    for path in Path(__file__).parents[3].glob("gcplib/lab/course/tasks/notebook_*.py")
)
TASKS = {name: task for notebook in NOTEBOOKS for name, task in tasks_of(notebook).items()}


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_are_accepted_however_they_are_written(name):
    task = TASKS[name]
    assert task.alternatives
    for answer in (task.answer, *task.alternatives):
        assert judge(task, answer) > 0


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, task in TASKS.items() for words in task.mistakes])
def test_a_mistake_is_told_by_name(name, words):
    with pytest.raises(Wrong) as error:
        judge(TASKS[name], TASKS[name].mistakes[words])
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("name", TASKS)
def test_three_mistakes_are_known(name):
    assert len(TASKS[name].mistakes) >= 3


@pytest.mark.parametrize("name", TASKS)
def test_what_is_off_by_a_tenth_is_refused(name):
    task, refused = TASKS[name], 0
    for case in task.cases():
        right = flat(task.run(task.answer, *frozen(case)))
        numbers = {key: value for key, value in right.items() if not isinstance(value, str | bool | int)}
        for key in numbers:
            with pytest.raises(Different):
                compare(right | {key: numbers[key] * 1.1}, right, task.tolerance)
            refused += 1
    assert refused or not numbers


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("bad", [lambda *a: None, lambda *a: torch.full((2, 2), torch.nan), lambda *a: [], 3])
def test_what_no_answer_looks_like_is_refused(name, bad):
    with pytest.raises(Wrong):
        judge(TASKS[name], bad)


@pytest.mark.parametrize("name", TASKS)
def test_an_unwritten_answer_is_unsolved(name):
    def answer(*case, **options):
        raise NotImplementedError

    with pytest.raises(Unsolved, match="not solved yet"):
        judge(TASKS[name], answer)
