"""SCMP_ACT_NOTIFY: a supervisor outside the container is given the listener, and answers for the kernel."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import select
import socket
import struct
import subprocess
import threading
from typing import Any

import pytest

from mini_docker.security.seccomp import filter_flags, has_seccomp_flag
from tests.bundles import Runtime, rootfs, runtime  # noqa: F401 (fixtures)
from tests.system import Lab, lab, until  # noqa: F401 (a fixture)

pytestmark = pytest.mark.root
oci = pytest.mark.oci
# linux/seccomp.h: ioctls on the listener, struct seccomp_notif and seccomp_notif_resp
RECEIVE, SEND = 0xC0502100, 0xC0182101
QUESTION, ANSWER = "=QIIiIQ6Q", "=QqiI"


class Supervisor:
    """Listens on a Unix socket for listeners of seccomp's, and gives every question the same answer."""

    def __init__(self, path: pathlib.Path, error: int) -> None:
        self.error = error
        self.states: list[dict[str, Any]] = []
        self.rests: list[bytes] = []
        self.asked: list[int] = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
                self.rests.append(connection.recv(64))
            self.states.append(json.loads(data))
            assert len(fds) == 1
            threading.Thread(target=self.answer, args=(fds[0],)).start()

    def answer(self, listener_fd: int) -> None:
        """Answer until the last process under the filter has ended; before Linux 6.11 only poll says so."""
        events = select.poll()
        events.register(listener_fd, select.POLLIN)
        while events.poll()[0][1] & select.POLLIN:
            question = bytearray(80)
            try:
                fcntl.ioctl(listener_fd, RECEIVE, question)
            except OSError:
                break
            number, _, _, call = struct.unpack_from("=QIIi", question)
            self.asked.append(call)
            try:
                fcntl.ioctl(listener_fd, SEND, struct.pack(ANSWER, number, 0, -self.error, 0))
            except FileNotFoundError:
                continue  # whoever asked is gone
        os.close(listener_fd)

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.server.close()


def policy(path: pathlib.Path, *names: str, **more: Any) -> dict[str, Any]:
    rule = {"names": [*(names or ("mkdir", "mkdirat"))], "action": "SCMP_ACT_NOTIFY"}
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "syscalls": [rule],
        **more,
    }


@oci("config-linux.md", "seccomp: SCMP_ACT_NOTIFY, listenerPath, listenerMetadata")
@pytest.mark.parametrize("no_new", [False, True])
def test_a_supervisor_answers_mkdir(runtime: Runtime, tmp_path: pathlib.Path, no_new: bool) -> None:
    path = tmp_path / "agent"
    supervisor = Supervisor(path, errno.EXDEV)
    try:
        pid = runtime.create("sh", "-c", "mkdir /proc/x; sleep 1000",
                             seccomp=policy(path, listenerMetadata="of the test"),
                             noNewPrivileges=no_new, terminal=False)  # fmt: skip
        assert runtime.call("start", runtime.id).returncode == 0
        done = runtime.call("exec", runtime.id, "mkdir", "/proc/y")
        assert "cross-device link" in done.stderr
        until(lambda: len(supervisor.asked) == 2)  # the first command may be slower than the second
    finally:
        runtime.call("delete", "--force", runtime.id)
        supervisor.close()
    first, second = supervisor.states
    assert supervisor.rests == [b"", b""]
    assert first["ociVersion"] == "1.2.0" and first["fds"] == ["seccompFd"]
    assert first["pid"] == first["state"]["pid"] == pid
    assert first["metadata"] == "of the test"
    assert first["state"]["id"] == runtime.id
    assert first["state"]["status"] == ("created" if no_new else "creating")
    assert second["pid"] != pid and second["state"]["status"] == "running"
    assert len(supervisor.asked) == 2


def test_a_supervisor_may_allow_and_the_command_holds_no_listener(
    runtime: Runtime, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "agent"
    supervisor = Supervisor(path, 0)
    try:
        done = runtime.run("sh", "-c", "mkdir /proc/x && ls -l /proc/self/fd", seccomp=policy(path))
    finally:
        supervisor.close()
    assert done.returncode == 0, done.stderr  # the answer was 0, whatever mkdir would have said
    assert "seccomp" not in done.stdout
    assert len(supervisor.states) == 1


@pytest.mark.parametrize("no_new", [False, True])
def test_nobody_listens(runtime: Runtime, tmp_path: pathlib.Path, no_new: bool) -> None:
    words = runtime.refused(seccomp=policy(tmp_path / "nobody"), noNewPrivileges=no_new)
    assert words == f"linux.seccomp.listenerPath {tmp_path}/nobody: No such file or directory"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"listenerPath": ""}, "linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs one"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY is"),
    ],
)
def test_a_wrong_policy(
    runtime: Runtime, tmp_path: pathlib.Path, document: dict[str, Any], words: str
) -> None:
    assert runtime.refused(seccomp=policy(tmp_path / "agent", **document)).startswith(words)


def test_flags_with_and_without_a_listener(tmp_path: pathlib.Path) -> None:
    names = ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
    flags = [f"SECCOMP_FILTER_FLAG_{name}" for name in names]
    assert filter_flags({"flags": flags}) == 1 | 2 | 4
    assert filter_flags(policy(tmp_path, flags=flags)) == 2 | 4 | 8 | 32
    assert filter_flags(policy(tmp_path)) == 4 | 8


@oci("config-linux.md", "seccomp.flags: LOG, SPEC_ALLOW, WAIT_KILLABLE_RECV")
def test_the_kernel_takes_the_flags(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    if has_seccomp_flag(32):
        flags.append("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
    path = tmp_path / "agent"
    supervisor = Supervisor(path, errno.EPERM)
    try:
        done = runtime.run("mkdir", "/proc/x", seccomp=policy(path, flags=flags))
    finally:
        supervisor.close()
    assert "Operation not permitted" in done.stderr, done
    assert supervisor.states[0]["state"]["status"] == "creating"


def test_features_tell_of_flags_and_actions(runtime: Runtime) -> None:
    seccomp = json.loads(runtime.call("features").stdout)["linux"]["seccomp"]
    assert "SCMP_ACT_NOTIFY" in seccomp["actions"] and "SCMP_CMP_MASKED_EQ" in seccomp["operators"]
    assert "SECCOMP_FILTER_FLAG_LOG" in seccomp["supportedFlags"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])


def test_a_start_whose_listener_is_gone_ends_the_container(
    runtime: Runtime, tmp_path: pathlib.Path
) -> None:
    runtime.create("sleep", "1000", seccomp=policy(tmp_path / "gone"), noNewPrivileges=True)
    done = runtime.call("start", runtime.id)
    assert done.returncode == 1 and "listenerPath" in done.stderr
    assert runtime.status() == "stopped"
    assert subprocess.run(["test", "-d", runtime.state_root / runtime.id]).returncode == 0


def test_the_engine_s_containers_and_execs_ask_too(lab: Lab, tmp_path: pathlib.Path) -> None:
    """Where an exec's starter has joined the container, the socket's path leads somewhere else."""
    path, profile = tmp_path / "agent", tmp_path / "profile.json"
    supervisor = Supervisor(path, errno.EXDEV)
    profile.write_text(json.dumps(policy(path)))
    flags = ("--name", "asks", "--security-opt", f"seccomp={profile}")
    try:
        try:
            run = lab.call("run", "-d", *flags, "busybox", "sleep", "1000")
            assert run.returncode == 0, run.stderr
            done = lab.call("exec", "asks", "mkdir", "/tmp/y")
            assert "cross-device link" in done.stderr, done
        finally:
            supervisor.close()
        first, second = supervisor.states
        done = lab.call("exec", "asks", "true")
        assert done.returncode == 126 and f"listenerPath {path}: Connection refused" in done.stdout
    finally:
        lab.call("rm", "-f", "asks")
    assert first["state"]["id"] == second["state"]["id"] == run.stdout.strip()
    assert (first["state"]["status"], second["state"]["status"]) == ("creating", "running")
    assert first["pid"] == first["state"]["pid"] == second["state"]["pid"] != second["pid"]
