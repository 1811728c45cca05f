"""Faults of the daemon's own processes and of the disk: what dies is replaced, what lives goes on.

MINI_DOCKER_SOAK=1000 makes it a hundred random kills of the daemon (default 6; `make soak` does it).
"""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.test_daemon import Daemon, all_of

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]


@pytest.fixture
def daemon(tmp_path: pathlib.Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    try:
        yield daemon
    finally:
        daemon.close()


def children(pid: int, name: str) -> list[int]:
    """Return the children of a process that call themselves `name`."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == name:
                found.append(int(child))
    return found


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def shim_of(pid: int) -> int:
    """Return the parent of a container's first process."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(") ")[2].split()[1])


# ---- the zygote and the shims ----


def test_a_zygote_that_dies_is_replaced_and_containers_go_on(daemon: Daemon) -> None:
    daemon.run("before", "sh", "-c", "read x; exit 7", OpenStdin=True)
    for turn in range(2):
        (zygote,) = children(daemon.process.pid, "md-zygote")
        os.kill(zygote, signal.SIGKILL)
        daemon.run(f"after{turn}", "echo", "alive", HostConfig={"NetworkMode": "bridge"})
        assert daemon.ask("POST", f"/containers/after{turn}/wait")[1]["StatusCode"] == 0
        assert daemon.logs(f"after{turn}")[8:] == b"alive\n"
    assert len(children(daemon.process.pid, "md-zygote")) == 1
    assert daemon.state("before")["Running"]
    stream = daemon.upgrade("/containers/before/attach?stream=1&stdin=1")
    stream.sendall(b"\n")
    stream.close()
    assert daemon.ask("POST", "/containers/before/wait")[1]["StatusCode"] == 7


def test_a_zygote_that_stands_still_is_killed_with_an_order_in_its_hand(daemon: Daemon) -> None:
    """The order is sent, and the one who was to obey it dies: its successor is asked again."""
    (zygote,) = children(daemon.process.pid, "md-zygote")
    daemon.create("late", "echo", "alive")
    os.kill(zygote, signal.SIGSTOP)
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os.kill(zygote, signal.SIGKILL)
        os._exit(0)
    assert daemon.ask("POST", "/containers/late/start") == (204, "")
    os.waitpid(pid, 0)
    assert daemon.ask("POST", "/containers/late/wait")[1]["StatusCode"] == 0


def test_a_killed_shim_takes_its_container_along_and_137_is_noted(daemon: Daemon) -> None:
    daemon.run("one", "sh", "-c", "sleep 1000 & sleep 1000")
    daemon.run("two", "sleep", "1000", HostConfig={"RestartPolicy": {"Name": "always"}})
    inits = [daemon.state(name)["Pid"] for name in ("one", "two")]
    for init in inits:
        os.kill(shim_of(init), signal.SIGKILL)
    until(lambda: not daemon.state("one")["Running"])
    assert daemon.state("one")["ExitCode"] == 137
    until(lambda: daemon.state("two")["Running"] and daemon.state("two")["Pid"] not in inits)
    assert daemon.ask("POST", "/containers/one/start") == (204, "")


def test_a_killed_exec_ends_its_clients_stream_and_the_container_lives(daemon: Daemon) -> None:
    daemon.run("host", "sleep", "1000")
    body = {"Cmd": ["sleep", "999"], "AttachStdout": True}
    exec_id = daemon.ask("POST", "/containers/host/exec", body)[1]["Id"]
    stream = daemon.upgrade(f"/exec/{exec_id}/start", b"{}")
    until(lambda: daemon.ask("GET", f"/exec/{exec_id}/json")[1]["Running"])
    os.kill(shim_of(daemon.ask("GET", f"/exec/{exec_id}/json")[1]["Pid"]), signal.SIGKILL)
    assert all_of(stream) == b""
    until(lambda: not daemon.ask("GET", f"/exec/{exec_id}/json")[1]["Running"])
    assert daemon.ask("GET", f"/exec/{exec_id}/json")[1]["ExitCode"] == 137
    assert daemon.state("host")["Running"]
