"""Verdicts: three outcomes, one line each."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from mini_docker.lab import CannotRun, Verdict, cannot_run, check, failed, passed


@check
def check_root(answer: Callable[[int], float]) -> Verdict:
    """Want a function that is good for 4."""
    return passed(str(answer(4)))


@check
def check_seven(answer: object) -> Verdict:
    """Want a function that returns 7."""
    if answer == "cannot":
        raise CannotRun("the kernel is old", "a new one")
    value = answer()  # type: ignore[operator]
    return passed("seven it is") if value == 7 else failed(f"it returned {value!r}")


def test_one_line_each() -> None:
    assert repr(passed("seven")) == "✔ seven"
    assert repr(failed("six")) == "✘ six"
    assert repr(cannot_run("because of this")) == "– cannot run here, because of this"
    assert repr(cannot_run("the kernel is old")) == "– cannot run here, because the kernel is old"


@pytest.mark.parametrize("verdict", [passed(""), failed(""), cannot_run("")])
def test_three_outcomes_do_not_fit_into_a_bool(verdict: Verdict) -> None:
    with pytest.raises(TypeError, match="outcome"):
        bool(verdict)


def test_a_check_diagnoses_what_the_answer_raises() -> None:
    assert check_seven(lambda: 7).outcome == "passed"
    assert repr(check_seven(lambda: 6)) == "✘ it returned 6"
    assert repr(check_seven(lambda: 7 // 0)).startswith(
        "✘ your function raised ZeroDivisionError: "
    )
    elsewhere = eval(
        "lambda number: math.sqrt(number - 9)", {"math": math}
    )  # not in the check's file
    assert repr(check_root(elsewhere)) == (
        "✘ your function raised ValueError: math domain error (number=4)"
    )
    assert repr(check_seven(None)).startswith(
        "✘ the check can do nothing with your answer: TypeError:"
    )
    assert repr(check_seven("cannot")) == "– cannot run here, because the kernel is old"
    assert check_seven.__doc__ == "Want a function that returns 7."
