"""Many runs in a row, and runs whose processes are killed at random: nothing leaks, nothing stays.

MINI_DOCKER_SOAK=1000 sets the number of runs (default 100, `make soak` 1,000); the kills are a fifth of it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mini_docker.lab import find_leaks, snapshot
from tests.system import Lab, lab  # noqa: F401 (a fixture)

pytestmark = pytest.mark.root
RUNS = int(os.environ.get("MINI_DOCKER_SOAK", "100"))


def links(lab: Lab) -> list[str]:
    """Return the network links of the lab's namespace."""
    return lab.run("--network", "host", "busybox", "ls", "/sys/class/net").stdout.split()


def settled(lab: Lab) -> list[str]:
    """Return the links once the kernel has taken down the namespaces of dead containers."""
    deadline = time.monotonic() + 10
    while True:
        found = links(lab)
        cables = [name for name in found if name.startswith("md") and "-" not in name]
        if not cables or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_many_runs_leak_nothing(lab: Lab) -> None:
    lab.run("busybox", "true")
    before, links_before = snapshot(), settled(lab)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda i: lab.run("busybox", "echo", str(i)), range(RUNS)))
    wrong = [
        done for i, done in enumerate(results) if (done.returncode, done.stdout) != (0, f"{i}\n")
    ]
    assert wrong == []
    assert settled(lab) == links_before
    assert lab.leftovers() == []
    assert find_leaks(before) == []


def descendants(pid: int) -> list[int]:
    """Return `pid` and the processes below it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except OSError:
        return [pid]
    return [pid, *(found for child in children for found in descendants(child))]


def test_a_random_kill_leaves_nothing_that_the_next_command_does_not_clean(lab: Lab) -> None:
    """kill -9 of any process of ours, at a random moment of set-up, run or clean-up."""
    seed = int(os.environ.get("MINI_DOCKER_SEED", "1"))
    chance = random.Random(seed)
    lab.run("busybox", "true")
    before, links_before = snapshot(), settled(lab)
    hit = 0
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    for _ in range(max(20, RUNS // 5)):
        process = lab.popen("run", "--rm", "busybox", "sleep", "0.02", **quiet)
        time.sleep(chance.uniform(0, 0.09))
        victim = chance.choice(descendants(process.pid))
        try:
            os.kill(victim, signal.SIGKILL)
            hit += process.poll() is None
        except ProcessLookupError:
            pass
        process.wait(30)
    assert hit > 0, "no kill came in time: the test has tested nothing"
    assert lab.run("busybox", "echo", "alive").stdout == "alive\n"
    assert lab.leftovers() == []
    assert settled(lab) == links_before
    assert find_leaks(before) == []
