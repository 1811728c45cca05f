"""Every exercise: the blank fails, each wrong answer fails with its words, the solution passes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_docker.lab import Exercise, Verdict
from tests.conftest import ROOT, cannot_run_here

pytestmark = pytest.mark.usefixtures("leak_free")


def exercises() -> Iterator[tuple[str, Exercise]]:
    """Yield (chapter, exercise) of every notebooks/solutions/chNN.py."""
    for path in sorted(Path(ROOT, "notebooks", "solutions").glob("ch*.py")):
        module = importlib.import_module(f"solutions.{path.stem}")
        assert module.EXERCISES, f"{path.name} has no EXERCISES"
        yield from ((path.stem, exercise) for exercise in module.EXERCISES)


EXERCISES = [pytest.param(ex, id=f"{chapter}-{ex.name}") for chapter, ex in exercises()]
WRONG = [
    pytest.param(ex, answer, words, id=f"{chapter}-{ex.name}-{getattr(answer, '__name__', index)}")
    for chapter, ex in exercises()
    for index, (answer, words) in enumerate(ex.wrong)
]


def verdict_of(exercise: Exercise, answer: object) -> Verdict:
    """Return the check's verdict; one that cannot run here is said aloud, never counted as a pass."""
    verdict = exercise.check(answer)
    assert isinstance(verdict, Verdict), f"{exercise.name}: its check returned {verdict!r}"
    if verdict.outcome == "cannot run":
        cannot_run_here(verdict.words.partition("because ")[2])
    return verdict


@pytest.mark.parametrize("exercise", EXERCISES)
def test_solution_passes(exercise: Exercise) -> None:
    verdict = verdict_of(exercise, exercise.solution)
    assert verdict.outcome == "passed", verdict
    assert exercise.wrong, f"{exercise.name} has no wrong answer"


@pytest.mark.parametrize("exercise", EXERCISES)
def test_blank_fails(exercise: Exercise) -> None:
    verdict = verdict_of(exercise, exercise.blank)
    assert verdict.outcome == "failed", verdict


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG)
def test_wrong_answer_is_diagnosed(
    exercise: Exercise, answer: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words in ("waits for ever", "for ever"):
        monkeypatch.setenv("MINI_DOCKER_LAB_PATIENCE", "0.1")
    verdict = verdict_of(exercise, answer)
    assert verdict.outcome == "failed"
    assert words in verdict.words, f"{words!r} is not in {verdict.words!r}"
