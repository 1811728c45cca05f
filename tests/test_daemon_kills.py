"""kill -9 of the daemon at random moments: the next one recovers, leaks nothing and loses nothing.

MINI_DOCKER_SOAK=1000 kills it 100 times (by default 5; `make soak`); MINI_DOCKER_SEED=7 chooses the moments.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, NamedTuple

import pytest

from mini_docker.lab.registry import TeachingRegistry
from mini_docker.namespaces.net import in_netns
from tests.daemons import Daemon, all_of
from tests.registries import make_image, make_store, serve
from tests.system import until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]
KILLS = max(5, int(os.environ.get("MINI_DOCKER_SOAK", "0")) // 10)
SEED = int(os.environ.get("MINI_DOCKER_SEED", "1"))
GONE = "gone"


class WithRegistry(Daemon):
    """A daemon with a registry in its network."""

    def prepare(self) -> None:
        self.registry = in_netns(self.netns_fd, TeachingRegistry).start()

    def close(self) -> None:
        super().close()
        self.registry.stop()


class Mortal(WithRegistry):
    """One whose registry has an image."""

    def prepare(self) -> None:
        super().prepare()
        images = make_store(self.root / "made")
        make_image(images, "far", {f"file{n}": os.urandom(100_000) for n in range(20)})
        serve(self.registry, images, "far", "far")
        shutil.rmtree(self.root / "made")


@pytest.fixture
def mortal(tmp_path: pathlib.Path) -> Iterator[Mortal]:
    daemon = Mortal(tmp_path)
    try:
        yield daemon
    finally:
        daemon.close()


class Step(NamedTuple):
    """A request, and what it makes of a thing: (kind, name) is `after` once it has been answered."""

    method: str
    path: str
    body: Any
    thing: tuple[str, str]
    after: str


def story(registry: str) -> list[Step]:
    """Return a piece of a daemon's life."""

    def container(name: str, **more: Any) -> Step:
        body = {"Image": "busybox", "Cmd": ["sh", "-c", "echo hi >/v/f; sleep 1000"], **more}
        return Step("POST", f"/containers/create?name={name}", body, ("container", name), "created")

    def to(name: str, verb: str, after: str) -> Step:
        path = f"/containers/{name}/{verb}"
        return Step("POST", path, None, ("container", name), after)

    volume = {"HostConfig": {"Binds": ["kept:/v"]}}
    none = {"HostConfig": {"NetworkMode": "none", "Binds": ["kept:/v"]}}
    far = f"{registry}/far"
    return [
        Step("POST", "/volumes/create", {"Name": "kept"}, ("volume", "kept"), "here"),
        container("one", **volume),
        to("one", "start", "running"),
        Step("POST", "/networks/create", {"Name": "net"}, ("network", "net"), "here"),
        Step("POST", "/networks/net/connect", {"Container": "one"}, ("network", "net"), "here"),
        Step("EXEC", "one", None, ("container", "one"), "running"),
        Step("POST", f"/images/create?fromImage={far}&tag=1", None, ("image", f"{far}:1"), "here"),
        container("two", **none),
        to("two", "start", "running"),
        Step("POST", "/commit?container=two&repo=made", None, ("image", "made:latest"), "here"),
        to("two", "stop?t=0", "exited"),
        to("one", "restart?t=0", "running"),
        Step("DELETE", "/containers/two", None, ("container", "two"), GONE),
        Step("DELETE", "/containers/one?force=1", None, ("container", "one"), GONE),
        container("three", HostConfig={"AutoRemove": True, "Binds": ["kept:/v"]}),
        to("three", "start", "running"),
        to("three", "kill", GONE),
    ]


class Teller(threading.Thread):
    """Sends a story's requests one after the other until the daemon is gone; knows what must be true."""

    def __init__(self, daemon: Mortal) -> None:
        super().__init__()
        self.daemon_, self.steps = daemon, story(daemon.registry.host)
        self.known: dict[tuple[str, str], set[str]] = {}
        self.wrong: list[Any] = []

    def run(self) -> None:
        for step in self.steps:
            before = self.known.get(step.thing, {GONE})
            self.known[step.thing] = before | {step.after, self.between(step)}
            try:
                answer = self.tell(step)
            except (OSError, ValueError, HTTPException):
                return
            if answer[0] >= 300 or '"error"' in str(answer[1]):
                self.wrong.append((step, answer))
            self.known[step.thing] = {step.after}

    @staticmethod
    def between(step: Step) -> str:
        """Return what else a thing may be when an answer does not come."""
        if step.path == "/containers/three/start":
            return GONE  # it was to be removed at its end, and its start ended
        return "exited" if "restart" in step.path or "force" in step.path else step.after

    def tell(self, step: Step) -> tuple[int, Any]:
        if step.method != "EXEC":
            return self.daemon_.ask(step.method, step.path, step.body)
        body = {"Cmd": ["true"], "AttachStdout": True}
        status, answer = self.daemon_.ask("POST", f"/containers/{step.path}/exec", body)
        if status != 201:
            return status, answer
        all_of(self.daemon_.upgrade(f"/exec/{answer['Id']}/start", b"{}"))
        return status, ""


def seen(daemon: Mortal) -> dict[tuple[str, str], str]:
    """Return what the daemon says that there is."""
    found = {}
    for one in daemon.ask("GET", "/containers/json?all=1")[1]:
        found["container", one["Names"][0][1:]] = one["State"]
    for one in daemon.ask("GET", "/volumes")[1]["Volumes"] or ():
        found["volume", one["Name"]] = "here"
    for one in daemon.ask("GET", "/networks")[1]:
        found["network", one["Name"]] = "here"
    for one in daemon.ask("GET", "/images/json")[1]:
        for tag in one["RepoTags"] or ():
            found["image", tag] = "here"
    return found


def lives(daemon: Mortal, name: str) -> bool:
    """Say whether a container that is said to run does, and does as it is told."""
    cat = "until cat /v/f; do sleep 0.1; done"
    body = {"Cmd": ["sh", "-c", cat], "AttachStdout": True}
    exec_id = daemon.ask("POST", f"/containers/{name}/exec", body)[1]["Id"]
    all_of(daemon.upgrade(f"/exec/{exec_id}/start", b"{}"))
    code: int = daemon.ask("GET", f"/exec/{exec_id}/json")[1]["ExitCode"]
    return code == 0


def forget_all(daemon: Mortal) -> None:
    """Remove what a story made."""
    for one in daemon.ask("GET", "/containers/json?all=1")[1]:
        status, answer = daemon.ask("DELETE", f"/containers/{one['Id']}?force=1")
        assert status in (204, 404, 409), answer  # its AutoRemove was faster
    until(lambda: daemon.ask("GET", "/containers/json?all=1") == (200, []))
    for (kind, name), _ in seen(daemon).items():
        if kind in ("volume", "network") and name in ("kept", "net"):
            assert daemon.ask("DELETE", f"/{kind}s/{name}")[0] == 204
        elif kind == "image" and not name.startswith("busybox"):
            assert daemon.ask("DELETE", f"/images/{name}")[0] == 200


def litter(daemon: Daemon) -> list[str]:
    """Return what stays in the data root, the control groups and the network once all is removed.

    The kernel takes down the network namespaces of the dead, with their cables, in its own time.
    """
    deadline = time.monotonic() + 120
    while (found := left(daemon)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def left(daemon: Daemon) -> list[str]:
    """Return what is left of containers now."""
    found = [
        f"{directory}/{name}"
        for directory in ("containers", "running", "names", "network/leases", "volumes")
        if (daemon.root / directory).is_dir()
        for name in os.listdir(daemon.root / directory)
        if name not in ("lock", "metadata.db")
    ]
    found += [str(path) for path in daemon.root.rglob("*.tmp")]
    found += [str(path) for path in (daemon.root / "layers").iterdir() if len(path.name) != 64]
    for directory, below, _ in os.walk("/sys/fs/cgroup"):
        if os.path.basename(directory) == "mini_docker":
            found += [f"{directory}/{name}" for name in below]
    links = in_netns(daemon.netns_fd, lambda: [name for _, name in socket.if_nameindex()])
    return found + [link for link in links if link.startswith("md") and "-" not in link]


def test_kills_at_random_moments_lose_nothing_and_leak_nothing(mortal: Mortal) -> None:
    chance = random.Random(SEED)
    began = time.monotonic()
    whole = Teller(mortal)
    whole.run()
    length = time.monotonic() - began
    assert whole.wrong == []
    forget_all(mortal)
    assert litter(mortal) == []
    for turn in range(KILLS):
        teller = Teller(mortal)
        teller.start()
        time.sleep(chance.uniform(0, length))
        mortal.kill()
        teller.join()  # the daemon is gone, so is what it asks
        mortal.start()
        there = seen(mortal)
        for thing, allowed in teller.known.items():
            assert there.get(thing, GONE) in allowed, (turn, thing, there, allowed, teller.wrong)
            if there.get(thing) == "running":
                assert lives(mortal, thing[1]), (turn, thing)
        assert teller.wrong == [], turn
        assert there["image", "busybox:latest"] == "here"
        forget_all(mortal)
        assert litter(mortal) == [], turn
