"""Faults of the daemon's own processes and of the disk: what dies is replaced, what lives goes on.

MINI_DOCKER_SOAK=1000 makes it a hundred random kills of the daemon (default 6; `make soak` does it).
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from mini_docker.engine.store import Store
from mini_docker.images.layout import MEDIA_TYPE_LAYER, Digest
from tests.daemons import WAIT, Daemon, all_of, go
from tests.registries import contents, image_of, make_layer, make_store, serve
from tests.system import ROOT, children, has_ended, until
from tests.test_daemon_kills import WithRegistry

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]


def shim_of(pid: int) -> int:
    """Return the parent of a container's first process."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(") ")[2].split()[1])


# ---- the zygote and the shims ----


def test_a_zygote_that_dies_is_replaced_and_containers_go_on(daemon: Daemon) -> None:
    daemon.run("before", "sh", "-c", "read x; exit 7", OpenStdin=True)
    for turn in range(2):
        until(lambda: len(children(daemon.process.pid, "md-zygote")) == 1)  # and no zombie
        (zygote,) = children(daemon.process.pid, "md-zygote")
        os.kill(zygote, signal.SIGKILL)
        daemon.run(f"after{turn}", "echo", "alive", HostConfig={"NetworkMode": "bridge"})
        assert daemon.ask("POST", f"/containers/after{turn}/wait")[1]["StatusCode"] == 0
        assert daemon.logs(f"after{turn}")[8:] == b"alive\n"
    until(lambda: len(children(daemon.process.pid, "md-zygote")) == 1)
    assert daemon.state("before")["Running"]
    stream = daemon.upgrade("/containers/before/attach?stream=1&stdin=1")
    stream.sendall(b"\n")
    stream.close()
    assert daemon.ask("POST", "/containers/before/wait")[1]["StatusCode"] == 7


def test_a_zygote_that_stands_still_is_killed_with_an_order_in_its_hand(daemon: Daemon) -> None:
    """The order is sent, and the one who was to obey it dies: its successor is asked again."""
    until(lambda: len(children(daemon.process.pid, "md-zygote")) == 1)
    (zygote,) = children(daemon.process.pid, "md-zygote")
    daemon.create("late", "echo", "alive")
    os.kill(zygote, signal.SIGSTOP)
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(0.5)
            os.kill(zygote, signal.SIGKILL)
        finally:
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


# ---- while no daemon looks ----


def test_what_ends_while_no_daemon_looks_is_noted_as_it_was(daemon: Daemon) -> None:
    """Exit codes, the kernel's kill for memory, and what each policy makes of it."""
    often = {"RestartPolicy": {"Name": "on-failure"}}
    daemon.run("fine", "sh", "-c", WAIT + "exit 0", HostConfig=often)
    daemon.run("fails", "sh", "-c", WAIT + "rm /go; exit 3", HostConfig=often)
    daemon.run("greedy", "sh", "-c", WAIT + "exec tail /dev/zero", HostConfig={"Memory": 20 << 20})
    names = ("fine", "fails", "greedy")
    pids = [daemon.state(name)["Pid"] for name in names]
    started = daemon.state("greedy")["StartedAt"]
    daemon.kill()
    go(*pids)
    until(lambda: all(has_ended(pid) for pid in pids))
    daemon.start()
    until(lambda: [daemon.state(name)["Pid"] in pids for name in names] == [False] * 3)
    until(lambda: daemon.state("fails")["Running"])
    fine, fails, greedy = (daemon.state(name) for name in names)
    assert (fine["Status"], fine["ExitCode"]) == ("exited", 0)
    assert fails["Status"] == "running" and fails["Pid"] not in pids
    assert (greedy["Status"], greedy["ExitCode"], greedy["OOMKilled"]) == ("exited", 137, True)
    assert greedy["StartedAt"] == started


# ---- a full disk ----


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[WithRegistry]:
    """A daemon whose data root is a disk of 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True)
    try:
        daemon = WithRegistry(disk)
        try:
            yield daemon
        finally:
            (disk / "filler").unlink(missing_ok=True)
            daemon.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(disk: pathlib.Path) -> None:
    """Take all the room that there is."""
    with open(disk / "filler", "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


def files_of(daemon: Daemon) -> set[str]:
    """Return the names of containers, networks, volumes, images, and of whatever is half written."""
    kinds = ("containers", "names", "running", "network", "network/leases", "volumes", "layers")
    found = [path for kind in kinds for path in (daemon.root / kind).glob("*")]
    found = [path for path in found if path.name != "lock"]
    return {str(path) for path in (*found, *daemon.root.rglob("*.tmp"))}


def test_a_full_disk_is_said_changes_nothing_and_is_survived(small_disk: Daemon) -> None:
    daemon = small_disk
    daemon.run("talks", "sh", "-c", "while read x; do echo $x; done; exit 7", OpenStdin=True)
    daemon.create("waits", "true")
    daemon.run("ends", "sleep", "1000", StopSignal="KILL")
    fill(daemon.root)
    before = files_of(daemon)
    network = {"Name": "net", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]}}
    image = {"Image": "busybox", "Cmd": ["true"]}
    for path, body in (
        ("/containers/create?name=new", image),
        ("/containers/waits/start", None),
        ("/volumes/create", {"Name": "new"}),
        ("/networks/create", network),
        ("/commit?container=waits&repo=new", None),
        ("/containers/waits/rename?name=other", None),
    ):
        status, answer = daemon.ask("POST", path, body)
        assert status == 500 and "no space left on device" in answer["message"].lower(), (
            path,
            answer,
        )
        assert files_of(daemon) == before, path
    said = {"Cmd": ["sh", "-c", "echo here; exit 3"], "AttachStdout": True}
    exec_id = daemon.ask("POST", "/containers/talks/exec", said)[1]["Id"]
    assert all_of(daemon.upgrade(f"/exec/{exec_id}/start", b"{}"))[8:] == b"here\n"
    assert daemon.ask("GET", f"/exec/{exec_id}/json")[1]["ExitCode"] == 3, "it needs no disk"
    assert daemon.ask("GET", "/containers/waits/json")[1]["State"]["Status"] == "created"
    assert daemon.ask("POST", "/containers/ends/stop") == (204, "")
    assert daemon.state("ends")["ExitCode"] == 137
    stream = daemon.upgrade("/containers/talks/attach?stream=1&stdin=1&stdout=1")
    stream.sendall(b"hello\n")
    assert stream.recv(100)[8:] == b"hello\n", "the container goes on, though its log does not"
    daemon.kill()
    daemon.start()
    assert daemon.state("talks")["Running"] and daemon.state("ends")["ExitCode"] == 137
    (daemon.root / "filler").unlink()
    assert daemon.ask("POST", "/containers/waits/start") == (204, "")
    assert daemon.ask("POST", "/containers/create?name=new", image)[0] == 201
    stream.sendall(b"again\n")
    assert stream.recv(100)[8:] == b"again\n"
    stream.close()
    daemon.ask("POST", "/containers/talks/kill")
    until(lambda: not daemon.state("talks")["Running"])
    assert daemon.logs("talks").endswith(b"again\n")


def test_a_pull_that_fills_the_disk_says_so_and_leaves_nothing(
    small_disk: WithRegistry, tmp_path: pathlib.Path
) -> None:
    """Both ways: a layer that does not fit is refused at once, one that swells is stopped half way."""
    daemon, made = small_disk, make_store(tmp_path / "images")
    swells, diff_id = make_layer({"a": b"here", "zeros": bytes(60 << 20)})
    large = os.urandom(41 << 20)
    image_of(made, "swells", (swells, diff_id))
    image_of(made, "large", (large, Digest.of(large)), kind=MEDIA_TYPE_LAYER)
    images = Store(str(daemon.root)).layout
    before = files_of(daemon), contents(images)
    for name in ("swells", "large"):
        serve(daemon.registry, made, name, f"lab/{name}")
        path = f"/images/create?fromImage={daemon.registry.host}/lab/{name}&tag=1"
        _, said = daemon.ask("POST", path)
        for words in (daemon.registry.host, f"lab/{name}", "o space left on device", "remedy: "):
            assert words in str(said), said
        assert (files_of(daemon), contents(images)) == before, said
    daemon.run("after", "true")
    assert daemon.ask("POST", "/containers/after/wait")[1]["StatusCode"] == 0


def test_a_container_that_fills_the_disk_has_its_exit_code_kept(small_disk: Daemon) -> None:
    daemon = small_disk
    daemon.run("fills", "sh", "-c", "cat /dev/zero >/big; echo full; exit 9")
    assert daemon.ask("POST", "/containers/fills/wait")[1]["StatusCode"] == 9
    daemon.kill()
    daemon.start()
    assert daemon.state("fills")["ExitCode"] == 9
    assert daemon.ask("DELETE", "/containers/fills") == (204, "")


# ---- a clock that is set ----

JUMPING = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
def jump():
    with open(sys.argv[2] + "/jump") as file:
        return int(file.read()) * 1_000_000_000
real = time.time_ns
time.time_ns = lambda: real() + jump()
time.time = lambda: time.time_ns() / 1e9
from mini_docker.api.daemon import main
sys.exit(main(sys.argv[1:]))
"""
DAY = 86400


class Jumping(Daemon):
    """A daemon, zygote and shims on a clock that `jump` sets: as with date(1), durations go on."""

    def command(self) -> list[str]:
        self.jump(0)
        return ["/usr/bin/python3", "-I", "-c", JUMPING, str(ROOT)]

    def jump(self, seconds: int) -> None:
        (self.root / "jump.new").write_text(str(seconds))
        os.rename(self.root / "jump.new", self.root / "jump")

    def exit_of(self, container_id: str) -> dict[str, float]:
        found: dict[str, float] = json.loads(
            (self.root / "containers" / container_id / "life.json").read_text()
        )
        return found


@pytest.mark.parametrize("seconds", [DAY, -DAY])
def test_a_clock_that_jumps_changes_no_duration(tmp_path: pathlib.Path, seconds: int) -> None:
    daemon = Jumping(tmp_path)
    try:
        short = daemon.run("short", "sh", "-c", "read x", OpenStdin=True)
        check = {"Interval": 100_000_000, "Test": ["CMD", "true"]}
        daemon.run("talks", "sh", "-c", "while read x; do echo $x; done", OpenStdin=True,
                   Healthcheck=check)  # fmt: skip
        stream = daemon.upgrade("/containers/talks/attach?stream=1&stdin=1&stdout=1")
        stream.sendall(b"before\n")
        assert stream.recv(100)[8:] == b"before\n"
        middle = int(time.time() + seconds / 2)
        daemon.jump(seconds)
        stream.sendall(b"after\n")
        assert stream.recv(100)[8:] == b"after\n"
        later, earlier = (b"after\n", b"before\n") if seconds > 0 else (b"before\n", b"after\n")
        assert daemon.logs("talks", f"stdout=1&since={middle}")[8:] == later
        assert daemon.logs("talks", f"stdout=1&until={middle}")[8:] == earlier
        daemon.ask("POST", "/containers/short/kill?signal=KILL")
        daemon.ask("POST", "/containers/short/wait")
        assert 0 <= daemon.exit_of(short)["Lived"] < 1000
        until(lambda: daemon.state("talks")["Health"]["Status"] == "healthy")
        probes = len(daemon.state("talks")["Health"]["Log"])
        until(lambda: probes >= 5 or len(daemon.state("talks")["Health"]["Log"]) > probes)
        began = time.monotonic()
        assert daemon.ask("POST", "/containers/talks/stop?t=1") == (204, "")
        assert 0.9 < time.monotonic() - began < DAY / 2
    finally:
        daemon.close()
