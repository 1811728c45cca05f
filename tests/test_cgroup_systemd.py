"""Scopes: messages byte by byte, names, properties, a small bus that plays systemd, and systemd itself."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.cgroups.systemd import (
    DESTINATION,
    ERROR,
    ERROR_NAME,
    INFINITY,
    INTERFACE,
    MEMBER,
    METHOD_CALL,
    METHOD_RETURN,
    PATH,
    REPLY_SERIAL,
    SIGNAL,
    SIGNATURE,
    SYSTEM_BUS,
    SYSTEMD,
    Bus,
    BusError,
    Scope,
    bits_of,
    complete_types,
    encode,
    marshal,
    parse_unit,
    properties_for,
    systemd_is_here,
    unmarshal,
)
from mini_docker.cgroups.tree import Hierarchies, hierarchies
from mini_docker.linux.step import apply
from tests.conftest import cannot_run_here

# what libdbus sends first, as strace(1) shows it
HELLO = (
    b"l\1\0\1\0\0\0\0\1\0\0\0n\0\0\0\1\1o\0\25\0\0\0/org/freedesktop/DBus\0\0\0"
    b"\6\1s\0\24\0\0\0org.freedesktop.DBus\0\0\0\0\2\1s\0\24\0\0\0org.freedesktop.DBus\0\0\0\0"
    b"\3\1s\0\5\0\0\0Hello\0\0\0"
)


def test_hello_is_what_everybody_sends() -> None:
    name = "org.freedesktop.DBus"
    fields = {PATH: "/org/freedesktop/DBus", DESTINATION: name, INTERFACE: name, MEMBER: "Hello"}
    assert encode(METHOD_CALL, 1, fields, "", []) == HELLO


def test_types_are_taken_apart() -> None:
    found = list(complete_types("ssa(sv)aaua(sa(sv))y"))
    assert found == ["s", "s", "a(sv)", "aau", "a(sa(sv))", "y"]


VALUES: list[tuple[str, Any]] = [
    ("y", 7),
    ("b", 1),
    ("i", -7),
    ("t", (1 << 64) - 1),
    ("s", "grüße"),
    ("as", ["a", "", "bcd"]),
    ("au", []),
    ("at", [1, 2]),
    ("a(yv)", []),
    ("(yst)", (1, "ab", 9)),
    ("a(sa(su))", [("x", [("y", 1)]), ("", [])]),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[kind for kind, _ in VALUES])
@pytest.mark.parametrize("offset", range(8))
def test_what_is_written_is_read(kind: str, value: Any, offset: int) -> None:
    buffer = bytearray(offset)
    marshal(buffer, kind, value)
    assert unmarshal(bytes(buffer), offset, kind) == (value, len(buffer))


def test_a_variant_brings_its_type() -> None:
    buffer = bytearray()
    marshal(buffer, "v", ("au", [1, 2]))
    assert bytes(buffer) == b"\2au\0" + struct.pack("<III", 8, 1, 2)
    assert unmarshal(bytes(buffer), 0, "v")[0] == [1, 2]


def test_names_and_paths() -> None:
    assert parse_unit("system.slice:docker:ID") == (
        "docker-ID.scope",
        "system.slice",
        "/system.slice/docker-ID.scope",
    )
    assert parse_unit("::x") == ("x.scope", "system.slice", "/system.slice/x.scope")
    assert parse_unit("a-b.slice:p:x").path == "/a.slice/a-b.slice/p-x.scope"


@pytest.mark.parametrize(
    "path",
    [
        "/docker/ID",
        "a:b",
        "a.slice:b:",
        "a.slice:b:c:d",
        "a.slice:../b:c",
        "../a.slice:b:c",
        "a:b:c",
        "a--b.slice:b:c",
    ],
)
def test_what_is_no_unit_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"linux\.cgroupsPath: .* is not like 'system\.slice:"):
        parse_unit(path)


def test_limits_in_systemds_words() -> None:
    found = properties_for(
        {
            "memory": {"limit": 64, "swap": -1, "reservation": 32},
            "cpu": {"quota": 50_000, "shares": 1024, "cpus": "0-2,8"},
            "pids": {"limit": -1},
            "blockIO": {"weight": 10},
            "devices": [{"allow": False}],
        }
    )
    assert dict(found) == {
        "MemoryMax": ("t", 64),
        "MemorySwapMax": ("t", INFINITY),
        "MemoryLow": ("t", 32),
        "CPUWeight": ("t", 39),
        "CPUQuotaPerSecUSec": ("t", 500_000),
        "CPUQuotaPeriodUSec": ("t", 100_000),
        "AllowedCPUs": ("ay", b"\x07\x01"),
        "TasksMax": ("t", INFINITY),
    }
    assert properties_for({"cpu": {"shares": 0}}) == []
    with pytest.raises(ValueError, match=r"linux\.resources\.pids\.limit"):
        properties_for({"pids": {"limit": "many"}})


def test_bits() -> None:
    assert [bits_of(text) for text in ("0", "7", "8", "0-1,3")] == [
        b"\1",
        b"\x80",
        b"\0\1",
        b"\x0b",
    ]


class Systemd(threading.Thread):
    """A bus that plays systemd: it makes a scope's directory, and says what it was asked."""

    def __init__(self, tmp_path: Path, result: str = "done", error: str = "") -> None:
        super().__init__(daemon=True)
        self.root = tmp_path
        self.path = str(tmp_path / "bus")
        self.result, self.error = result, error
        self.calls: list[tuple[str, list[Any]]] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()

    def run(self) -> None:
        try:
            while True:
                self.serve(self.listener.accept()[0])
        except OSError:
            return  # closed: the test is over

    def serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            assert stream.readline().startswith(b"\0AUTH EXTERNAL ")
            client.sendall(b"OK 1234\r\n")
            assert stream.readline() == b"BEGIN\r\n"
            while head := stream.read(16):
                size, serial, length = struct.unpack_from("<III", head, 4)
                padded = length + -length % 8
                rest = stream.read(padded + size)
                fields = dict(unmarshal(head + rest, 12, "a(yv)")[0])
                body, at = [], 0
                for kind in complete_types(fields.get(SIGNATURE, "")):
                    value, at = unmarshal(rest[padded:], at, kind)
                    body.append(value)
                self.calls.append((fields[MEMBER], body))
                client.sendall(self.answer(fields[MEMBER], serial, body))

    def answer(self, member: str, serial: int, body: list[Any]) -> bytes:
        reply = {REPLY_SERIAL: serial}
        if member == self.error:
            named = {**reply, ERROR_NAME: "org.freedesktop.systemd1.NoSuchUnit"}
            return encode(ERROR, 9, named, "s", ["Unit not loaded."])
        if member == "Hello":
            acquired = encode(
                SIGNAL, 2, {PATH: "/", INTERFACE: "x", MEMBER: "NameAcquired"}, "s", [":1.7"]
            )
            return acquired + encode(METHOD_RETURN, 3, reply, "s", [":1.7"])
        if member == "StartTransientUnit":
            directory = self.root / "tree/system.slice" / body[0]
            directory.mkdir()
            for name in ("pids.max", "memory.max"):
                (directory / name).touch()
            fields = {PATH: SYSTEMD[1], INTERFACE: SYSTEMD[2], MEMBER: "JobRemoved"}
            other = encode(SIGNAL, 4, fields, "uoss", [1, "/job/1", "other.service", "failed"])
            ours = encode(SIGNAL, 5, fields, "uoss", [2, "/job/2", body[0], self.result])
            return other + encode(METHOD_RETURN, 6, reply, "o", ["/job/2"]) + ours
        return encode(METHOD_RETURN, 7, reply, "", [])


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """A bus of the test's own, and a v2 tree of plain files."""
    thread = Systemd(tmp_path)
    thread.start()
    for directory in ("tree", "tree/system.slice"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "cgroup.subtree_control").write_text("cpu io memory pids")
    yield thread
    thread.listener.shutdown(socket.SHUT_RDWR)
    thread.listener.close()
    thread.join(120)


def scope_of(systemd: Systemd) -> Scope:
    """Return a scope of the fake systemd's."""
    trees = Hierarchies("v2", dict.fromkeys(["", "pids", "memory"], str(systemd.root / "tree")))
    return Scope(trees, "system.slice:test:1", systemd.path)


def test_a_scope_is_asked_for_and_kept(systemd: Systemd) -> None:
    scope = scope_of(systemd)
    scope.create({"pids": {"limit": 9}})
    assert [name for name, _ in systemd.calls] == [
        "Hello",
        "AddMatch",
        "Subscribe",
        "StartTransientUnit",
    ]
    name, mode, properties, _ = systemd.calls[-1][1]
    asked = dict(properties)
    assert (name, mode, asked["Slice"]) == ("test-1.scope", "fail", "system.slice")
    assert (asked["Delegate"], asked["TasksMax"], asked["MemoryAccounting"]) == (1, 9, 1)
    assert Path(scope.file("pids.max")).read_text() == "9"  # and written by us as well
    (holder,) = asked["PIDs"]
    assert Path(f"/proc/{holder}/comm").read_text() == "cat\n"
    for _ in range(2):
        scope.settle()
    assert not os.path.exists(f"/proc/{holder}")


def test_an_update_is_told_to_systemd_first(systemd: Systemd) -> None:
    scope = scope_of(systemd)
    scope.create({})
    scope.update({"memory": {"limit": 4096}})
    assert systemd.calls[-1] == ("SetUnitProperties", ["test-1.scope", 1, [("MemoryMax", 4096)]])
    assert Path(scope.file("memory.max")).read_text() == "4096"
    scope.update({})  # nothing to say
    assert systemd.calls[-1][0] == "SetUnitProperties"
    scope.settle()


def test_a_scope_that_cannot_be_started_leaves_no_process(systemd: Systemd) -> None:
    systemd.result = "failed"
    scope = scope_of(systemd)
    with pytest.raises(BusError, match=r"could not start test-1\.scope: failed"):
        scope.create({})
    assert scope.holder is None


def test_removing_what_systemd_has_forgotten_is_fine(systemd: Systemd) -> None:
    scope = scope_of(systemd)
    systemd.error = "StopUnit"
    scope.remove()
    assert [name for name, _ in systemd.calls][1:] == ["StopUnit", "ResetFailedUnit"]


def test_a_service_that_says_no_is_quoted(systemd: Systemd) -> None:
    systemd.error = "GetUnit"
    with (
        Bus(systemd.path) as bus,
        pytest.raises(BusError, match="D-Bus: Unit not loaded") as refused,
    ):
        bus.call(*SYSTEMD, "GetUnit", "s", "x.service")
    assert refused.value.name.endswith("NoSuchUnit")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"REJECTED EXTERNAL\r\n", "refused us: REJECTED EXTERNAL"),
        (b"", "the bus hung up"),
        (b"OK 1\r\n" + b"B" * 16, "no message for us"),
        (b"OK 1\r\n" + HELLO[:4] + b"\xff" * 12, "no message for us"),
    ],
)
def test_a_bus_that_talks_nonsense_is_left(tmp_path: Path, said: bytes, words: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()

        def talk() -> None:
            client = listener.accept()[0]
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass  # it has all been heard when the other side leaves, too
            client.close()

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(OSError, match=words):
            Bus(str(tmp_path / "bus"), timeout=120)
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_systemd_itself(leak_free: None) -> None:
    """On a machine that systemd runs: a scope, a process born in it, limits that a reload keeps, the end."""
    if not systemd_is_here() or not os.path.exists(SYSTEM_BUS):
        cannot_run_here("systemd does not run this machine")
    scope = Scope(hierarchies(), f"system.slice:mini_docker_test:{os.getpid()}")
    limits: dict[str, Any] = {"pids": {"limit": 9}, "memory": {"limit": 64 << 20}}
    limits |= {
        "cpu": {"quota": 50_000, "cpus": "0"},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    scope.create(limits)
    try:
        process = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: apply(scope.plan_enter()))
        scope.settle()
        assert scope.members() == [process.pid]
        assert shown(scope, "TasksMax", "ControlGroup") == ["9", scope.path]
        scope.update({"pids": {"limit": 7}})
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert (scope.read("pids.max"), shown(scope, "TasksMax")) == ("7", ["7"])
        assert scope.read("cpu.max") == "50000 100000"
        assert Scope.find(hierarchies(), f"system.slice:mini_docker_test:{os.getpid()}").members()
        scope.freeze()
        scope.kill()
        process.wait(240)
    finally:
        scope.kill()
        scope.remove()
    assert not os.path.exists(scope.directories[str(scope.trees.unified)])


def shown(scope: Scope, *names: str) -> list[str]:
    """Return properties of a scope as systemctl shows them."""
    wanted = [f"--property={name}" for name in names]
    command = ["systemctl", "show", "--value", *wanted, scope.unit.name]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(text.split(), key=lambda value: not value.isdigit())
