"""What every test has: the notebooks' folders importable, predictions kept apart, a watch for leaks.

A test never passes by skipping: where it cannot run it says `cannot run here, because ...`.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks")]

from mini_docker.lab import compare, find_leaks, snapshot  # noqa: E402
from mini_docker.lab.leaks import Snapshot  # noqa: E402
from tests.daemons import (  # noqa: E402
    Daemon,
    both,
    daemon,
    dockerd,
    own_daemon,
    shared_daemon,
    shared_dockerd,
)
from tests.system import cannot_run_here  # noqa: E402

__all__ = ["cannot_run_here"]
__all__ += [
    "both",
    "daemon",
    "dockerd",
    "own_daemon",
    "shared_daemon",
    "shared_dockerd",
]  # fixtures
LONG_LIVED = ("shared_daemon", "shared_dockerd", "shared_remapped", "guarded")  # daemons
DEVICES = [
    f"/dev/{name}"
    for name in "console core fd full null ptmx random stderr stdin stdout tty urandom zero".split()
]
THREADS = pytest.StashKey[set[threading.Thread]]()
PATIENCE = 60.0  # seconds; the kernel removes namespaces and control groups when it has time


def pytest_configure() -> None:
    """Take Ctrl-C and Ctrl-\\ as usual, and let all children do: a shell's "&" has both ignored for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `root` say so when there is no root."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        cannot_run_here("you are not root (remedy: sudo make test)")


@pytest.fixture(scope="session")
def _labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return paths that few tests make directories of: a tmp_path for each would cost more than they do."""
    place = tmp_path_factory.mktemp("labs")
    return (place / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _lab_dir(_labs: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the learner's recorded predictions out of the tests."""
    monkeypatch.setenv("MINI_DOCKER_LAB_DIR", str(next(_labs)))


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment is not stopped because the machine is busy."""
    monkeypatch.setenv("MINI_DOCKER_LAB_PATIENCE", "20")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Compare the machine before and after the whole suite; what is left behind fails the session."""
    before = snapshot()
    yield
    if leaked := find_leaks(before, PATIENCE):
        pytest.fail("the tests left behind:\n  " + "\n  ".join(leaked), pytrace=False)


@pytest.fixture
def leak_free(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the machine before and after one test; a shared daemon may have been replaced by its like."""
    names = [name for name in LONG_LIVED if name in request.fixturenames]
    daemons: list[Daemon] = [request.getfixturevalue(name) for name in names]
    for one in daemons:
        one.make_groups()
    before = snapshot()
    yield
    end = time.monotonic() + PATIENCE
    while leaked := leaks_beside(daemons, before):
        if time.monotonic() > end:
            pytest.fail("this test left behind:\n  " + "\n  ".join(leaked), pytrace=False)
        time.sleep(0.05)


def leaks_beside(daemons: list[Daemon], before: Snapshot) -> list[str]:
    """Return what is new since `before` and is no process of daemons that other tests go on with."""
    kept = tuple(f"process {pid} (" for one in daemons for pid in one.processes())
    return [line for line in compare(before, snapshot()) if not line.startswith(kept)]


def places() -> dict[str, tuple[int, int]]:
    """Return mode and number of what is in the machine's root and, of a runtime's making, in its /dev."""
    found = {}
    for path in (*(f"/{name}" for name in os.listdir("/")), *DEVICES):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        found[path] = (status.st_mode, status.st_rdev)
    return found


@pytest.fixture(autouse=True)
def _the_root_stays() -> Iterator[None]:
    """The machine's own root is nobody's to change: who takes it for a container's is seen at once."""
    before = places()
    yield
    assert places() == before, "this test changed the machine's root or /dev"


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Remember the threads of fixtures that outlive a test."""
    before = set(threading.enumerate())
    made = yield
    if fixturedef.scope != "function":
        kept = request.session.stash.setdefault(THREADS, set())
        kept |= set(threading.enumerate()) - before
    return made


@pytest.fixture(autouse=True)
def _threads_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whoever starts a thread waits for its end: one that is left makes every later fork a gamble."""
    kept: set[threading.Thread] = request.session.stash.setdefault(THREADS, set())
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + PATIENCE
    while left := set(threading.enumerate()) - before - kept:
        if time.monotonic() > end:
            pytest.fail(f"this test left threads running: {left}", pytrace=False)
        time.sleep(0.01)
