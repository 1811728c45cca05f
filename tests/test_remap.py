"""User-namespace remapping: root in the container is nobody on the host, whatever it touches."""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mini_docker.api.daemon import main
from mini_docker.engine.remap import (
    FILES,
    NOBODY,
    make_default_user,
    read_remap,
    to_container,
    to_host,
)
from mini_docker.lab import run_in_child
from mini_docker.linux.mount import MS_BIND, MS_PRIVATE, MS_REC, mount
from mini_docker.linux.process import CLONE_NEWNS, unshare
from mini_docker.runtime.idmap import open_user_namespace
from mini_docker.security.capabilities import available
from mini_docker.storage.mapped import open_mapped
from mini_docker.storage.overlay import plan_overlay
from tests.conftest import cannot_run_here
from tests.daemons import Daemon, UnixConnection, all_of
from tests.test_listener import Supervisor, policy

BASE = 100_000
PASSWD = "root:x:0:0::/:\nalice:x:1000:1000::/:\nbob:x:1001:1001::/:\n"
GROUP = "root:x:0:\nalice:x:1000:\nstaff:x:50:\n"


def texts(**changed: str) -> dict[str, str]:
    whole = {"passwd": PASSWD, "group": GROUP, "subuid": "alice:100000:65536\n"}
    return {**dict.fromkeys(FILES, ""), **whole, "subgid": "alice:200000:65536\n", **changed}


# --- the files


def test_ranges_become_mappings_one_after_the_other() -> None:
    found = read_remap("alice", texts(subuid="alice:100000:10\nbob:5:5\n1000:300000:20\n"))
    assert found is not None and found.name == "alice:alice"
    assert list(found.uids) == [
        {"containerID": 0, "hostID": 100000, "size": 10},
        {"containerID": 10, "hostID": 300000, "size": 20},
    ]
    assert [to_host(found.uids, n) for n in (0, 9, 10, 29)] == [100000, 100009, 300000, 300019]
    assert [to_container(found.uids, n) for n in (100009, 300000, 0)] == [9, 10, NOBODY]
    with pytest.raises(ValueError, match="Container ID 30 cannot be mapped to a host ID"):
        to_host(found.uids, 30)


@pytest.mark.parametrize(
    ("value", "name"),
    [("1000", "alice:alice"), ("1000:50", "alice:staff"), ("alice:staff", "alice:staff")],
)
def test_who_is_named(value: str, name: str) -> None:
    found = read_remap(value, texts(subgid="alice:1000000:65536\nstaff:2000000:65536\n"))
    assert found is not None and found.name == name


def test_root_stays_himself() -> None:
    assert read_remap("root", texts()) is None


@pytest.mark.parametrize(
    ("value", "changed", "words"),
    [
        ("carol", {}, 'Error during uid lookup for "carol"'),
        ("77", {}, "Uid 77 has no entry in /etc/passwd"),
        ("alice:77", {}, "Gid 77 has no entry in /etc/group"),
        ("a:b:c", {}, "Invalid user/group specification in --userns-remap"),
        ("alice:", {}, "Invalid user/group specification"),
        ("bob:alice", {}, 'no subuid ranges found for user "bob"; remedy: usermod'),
        ("alice", {"subgid": ""}, 'no subgid ranges found for user "alice"'),
        ("alice", {"subuid": "alice:100000:0\n"}, "subuid:1: 'alice:100000:0' is not NAME:START"),
        ("alice", {"subuid": "alice:-5:10\n"}, "is not NAME:START:COUNT"),
        ("alice", {"subuid": "alice:1e5:10\n"}, "is not NAME:START:COUNT"),
        ("alice", {"subuid": "alice:100000:10\nalice:100005:10\n"}, "overlaps"),
        ("alice", {"subuid": "alice:0:65536\n"}, "begins at 0, the host's root"),
        ("alice", {"subuid": "alice:4294967290:65536\n"}, "are no range"),
        ("alice", {"subuid": "".join(f"alice:{n}000:5\n" for n in range(1, 400))}, "takes 340"),
    ],
)
def test_files_that_make_no_sense(value: str, changed: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_remap(value, texts(**changed))


def test_the_default_user_is_made_where_it_is_missing() -> None:
    made = make_default_user(texts(subuid="alice:100000:65536\n"))
    assert [words[0] for words in made] == ["useradd", "usermod", "usermod"]
    assert made[1][1:] == ["--add-subuids", "165536-231071", "dockremap"]
    there = {
        "passwd": "dockremap:x:9:9::/:\n",
        "subuid": "dockremap:1:2\n",
        "subgid": "dockremap:1:2",
    }
    assert make_default_user(texts(**there)) == []


# --- the daemon


class Remapped(Daemon):
    """A daemon whose containers have the ids from BASE on; its subuid files are seen by nobody else."""

    options: tuple[str, ...] = ("--userns-remap", "nobody:nogroup")

    def __init__(self, base: pathlib.Path) -> None:
        self.base = base
        root = base / f"{BASE}.{BASE}"
        root.mkdir()
        super().__init__(root)

    def prepare(self) -> None:
        self.data_root = self.base
        for name, owner in (("subuid", "nobody"), ("subgid", "nogroup")):
            (self.base / name).write_text(f"{owner}:{BASE}:65536\n")

    def enter(self) -> None:
        super().enter()
        unshare(CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        for name in ("subuid", "subgid"):
            mount(str(self.base / name), f"/etc/{name}", None, MS_BIND)

    def output(self, name: str, *words: str, **more: Any) -> str:
        """Return what a container says to its end."""
        self.run(name, *words, **more)
        self.ask("POST", f"/containers/{name}/wait")
        frames = self.logs(name)
        text = b""
        while frames:
            size = int.from_bytes(frames[4:8], "big")
            text, frames = text + frames[8 : 8 + size], frames[8 + size :]
        return text.decode()


@contextmanager
def open_directory() -> Iterator[pathlib.Path]:
    """Make a directory that everybody may pass, unlike pytest's; remove it afterwards."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="mini_docker_remap_", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def base() -> Iterator[pathlib.Path]:
    with open_directory() as path:
        yield path


@pytest.fixture(scope="module")
def shared_remapped() -> Iterator[Remapped]:
    with open_directory() as base:
        daemon = Remapped(base)
        try:
            yield daemon
        finally:
            daemon.close()


@pytest.fixture
def daemon(shared_remapped: Remapped, leak_free: None) -> Iterator[Remapped]:
    yield shared_remapped
    shared_remapped.clear()


@pytest.mark.root
def test_root_inside_is_nobody_outside(daemon: Remapped, base: pathlib.Path) -> None:
    """The attack of chapter 9d: a bind mount of the host, written to as root."""
    host = base / "host"
    host.mkdir(mode=0o755)
    (host / "secret").write_text("the host's")
    (host / "secret").chmod(0o600)
    (host / "open").mkdir(mode=0o777)
    (host / "open").chmod(0o777)
    script = (
        "id -u; cat /host/secret; echo mine > /host/open/file; chmod 4755 /host/open/file;"
        "touch /host/new; cat /proc/self/uid_map; ls -n /host"
    )
    words = daemon.output("attacker", "sh", "-c", script, HostConfig={"Binds": [f"{host}:/host"]})
    assert words.startswith("0\n")
    assert words.count("Permission denied") == 2 and "the host's" not in words
    assert f"0     {BASE}      65536" in words and " 65534 " in words
    assert (host / "open/file").stat().st_uid == BASE
    assert not (host / "new").exists()


@pytest.mark.root
def test_files_keep_their_owners_everywhere(daemon: Remapped) -> None:
    script = (
        "ls -nd /etc/passwd /etc/resolv.conf /etc/hosts /data; cat /etc/hosts >/dev/null || exit 9;"
        "echo x > /kept; chown 5:6 /kept; echo x > /data/file; echo out > /dev/stdout;"
        "mkdir /sub; echo 127.0.0.1 me >> /etc/hosts; sleep 1000"
    )
    daemon.run("web", "sh", "-c", script, HostConfig={"Binds": ["vol:/data"]})
    while daemon.ask("GET", "/containers/web/archive?path=/sub")[0] != 200:
        assert daemon.state("web")["Running"], daemon.logs("web")
    text = daemon.logs("web").decode(errors="replace")
    assert text.count(" 0        0 ") == 4 and "out" in text and "denied" not in text
    upper = (
        daemon.root / "containers" / daemon.ask("GET", "/containers/web/json")[1]["Id"] / "upper"
    )
    assert ((upper / "kept").stat().st_uid, (upper / "kept").stat().st_gid) == (5, 6)
    volume = daemon.root / "volumes/vol/_data"
    assert (volume.stat().st_uid, (volume / "file").stat().st_uid) == (BASE, BASE)
    assert owner(daemon, "kept") == (5, 6)
    put(daemon, "given", 7, 8)
    words = execute(daemon, "sh", "-c", "id -u; ls -n /given /kept; rm /given")
    assert words.startswith("0\n") and " 7        8 " in words and " 5        6 " in words
    assert "uid=1000" in execute(daemon, "id", User="1000")
    assert execute(daemon, "id", "-u", Privileged=True) == "0\n"
    assert daemon.ask("POST", "/commit?container=web&repo=mine", {})[0] == 201
    assert member(daemon, "/containers/web/export", "kept") == (5, 6)
    assert " 5        6 " in daemon.output("second", "ls", "-n", "/kept", Image="mine")
    daemon.ask("POST", "/containers/web/kill")
    assert owner(daemon, "kept") == (5, 6) and owner(daemon, "data/file") == (0, 0)
    put(daemon, "later", 9, 9)
    changed = {one["Path"] for one in daemon.ask("GET", "/containers/web/changes")[1]}
    assert {"/kept", "/sub", "/later"} <= changed


def member(daemon: Daemon, path: str, name: str) -> tuple[int, int]:
    connection = UnixConnection(daemon.path)
    connection.request("GET", path)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status == 200, data
    found = tarfile.open(fileobj=io.BytesIO(data)).getmember(name)
    return found.uid, found.gid


def owner(daemon: Daemon, path: str) -> tuple[int, int]:
    return member(daemon, f"/containers/web/archive?path=/{path}", path.rpartition("/")[2])


def put(daemon: Daemon, name: str, uid: int, gid: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.uid, info.gid, info.mode = uid, gid, 0o644
        archive.addfile(info)
    status, answer = daemon.ask("PUT", "/containers/web/archive?path=/", packed.getvalue())
    assert status == 200, answer


@pytest.mark.root
def test_a_listener_of_seccomp_s(daemon: Remapped, base: pathlib.Path) -> None:
    """Who has joined the user namespace may not reach into a process that hides: it asks another."""
    supervisor = Supervisor(base / "agent", errno.EXDEV)
    profile = json.dumps(policy(base / "agent"))
    try:
        daemon.run("web", "sleep", "1000", HostConfig={"SecurityOpt": [f"seccomp={profile}"]})
        assert "cross-device link" in execute(daemon, "mkdir", "/sub")
    finally:
        supervisor.close()
    assert len(supervisor.states) == 2


def execute(daemon: Daemon, *words: str, **more: Any) -> str:
    body = {"Cmd": words, "AttachStdout": True, "AttachStderr": True, "Tty": True, **more}
    one = daemon.ask("POST", "/containers/web/exec", body)[1]["Id"]
    stream: socket.socket = daemon.upgrade(f"/exec/{one}/start", json.dumps({"Tty": True}).encode())
    return all_of(stream).decode().replace("\r\n", "\n")


@pytest.mark.root
def test_what_it_cannot_have_and_how_to_opt_out(daemon: Remapped) -> None:
    info = daemon.ask("GET", "/info")[1]
    assert "name=userns" in info["SecurityOptions"]
    assert info["DockerRootDir"].endswith(f"/{BASE}.{BASE}")
    refused = {
        "privileged mode is incompatible with user namespaces.  You must run": {"Privileged": True},
        "cannot share the host's network namespace when": {"NetworkMode": "host"},
        "cannot share the host PID namespace when user": {"PidMode": "host"},
        "invalid user namespace mode: own": {"UsernsMode": "own"},
    }
    for words, host in refused.items():
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
        status, answer = daemon.ask("POST", "/containers/create", body)
        assert status == 400 and answer["message"].startswith(words), answer
    host = {"UsernsMode": "host", "Privileged": True, "NetworkMode": "host"}
    assert daemon.output("free", "cat", "/proc/self/uid_map", HostConfig=host).split()[1] == "0"
    assert daemon.ask("GET", "/containers/free/json")[1]["HostConfig"]["UsernsMode"] == "host"


@pytest.mark.root
def test_a_device_under_another_name(daemon: Remapped) -> None:
    devices = [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}]
    script = "echo a > /dev/x && stat -c %t:%T /dev/x"
    assert daemon.output("web", "sh", "-c", script, HostConfig={"Devices": devices}) == "1:3\n"


@pytest.mark.root
def test_limits_that_only_the_host_can_give(daemon: Remapped) -> None:
    if "CAP_SYS_RESOURCE" not in available():
        cannot_run_here("this machine's root lacks CAP_SYS_RESOURCE")
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    more = 1 << 40 if hard == -1 else hard * 2
    host = {"Ulimits": [{"Name": "memlock", "Soft": 4096, "Hard": more}], "OomScoreAdj": -7}
    words = daemon.output(
        "web", "sh", "-c", "cat /proc/self/oom_score_adj; ulimit -Hl", HostConfig=host
    )
    assert words.split() == ["-7", str(more // 1024)]


@pytest.mark.root
def test_networks_and_terminals_work(daemon: Remapped) -> None:
    script = "ip addr show eth0; cat /sys/class/net/eth0/mtu; ip addr add 10.9.9.9/32 dev lo && echo can; tty"
    host = {"NetworkMode": "bridge", "CapAdd": ["NET_ADMIN"]}
    daemon.create("web", "sh", "-c", script, HostConfig=host, Tty=True)
    daemon.ask("POST", "/containers/web/start")
    daemon.ask("POST", "/containers/web/wait")
    words = daemon.logs("web").decode()
    assert "inet 172." in words and "1500" in words and "can\r\n" in words, words
    assert "/dev/pts/0" in words or "/dev/console" in words


@pytest.mark.root
def test_it_outlives_the_daemon_and_can_be_joined(daemon: Remapped) -> None:
    daemon.run("web", "sleep", "1000")
    daemon.kill(signal.SIGKILL)
    daemon.start()
    host = {"NetworkMode": "container:web"}
    script = "readlink /proc/self/ns/net; cat /proc/self/uid_map"
    words = daemon.output("friend", "sh", "-c", script, HostConfig=host)
    pid = daemon.state("web")["Pid"]
    assert words.startswith(os.readlink(f"/proc/{pid}/ns/net")) and str(BASE) in words


def test_a_closed_directory_above_is_said(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data-root", str(tmp_path), "--userns-remap", "nobody:nosuchgroup"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and 'Error during gid lookup for "nosuchgroup"' in line


def many_layers(directory: str) -> list[Any]:
    """Stack more layers than one option names, mapped; return owners seen from outside, and on disk."""
    maps = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    layers = [f"{directory}/{number}" for number in range(40)]
    for path in (*layers, f"{directory}/upper", f"{directory}/work", f"{directory}/rootfs"):
        os.mkdir(path)
    pathlib.Path(layers[0], "low").touch()
    pathlib.Path(layers[39], "high").touch()
    userns_fd = open_user_namespace({"uidMappings": maps, "gidMappings": maps})
    root = f"/proc/self/fd/{open_mapped(plan_overlay(layers, directory), userns_fd, (BASE, BASE))}"
    pathlib.Path(root, "new").touch()
    seen = [os.stat(f"{root}/{name}").st_uid - BASE for name in ("low", "high", "new")]
    return [*seen, os.stat(f"{directory}/upper/new").st_uid]


@pytest.mark.root
def test_forty_layers_are_mapped(base: pathlib.Path) -> None:
    assert run_in_child(many_layers, str(base)).value == [0, 0, 0, 0]


class RemappedCopies(Remapped):
    """The same on a driver that keeps whole trees."""

    options = (*Remapped.options, "--storage-driver", "vfs")


@pytest.mark.root
def test_whole_trees_are_mapped(base: pathlib.Path, leak_free: None) -> None:
    daemon = RemappedCopies(base)
    try:
        script = "id -u; touch /new; ls -nd /new /etc/passwd"
        words = daemon.output("web", "sh", "-c", script)
        assert words.startswith("0\n") and words.count(" 0        0 ") == 2, words
        assert owner(daemon, "new") == (0, 0)
        found = daemon.root.glob("vfs/roots/*/new")
        assert [path.stat().st_uid for path in found] == [0]
    finally:
        daemon.close()
