"""The runtime: the order of its plan, what init executes, and the report that it sends."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from mini_docker.engine.document import document
from mini_docker.lab import run_in_child
from mini_docker.linux.step import Step, apply
from mini_docker.namespaces.user import User
from mini_docker.runtime import init
from mini_docker.runtime.console import Console, receive_console
from mini_docker.runtime.init import (
    FAILED,
    READY,
    StartError,
    find_program,
    parse_environment,
    read_report,
)
from mini_docker.runtime.plan import Resources, change_directory, plan, plan_streams
from tests.system import Lab, lab  # noqa: F401 (a fixture)

ENTER = [Step("enter control group /x", print, ())]


def spec_of(**changed: Any) -> dict[str, Any]:
    request = {"Hostname": "web", "Cmd": ["sh"], "HostConfig": {"NetworkMode": "none"}, **changed}
    spec = document(request, {}, "ID", "/dir", User(7, 8, (), "/home"))
    spec["process"]["noNewPrivileges"] = True
    spec["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    return spec


def names_of(spec: dict[str, Any], resources: Resources | None = None) -> list[str]:
    resources = resources or Resources(ENTER, 9, (3, 4, 2), None)
    return [planned.step.name for planned in plan(spec, resources)]


def test_a_step_is_known_by_the_chapter_that_teaches_it() -> None:
    spec = spec_of()
    spec["linux"]["namespaces"] += [{"type": "time", "path": "/t"}]
    for entry in spec["linux"]["namespaces"]:
        if entry["type"] in ("network", "mount"):
            entry["path"] = f"/{entry['type']}"
    spec["linux"]["sysctl"] = {"kernel.sem": "1", "net.core.somaxconn": "1"}
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/agent",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    planned = plan(spec, Resources(ENTER, 9, (3, 4, 2), None))
    modules = {step.name: module.removeprefix("mini_docker.") for module, step in planned}
    assert modules["join network namespace"] == "namespaces.net"
    assert modules["join mount namespace"] == "namespaces.mnt"
    assert modules["join time namespace"] == "namespaces.time"
    assert modules["set net.core.somaxconn to 1"] == "namespaces.net"
    assert modules["set kernel.sem to 1"] == "namespaces.ipc"
    assert modules["filter system calls, some by a listener"] == "runtime.listener"
    assert modules["look at the command"] == modules["change directory to /"] == "runtime.plan"


INVARIANTS = [
    # the earlier step, the later one, and why
    ("die with the supervisor", "enter control group", "nobody would kill it"),
    ("enter control group", "make every mount private", "it is the host's tree that has the path"),
    ("make every mount private", "attach the root", "the host would get the mount"),
    ("make every mount private", "mount proc", "the host would get the mount"),
    ("attach the root", "mount proc", "it would land in the directory below"),
    ("mount proc", "swap it with", "pivot_root closes the host's tree"),
    ("set net.ipv4", "read-only /proc/sys", "it cannot be written after"),
    ("read-only /proc", "mask /proc", "a mask would be made read-only in place of what it hides"),
    ("start a session", "swap it with", "the console lies in the new tree"),
    ("swap it with", "let go of", "it is busy before"),
    ("let go of", "mask /proc/kcore", "the path would be the host's"),
    ("mask /proc/kcore", "change directory to /w", "the directory could be one of those"),
    ("change directory to /w", "become user", "it is made where it is missing"),
    ("signals to default", "become user", "a signal would find our handlers"),
    ("look at the command", "limit RLIMIT_CORE", "it opens files, and their number may be limited"),
    ("limit RLIMIT_CORE", "become user", "a hard limit cannot be raised again"),
    ("limit the bounding set", "become user", "without CAP_SETPCAP it is refused"),
    ("keep capabilities", "become user", "setuid drops them"),
    ("set groups", "become group", "without CAP_SETGID it is refused"),
    ("become group", "become user", "without CAP_SETGID it is refused"),
    ("become user", "set capabilities", "setuid drops the effective ones"),
    ("set capabilities", "no new privileges", "as in the specification"),
    ("no new privileges", "hide from ptrace", "a change of ids makes it dumpable again"),
]


@pytest.mark.parametrize(("early", "late", "why"), INVARIANTS, ids=lambda text: text[:24])
def test_the_order_of_steps(early: str, late: str, why: str) -> None:
    names = names_of(spec_of(WorkingDir="/w"))
    firsts = [i for i, name in enumerate(names) if name.startswith(early)]
    lasts = [i for i, name in enumerate(names) if name.startswith(late)]
    assert firsts and lasts, names
    assert firsts[0] < lasts[0], f"{early} after {late}: {why}"


def test_the_last_words_before_exec() -> None:
    """PDEATHSIG and dumpable are cleared by a change of ids, so they are set again; the filter is last."""
    assert names_of(spec_of())[-4:] == [
        "die with the supervisor",
        "close what else is open",
        "hide from ptrace until exec",
        "filter system calls",
    ]
    assert names_of(spec_of()).index("die with the supervisor") == 0


def test_without_no_new_privileges_the_filter_comes_while_it_is_allowed() -> None:
    spec = spec_of()
    spec["process"]["noNewPrivileges"] = False
    names = names_of(spec)
    place = names.index("filter system calls")
    assert names.index("look at the command") < place < names.index("limit the bounding set")
    del spec["linux"]["seccomp"]
    assert "filter system calls" not in names_of(spec)


def test_streams_or_a_console() -> None:
    assert "stdin, stdout, stderr are descriptors 3, 4, 2" in names_of(spec_of())
    with_console = names_of(spec_of(Tty=True), Resources(ENTER, 9, None, Console(7, 24, 80)))
    assert "open the console" in with_console
    assert not [name for name in with_console if "descriptors" in name]


def test_planning_changes_nothing_and_wrong_values_have_a_path() -> None:
    spec = spec_of()
    before = json.dumps(spec)
    assert names_of(spec) == names_of(spec)
    assert json.dumps(spec) == before
    with pytest.raises(ValueError, match="^process.cwd: 'x' is not an absolute path"):
        names_of(spec_of(WorkingDir="x"))


def test_the_environment_is_bytes_and_the_later_wins() -> None:
    assert parse_environment(["A=1", "B=x=y", "C=", "A=2", "D=\udcff"]) == {
        b"A": b"2", b"B": b"x=y", b"C": b"", b"D": b"\xff"
    }  # fmt: skip


@pytest.mark.parametrize("variable", ["", "A", "=1", "A=\0"])
def test_a_bad_variable_has_a_path(variable: str) -> None:
    with pytest.raises(ValueError, match=r"^process\.env\[1\]: .* is not NAME=value"):
        parse_environment(["A=1", variable])


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of two directories: a file that cannot be executed hides one that can."""
    for name, mode in (("one/prog", 0o644), ("two/prog", 0o755), ("two/data", 0o644)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "one/sub").mkdir()
    (tmp_path / "two/dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "two")
    return tmp_path


MISSING, DENIED = FileNotFoundError, PermissionError
NOT_FOUND: list[tuple[str, type[OSError], str]] = [
    # the command, 127 or 126, docker's words
    ("nosuch", MISSING, 'exec: "nosuch": executable file not found in $PATH'),
    ("", MISSING, 'exec: "": executable file not found in $PATH'),
    ("sub", MISSING, 'exec: "sub": executable file not found in $PATH'),
    ("data", MISSING, 'exec: "data": executable file not found in $PATH'),
    ("./nosuch", MISSING, 'exec: "./nosuch": stat ./nosuch: no such file or directory'),
    ("./dangling", MISSING, 'exec: "./dangling": stat ./dangling: no such file or directory'),
    ("./prog/x", MISSING, 'exec: "./prog/x": stat ./prog/x: '),
    ("./data", DENIED, 'exec: "./data": permission denied'),
    ("../one/sub", DENIED, 'exec: "../one/sub": is a directory'),
]


@pytest.mark.parametrize(("name", "kind", "words"), NOT_FOUND, ids=lambda value: str(value)[:20])
def test_what_cannot_be_executed(
    programs: Path, name: str, kind: type[OSError], words: str
) -> None:
    path = os.fsencode(f"{programs}/one:{programs}/nosuch:{programs}/two")
    with pytest.raises(OSError, match=re.escape(words)) as caught:
        find_program(name.encode(), path)
    assert caught.value.strerror is not None and caught.value.strerror.startswith(words)
    assert (caught.value.errno in (errno.ENOENT, errno.ENOTDIR)) == (kind is MISSING)


def test_the_first_that_can_be_executed_is_found(programs: Path) -> None:
    one, two = (os.fsencode(programs / name) for name in ("one", "two"))
    assert find_program(b"prog", one + b":" + two) == two + b"/prog"
    assert find_program(b"prog", one + b":") == b"./prog"
    assert find_program(b"./prog", b"") == b"./prog"


def report_of(data: bytes) -> tuple[int, ...]:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, data)
    os.close(write_fd)
    try:
        return read_report(read_fd)
    finally:
        os.close(read_fd)


TIMES = READY + struct.pack("=I2Q", 2, 5, 7)
FAILURE = FAILED + json.dumps({"step": "exec", "errno": 2, "text": 'exec: "é": no'}).encode()


def test_the_three_ends_of_a_report() -> None:
    assert report_of(TIMES) == (5, 7)
    assert report_of(READY + struct.pack("=I", 0)) == ()
    for data in (FAILURE, TIMES + FAILURE):
        with pytest.raises(StartError, match='^exec: "é": no$') as caught:
            report_of(data)
        assert (caught.value.step, caught.value.errno) == ("exec", 2)
    with pytest.raises(
        StartError, match="^set-up: the container was killed before its command ran"
    ):
        report_of(b"")


def failing_start(steps: list[Step], command: list[str]) -> tuple[str, int | None, str, bool]:
    """Start a process that cannot be; return what StartError says, and whether a child is left."""
    try:
        init.start({"process": {"args": command}, "linux": {"namespaces": []}}, steps)
    except StartError as error:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return error.step, error.errno, str(error), False
        return error.step, error.errno, str(error), True
    return "", None, "it started", True


def failures() -> list[tuple[str, int | None, str, bool]]:
    impossible = Step("do the impossible", os.chdir, ("/no/such",))
    odd = Step("do something odd", int, ("x",))
    die = Step("die", kill_self, ())
    return [
        failing_start([impossible], ["/bin/true"]),
        failing_start([odd], ["/bin/true"]),
        failing_start([die], ["/bin/true"]),
        failing_start([], ["/no"]),
    ]


def kill_self() -> None:
    os.kill(os.getpid(), 9)


@pytest.mark.root
def test_a_start_that_fails_says_which_step_and_leaves_no_child() -> None:
    refused, odd, killed, missing = run_in_child(failures).value
    assert refused == (
        "do the impossible",
        2,
        "do the impossible: No such file or directory",
        False,
    )
    assert odd[0] == "do something odd" and "invalid literal" in odd[2] and not odd[3]
    assert killed == ("set-up", 4, "set-up: the container was killed before its command ran", False)
    assert missing == ("exec", 2, 'exec: "/no": stat /no: no such file or directory', False)


def streams_after(stdio: tuple[int, int, int]) -> list[str]:
    """Put three files on 0, 1 and 2 of a child and let the plan give them out as `stdio` says."""
    for number in range(3):
        fd = os.memfd_create(f"file{number}")
        os.dup2(fd, number, inheritable=False)
    apply(
        [
            step
            for step in plan_streams("/dir", Resources((), 9, stdio, None))
            if "are desc" in step.name
        ]
    )
    return [
        os.readlink(f"/proc/self/fd/{fd}")[7:12] if os.get_inheritable(fd) else "closed"
        for fd in range(3)
    ]


@pytest.mark.root
@pytest.mark.parametrize("stdio", [(0, 1, 2), (1, 2, 0), (2, 2, 2), (1, 0, 2)])
def test_streams_in_each_others_place_are_not_lost(stdio: tuple[int, int, int]) -> None:
    assert run_in_child(streams_after, stdio).value == [f"file{number}" for number in stdio]


def test_a_console_whose_sender_died_is_an_end(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(EOFError, match="before it had a console"):
        receive_console(ours.fileno())
    ours.close()


@pytest.mark.root
def test_a_missing_working_directory_is_made(tmp_path: Path) -> None:
    made = f"{tmp_path}/a/b"

    def enter() -> str:
        change_directory(made)
        return os.getcwd()

    assert run_in_child(enter).value == made
