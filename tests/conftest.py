"""What every test has: the notebooks' folders importable, predictions kept apart, a watch for leaks.

A test never passes by skipping: where it cannot run it says `cannot run here, because ...`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

from mini_docker.lab import find_leaks, snapshot  # noqa: E402


def cannot_run_here(reason: str) -> NoReturn:
    """Skip the running test, aloud."""
    pytest.skip(f"cannot run here, because {reason}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `root` say so when there is no root."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        cannot_run_here("you are not root (remedy: sudo make test)")


@pytest.fixture(autouse=True)
def _lab_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the learner's recorded predictions out of the tests."""
    monkeypatch.setenv("MINI_DOCKER_LAB_DIR", str(tmp_path / "lab"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Compare the machine before and after the whole suite; what is left behind fails the session."""
    before = snapshot()
    yield
    if leaked := find_leaks(before):
        pytest.fail("the tests left behind:\n  " + "\n  ".join(leaked), pytrace=False)


@pytest.fixture
def leak_free() -> Iterator[None]:
    """Compare the machine before and after one test."""
    before = snapshot()
    yield
    if leaked := find_leaks(before):
        pytest.fail("this test left behind:\n  " + "\n  ".join(leaked), pytrace=False)
