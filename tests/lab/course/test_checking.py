"""What a learner is told, and that nothing a learner writes hurts the kernel."""

import contextlib
import threading
import time
from dataclasses import replace

import pytest
import torch

from gcplib.lab.course import checking
from gcplib.lab.course.checking import Task, Unsolved, Wrong, check, judge, use_solutions
from gcplib.lab.course.limits import within
from gcplib.lab.course.tasks.notebook_00 import covariance

X = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
DOUBLE = Task("Double it.", lambda x: 2 * x, lambda: [(X,)], seconds=60)
HURRIED = replace(DOUBLE, seconds=0.5)


def loops(x):
    while True:
        pass


def sleeps(x):
    time.sleep(4)


def fails(x):
    y = x @ x
    return y


def writes(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (loops, r"no answer within 0\.5 s"),
        (sleeps, r"no answer within 0\.5 s"),
        (fails, r"in your line `y = x @ x`: RuntimeError: .*for a float32 tensor \(3, 5\)"),
        (writes, "it changes the tensor that it is given"),
        (lambda x: None, "it returns None; is there a `return`?"),
        (lambda x: (2 * x).tolist(), r"it returns several values in one, expected a tensor \(3, 5\)"),
        (lambda x: 2 * x.T, r"the shape is \(5, 3\), expected \(3, 5\)"),
        (lambda x: 2 * x.double(), "the dtype is torch.float64, expected torch.float32"),
        (lambda x: x / 0 * 0, "15 of 15 entries are NaN or infinite"),
        (lambda x: x, r"every entry is 0\.5 times the right one"),
        (lambda x: -2 * x, "every entry is -1 times the right one"),
        (lambda x: 2 * x + (x == x[1, 2]), r"at entry \(1, 2\) it is"),
        (lambda x: {"a": x}, "it returns several values in one"),
        (5, "expected a function or class, got int"),
    ],
)
def test_an_answer_is_told_what_is_wrong(answer, words):
    with pytest.raises(Wrong, match=words):
        judge(HURRIED if answer in (loops, sleeps) else DOUBLE, answer)


def test_results_of_several_parts_are_told_apart():
    task = Task("Both.", lambda x: {"value": x, "slope": 2 * x}, lambda: [(X,)])
    with pytest.raises(Wrong, match=r"slope: every entry is 1\.5 times the right one"):
        judge(task, lambda x: {"value": x, "slope": 3 * x})
    with pytest.raises(Wrong, match="slope is missing; it returns value"):
        judge(task, lambda x: {"value": x})
    with pytest.raises(Wrong, match=r"it returns a tensor \(3, 5\), expected 2 values: value, slope"):
        judge(task, lambda x: x)


def test_a_square_answer_may_be_transposed():
    left, right = X @ X.T, X @ X.T + torch.diag(torch.arange(3.0))
    task = Task("The product.", lambda a, b: a @ b, lambda: [(left, right)])
    with pytest.raises(Wrong, match="it is transposed"):
        judge(task, lambda a, b: b @ a)


def test_a_line_of_a_class_is_named():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g @ ctx.saved_tensors[0]

    def slope(answer, x):
        return torch.autograd.grad(answer.apply(x).sum(), x)[0]

    def solution(ctx, g):
        return 2 * g * ctx.saved_tensors[0]

    right = type("Right", (Square,), {"backward": staticmethod(solution)})
    task = Task("The square.", right, lambda: [(X.clone().requires_grad_(),)], run=slope)
    with pytest.raises(Wrong, match=r"in your line `return g @ ctx\.saved_tensors\[0\]`: RuntimeError"):
        judge(task, Square)


def test_a_mistake_that_makes_nan_is_known():
    task = Task("Roots.", lambda x: x.clamp_min(0).sqrt(), lambda: [(X,)], mistakes={"clamp": torch.sqrt})
    with pytest.raises(Wrong, match="clamp"):
        judge(task, lambda x: x**0.5)
    with pytest.raises(Wrong, match="entries are NaN"):
        judge(task, lambda x: 2 * x.sqrt())


def test_an_endless_loop_ends_and_so_does_its_thread():
    before = threading.active_count()
    with pytest.raises(TimeoutError):
        within(0.2, loops, X)
    assert threading.active_count() == before


def test_a_loop_that_catches_everything_ends_as_well():
    def stubborn():
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    with pytest.raises(TimeoutError):
        within(0.2, stubborn)


def test_gradients_are_asked_for_where_the_case_asks():
    x = X.clone().requires_grad_()
    task = Task(
        "The gradient.", lambda a: a.square().sum(), lambda: [(x,)], run=lambda f, a: torch.autograd.grad(f(a), a)[0]
    )
    assert judge(task, lambda a: (a * a).sum()) == 1
    assert x.grad is None


def test_numbers_drawn_after_a_check_do_not_depend_on_it():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    judge(DOUBLE, lambda x: 2 * x + 0 * torch.rand(3, 5))
    assert torch.equal(torch.rand(1), expected)


@pytest.fixture
def solutions():
    use_solutions()
    yield
    use_solutions(False)


def stub(X):
    raise NotImplementedError


def test_a_right_answer_is_returned_as_it_is(capsys):
    def mine(X):
        return torch.cov(X, correction=0)

    assert check("00_covariance", mine) is mine
    assert "task 00_covariance: right, on 2 inputs" in capsys.readouterr().out


def test_an_unsolved_task_stops_with_what_to_write_and_how_to_go_on():
    with pytest.raises(Unsolved, match=r"task 00_covariance: not solved yet\. Write the body.*use_solutions\(\)"):
        check("00_covariance", stub)
    with pytest.raises(Wrong, match="task 00_covariance: the mean is not removed"):
        check("00_covariance", lambda X: X @ X.T / X.shape[1])


@pytest.mark.usefixtures("solutions")
@pytest.mark.parametrize("answer", [stub, lambda X: X])
def test_solutions_are_taken_where_they_are_asked_for(answer, capsys):
    assert check("00_covariance", answer) is covariance
    assert "The solution is used from here on." in capsys.readouterr().out


def test_an_assignment_that_is_graded_takes_no_solutions(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    use_solutions()
    with pytest.raises(Unsolved):
        check("00_covariance", stub)
    assert not checking._state["solutions"]


def test_only_the_message_is_shown():
    assert Wrong("it is wrong")._render_traceback_() == ["Wrong: it is wrong"]


def test_unknown_tasks_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no task '00_nothing'; notebook 00 has 00_average"):
        check("00_nothing", covariance)
    with pytest.raises(ValueError, match="no notebook '99' has tasks"):
        check("99_covariance", covariance)
