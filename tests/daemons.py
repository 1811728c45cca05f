"""A daemon under a client of the tests' own; the fixture `daemon` is one for all, empty before each test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine.store import Store
from mini_docker.images.busybox import install_busybox
from mini_docker.linux.process import CLONE_NEWNET, setns
from tests.bundles import MINI_RUNC
from tests.described import check_answer
from tests.system import COMMAND, cannot_run_here, children, remove_groups, until

CLIENT = "/usr/bin/docker"
NETWORKS = ("bridge", "host", "none")
WAIT = "while [ ! -e /go ]; do sleep 0.05; done; "


def network_apart() -> int:
    """Return a network made by another process: this one may have threads, the SDK's and others."""
    script = "ip link set lo up && echo ready && read -r _"
    words = ["unshare", "--net", "sh", "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as apart:
        assert apart.stdout and apart.stdout.readline() == b"ready\n"
        return os.open(f"/proc/{apart.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket that is a file."""

    def __init__(self, path: str) -> None:
        super().__init__("d", timeout=120)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    """A daemon on a data root, in a network that outlives it: `kill` and `start` it as often as you like."""

    options: tuple[str, ...] = ()

    def __init__(self, root: pathlib.Path) -> None:
        self.root = self.data_root = root
        self.path = str(root / "d.sock")
        self.netns_fd = network_apart()
        self.answered: set[tuple[str, int]] = set()  # operations and statuses
        install_busybox(Store(str(root)).layout)
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """Change what is to be changed before the first start."""

    def command(self) -> list[str]:
        """Return the beginning of the daemon's command line."""
        return [COMMAND, "daemon"]

    def start(self) -> None:
        words = [*self.command(), "--data-root", str(self.data_root), "-H", f"unix://{self.path}"]
        words += self.options
        self.log = open(self.root / "daemon.log", "ab")
        self.process = subprocess.Popen(words, stderr=self.log, preexec_fn=self.enter)
        deadline = time.monotonic() + 120
        while True:
            try:
                assert self.ask("GET", "/_ping")[0] == 200
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, self.words()
                time.sleep(0.02)

    def enter(self) -> None:
        """Go where the daemon shall live; called in its process, before it is one."""
        setns(self.netns_fd, CLONE_NEWNET)

    def words(self) -> str:
        """Return what the daemon has said since the test began."""
        return (self.root / "daemon.log").read_text()

    def processes(self) -> list[int]:
        """Return the pids of the daemon and of its zygote."""
        return [self.process.pid, *children(self.process.pid, "md-zygote")]

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        self.log.close()
        return self.process.wait(120)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return the status and the JSON (or text) of an answer."""
        connection = UnixConnection(self.path)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        self.check(method, path, answer.status, answer.headers.get("Content-Type", ""), raw)
        text = raw.decode(errors="replace")
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def check(self, method: str, path: str, status: int, kind: str, data: bytes) -> None:
        """Look at an answer before the test does: it must be as the daemon describes it."""
        self.answered.add((check_answer(method, path, status, kind, data), status))

    def create(self, name: str, *words: str, **more: Any) -> str:
        host = {"NetworkMode": "none", **more.pop("HostConfig", {})}
        body = {"Image": "busybox", "Cmd": list(words), "HostConfig": host, **more}
        status, answer = self.ask("POST", f"/containers/create?name={name}", body)
        assert status == 201, answer
        return str(answer["Id"])

    def run(self, name: str, *words: str, **more: Any) -> str:
        container_id = self.create(name, *words, **more)
        assert self.ask("POST", f"/containers/{name}/start") == (204, "")
        return container_id

    def state(self, name: str) -> dict[str, Any]:
        status, answer = self.ask("GET", f"/containers/{name}/json")
        assert status == 200, answer
        state: dict[str, Any] = answer["State"]
        return state

    def logs(self, name: str, query: str = "stdout=1&stderr=1") -> bytes:
        connection = UnixConnection(self.path)
        connection.request("GET", f"/containers/{name}/logs?{query}")
        data = connection.getresponse().read()
        connection.close()
        return data

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are and close that half; return what comes back until the end."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(120)
            client.connect(self.path)
            got = b""
            with contextlib.suppress(ConnectionError):  # it has closed without reading all
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while piece := client.recv(65536):
                    got += piece
            return got

    def upgrade(self, path: str, body: bytes = b"") -> socket.socket:
        """Return a connection that has become a stream."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(120)
        client.connect(self.path)
        head = f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = client.recv(1)
            if not piece:
                raise ConnectionError("the daemon has ended")
            answer += piece
        assert answer.startswith(b"HTTP/1.1 101 UPGRADED"), answer
        return client

    def clear(self) -> None:
        """Remove all that has been made, and prove that nothing is left."""
        if self.process.poll() is not None:
            self.start()
        self.forget("busybox:latest")
        for directory in ("containers", "running", "names"):
            assert os.listdir(self.root / directory) == [], directory
        os.truncate(self.root / "daemon.log", 0)

    def make_groups(self) -> None:
        """Have the group that holds all containers' groups; a reset of any data root removes it."""
        directories = Cgroup(hierarchies(), "/mini_docker").directories.values()
        if not all(map(os.path.isdir, directories)):
            self.run("first", "true")
            self.ask("POST", "/containers/first/wait")
            self.ask("DELETE", "/containers/first")

    def forget(self, *kept: str) -> None:
        """Remove all containers, networks, volumes, and the images that are not to be kept."""
        for found in self.ask("GET", "/containers/json?all=1")[1]:
            status, answer = self.ask("DELETE", f"/containers/{found['Id']}?force=1&v=1")
            assert status in (204, 404, 409), answer  # its AutoRemove was faster
        until(lambda: self.ask("GET", "/containers/json?all=1") == (200, []))
        for network in self.ask("GET", "/networks")[1]:
            if network["Name"] not in NETWORKS:
                assert self.ask("DELETE", f"/networks/{network['Id']}")[0] == 204
        for volume in self.ask("GET", "/volumes")[1]["Volumes"] or ():
            assert self.ask("DELETE", f"/volumes/{volume['Name']}")[0] == 204
        for image in self.ask("GET", "/images/json")[1]:
            tags = set(image["RepoTags"] or ())
            for name in tags - {*kept} if tags & {*kept} else [image["Id"]]:
                assert self.ask("DELETE", f"/images/{name}?force=1")[0] == 200

    def close(self) -> None:
        """Remove all that has been made, end, and prove that nothing is left."""
        try:
            self.clear()
            assert self.kill(signal.SIGTERM) == 0
        finally:
            self.process.kill()  # after an error; otherwise it has ended
            self.process.wait()
            os.close(self.netns_fd)
        subprocess.run(
            [COMMAND, "--data-root", str(self.root), "reset"], check=True, capture_output=True
        )


IMPATIENT = "timeout waiting for containerd to start"  # dockerd gives it fifteen seconds, and ends


def start_dockerd(words: list[str], log: pathlib.Path) -> subprocess.Popen[bytes] | str:
    """Start a dockerd, and again where its containerd was slow; return it, listening, or why it has ended."""
    for _ in range(20):
        with open(log, "wb") as file:
            process = subprocess.Popen(words, stdout=file, stderr=file)
        try:
            until(lambda: process.poll() is not None or b"API listen on" in log.read_bytes())  # noqa: B023
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.poll() is None:
            return process
        if IMPATIENT not in log.read_text():
            return f"dockerd ends on this machine: {log.read_text()[-300:]}"
    raise AssertionError("the containerd of dockerd was not up in five minutes")


class Dockerd(Daemon):
    """The same client for a real dockerd, in a network of its own; it makes no rules: nobody needs them.

    Of its runtimes, `mini` is ours, and `keep` runs nothing: it copies the document that it gets to `kept`.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.path = str(root / "dockerd.sock")
        self.kept = root / "kept.json"
        places = [f"--{name}={root}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        words = ["dockerd", "-H", f"unix://{self.path}", *places]
        words += ["--iptables=false", "--ip6tables=false", f"--add-runtime=mini={MINI_RUNC}"]
        words += [f"--add-runtime=keep={self.keeper()}"]
        script = 'ip link set lo up && exec "$@"'
        found = start_dockerd(["unshare", "--net", "sh", "-c", script, "sh", *words], root / "log")
        if isinstance(found, str):
            cannot_run_here(found)
        self.process = found

    def keeper(self) -> pathlib.Path:
        """Write the runtime `keep`."""
        path = self.root / "keep"
        path.write_text(
            '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --bundle ] && '
            f'cp "$2/config.json" {self.kept}; shift; done; exit 1\n'
        )
        path.chmod(0o755)
        return path

    def check(self, method: str, path: str, status: int, kind: str, data: bytes) -> None:
        """Its answers are the measure."""

    def make_groups(self) -> None:
        """Have the groups that hold all containers' groups; another dockerd may have taken them along."""
        for tree in set(hierarchies().mounts.values()):
            os.makedirs(f"{tree}/docker", exist_ok=True)  # as its first container does

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(240)
        for place in ("data-root", "exec-root/netns/default"):
            subprocess.run(["umount", "-R", f"{self.root}/{place}"], capture_output=True)
        remove_groups("docker")


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the end."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def go(*pids: int) -> None:
    """Let containers that WAIT go on."""
    for pid in pids:
        pathlib.Path(f"/proc/{pid}/root/go").touch()


@pytest.fixture(scope="session")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests."""
    daemon = Daemon(tmp_path_factory.mktemp("daemon"))
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The daemon of all tests, with nothing but the image busybox."""
    yield shared_daemon
    shared_daemon.clear()


@pytest.fixture
def own_daemon(tmp_path: pathlib.Path) -> Iterator[Daemon]:
    """A daemon with a data root for one test."""
    daemon = Daemon(tmp_path)
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="session")
def shared_dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    """One dockerd for all tests that compare with it."""
    if shutil.which("dockerd") is None or not os.path.exists(CLIENT):
        cannot_run_here("there is no dockerd (remedy: labs/provision.sh --peers)")
    dockerd = Dockerd(tmp_path_factory.mktemp("dockerd"))
    try:
        dockerd.make_groups()
        yield dockerd
    finally:
        dockerd.close()


@pytest.fixture
def dockerd(shared_dockerd: Dockerd) -> Iterator[Dockerd]:
    """The dockerd of all tests, with nothing in it."""
    yield shared_dockerd
    shared_dockerd.forget()


@pytest.fixture
def both(daemon: Daemon, dockerd: Dockerd, tmp_path: pathlib.Path) -> tuple[str, str]:
    """Return where ours and dockerd are; each has the same image busybox."""
    ours, theirs = f"unix://{daemon.path}", f"unix://{dockerd.path}"
    archive = str(tmp_path / "busybox.tar")
    subprocess.run([CLIENT, "-H", ours, "save", "-o", archive, "busybox"], check=True)
    load = [CLIENT, "-H", theirs, "load", "-qi", archive]
    subprocess.run(load, check=True, capture_output=True)
    return ours, theirs
