"""Many runs in a row, and runs with kill -9 at random moments: nothing leaks, nothing stays.

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

from mini_docker.lab import compare, snapshot
from tests.system import Lab, has_ended, lab, until  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.root, pytest.mark.anywhere]
RUNS = int(os.environ.get("MINI_DOCKER_SOAK", "100"))


def links(lab: Lab) -> list[str]:
    """Return the network links of the lab's namespace."""
    return lab.run("--network", "host", "busybox", "ls", "/sys/class/net").stdout.split()


def settled(lab: Lab) -> list[str]:
    """Return the links once the kernel has taken down the namespaces of dead containers."""
    deadline = time.monotonic() + 120
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
    until(lambda: not compare(before, snapshot()))


def descendants(pid: int) -> list[int]:
    """Return `pid` and the processes below it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except OSError:
        return [pid]
    return [pid, *(found for child in children for found in descendants(child))]


def keepers(daemon: int) -> list[int]:
    """Return the daemon and its shims, with what they look after."""
    return [pid for pid in descendants(daemon) if command_name(pid) != "md-zygote"]


def command_name(pid: int) -> str:
    """Return a process's name, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def test_a_random_kill_leaves_nothing_that_the_next_command_does_not_clean(lab: Lab) -> None:
    """kill -9 of a client, the daemon or a shim, at a random moment of a container's life."""
    seed = int(os.environ.get("MINI_DOCKER_SEED", "1"))
    chance = random.Random(seed)
    lab.run("busybox", "true")
    before, links_before = snapshot(), settled(lab)
    began = time.monotonic()
    lab.run("busybox", "sleep", "0.02")
    whole = time.monotonic() - began
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    for _ in range(max(10, RUNS // 5)):
        process = lab.popen("run", "--rm", "busybox", "sleep", "0.02", **quiet)
        time.sleep(chance.uniform(0, whole))
        victims = [process.pid] if chance.random() < 0.5 else keepers(lab.daemon_pid())
        try:
            victim = chance.choice(victims)
            os.kill(victim, signal.SIGKILL)
            until(lambda: has_ended(victim))  # noqa: B023
        except ProcessLookupError:
            pass
        process.wait(240)
        lab.call("ps")  # starts the daemon again, which recovers
    assert lab.run("busybox", "echo", "alive").stdout == "alive\n"
    lab.forget_created()  # of clients killed between create and start, as in Docker
    assert lab.leftovers() == []
    assert settled(lab) == links_before
    until(
        lambda: all("mini_dockerd" in leak or "md-" in leak for leak in compare(before, snapshot()))
    )
