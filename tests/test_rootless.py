"""mini_runc for a user without privileges: one id or those of /etc/subuid, and no control group."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bundles import KINDS, MINI_RUNC, Runtime, rootfs, runtime  # noqa: F401 (fixtures)
from tests.conftest import cannot_run_here
from tests.system import has_ended
from tests.test_listener import Supervisor, policy

pytestmark = pytest.mark.root
oci = pytest.mark.oci
UID = 31_337
FIRST, COUNT = 700_000, 65_536


class User:
    """A user whom only these tests know: files of /etc are bound over in a mount namespace of each call."""

    def __init__(self, runtime: Runtime, folder: pathlib.Path) -> None:
        self.runtime, self.folder = runtime, folder
        self.bundle = folder / "bundle"
        self.bundle.mkdir()
        for name, text in (
            (
                "passwd",
                f"{pathlib.Path('/etc/passwd').read_text()}rootless:x:{UID}:{UID}::/:/bin/sh\n",
            ),
            ("subuid", f"rootless:{FIRST}:{COUNT}\n"),
            ("subgid", f"rootless:{FIRST}:{COUNT}\n"),
        ):
            (folder / name).write_text(text)
        for path in (folder, self.bundle):
            os.chown(path, UID, UID)

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        binds = "; ".join(
            f"mount --bind {self.folder}/{n} /etc/{n}" for n in ("passwd", "subuid", "subgid")
        )
        who = f"setpriv --reuid {UID} --regid {UID} --clear-groups"
        script = f'{binds}; exec {who} "$@"'
        full = ["unshare", "--mount", "sh", "-ec", script, "-", MINI_RUNC]
        options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | options
        return subprocess.run(
            [*full, "--root", f"{self.folder}/state", *words], timeout=240, **options
        )

    def document(self, *command: str, many: bool = False, **changes: Any) -> dict[str, Any]:
        namespaces = [{"type": kind} for kind in (*KINDS, "user")]
        document = self.runtime.document(*command, namespaces=namespaces, **changes)
        ids = [{"containerID": 0, "hostID": UID, "size": 1}]
        if many:
            ids.append({"containerID": 1, "hostID": FIRST, "size": COUNT})
        document["linux"].update(uidMappings=ids, gidMappings=ids)
        del document["linux"]["cgroupsPath"]
        return document

    def run(self, document: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
        (self.bundle / "config.json").write_text(json.dumps(document))
        quiet = {
            "capture_output": False,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        options = quiet if "--detach" in words else {}
        return self.call("run", *words, "-b", str(self.bundle), self.runtime.id, **options)


@pytest.fixture
def user(runtime: Runtime, tmp_path: pathlib.Path) -> Iterator[User]:
    for path in (tmp_path, *tmp_path.parents):
        if path.is_relative_to("/tmp") and path != pathlib.Path("/tmp"):
            path.chmod(0o755)
    folder = tmp_path / "user"
    folder.mkdir()
    found = User(runtime, folder)
    if found.call("--version").returncode != 0:
        cannot_run_here("another user may not read this checkout")
    yield found
    found.call("delete", "--force", runtime.id)


def need_tools() -> None:
    if not shutil.which("newuidmap") or not os.path.exists("/etc/subuid"):
        cannot_run_here("newuidmap is not installed (remedy: the package uidmap)")


def test_one_id_and_nothing_else(user: User) -> None:
    done = user.run(user.document("sh", "-c", "id -u; hostname; echo $$; cat /proc/self/setgroups"))
    assert (done.returncode, done.stdout) == (0, "0\nweb\n1\ndeny\n"), done.stderr


@oci("config-linux.md", "uidMappings, gidMappings of a user without privileges: /etc/subuid")
def test_the_ids_of_subuid(user: User) -> None:
    need_tools()
    script = "cat /proc/self/uid_map /proc/self/gid_map; id"
    tmpfs = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
    wanted = {"uid": 5, "gid": 6, "additionalGids": [9]}
    document = user.document("sh", "-c", script, many=True, user=wanted)
    done = user.run(document)
    words = done.stdout.split()
    assert words[:12] == ["0", str(UID), "1", "1", str(FIRST), str(COUNT)] * 2, done.stderr
    assert words[12:14] == ["uid=5", "gid=6"] and "9" in done.stdout.splitlines()[-1]
    script = "touch /tmp/x; chown 7:8 /tmp/x; stat -c %u:%g /tmp/x"
    done = user.run(user.document("sh", "-c", script, many=True, more_mounts=[tmpfs]))
    assert done.stdout.splitlines()[-1] == "7:8", done.stderr


@pytest.mark.parametrize("many", [False, True])
def test_exec_kill_and_delete(user: User, many: bool) -> None:
    if many:
        need_tools()
    started = user.run(user.document("sleep", "1000", many=many), "--detach")
    assert started.returncode == 0
    name = user.runtime.id
    state = json.loads(user.call("state", name).stdout)
    assert state["status"] == "running"
    inside = user.call("exec", name, "sh", "-c", "id -u; cat /proc/1/comm; hostname; exit 4")
    assert (inside.returncode, inside.stdout) == (4, "0\nsleep\nweb\n"), inside.stderr
    assert name in user.call("list").stdout and "rootless" in user.call("list").stdout
    assert json.loads(user.call("ps", "--format", "json", name).stdout) == [state["pid"]]
    refused = user.call("delete", name)
    assert refused.returncode == 1 and "not stopped" in refused.stderr
    assert user.call("kill", name, "KILL").returncode == 0
    user.call("delete", "--force", name)
    assert user.call("list", "-q").stdout == "" and has_ended(state["pid"])


def test_what_subuid_does_not_grant_is_refused(user: User) -> None:
    need_tools()
    document = user.document("true", many=True)
    document["linux"]["uidMappings"][1]["hostID"] = 500_000
    done = user.run(document)
    assert done.returncode == 1 and "newuidmap" in done.stderr and "not allowed" in done.stderr
    assert done.stderr.count("\n") == 1 and user.call("list", "-q").stdout == ""


def test_limits_need_a_control_group(user: User) -> None:
    """As runc: without anything asked for a container does without a group; else it is an error."""
    done = user.run(user.document("true", resources={"pids": {"limit": 5}}))
    assert (done.returncode, done.stderr) == (
        1,
        "mini_runc: linux.resources.pids: this user may make no control group\n",
    )
    document = user.document("true")
    document["linux"]["cgroupsPath"] = "/somewhere"
    done = user.run(document)
    assert done.returncode == 1 and "Permission denied" in done.stderr
    assert user.call("list", "-q").stdout == ""
    paused = user.run(user.document("sleep", "1000"), "--detach")
    assert paused.returncode == 0
    done = user.call("pause", user.runtime.id)
    assert done.returncode == 1 and "has no control group of its own" in done.stderr


@oci("config-linux.md", "seccomp: SCMP_ACT_NOTIFY for a user without privileges")
@pytest.mark.parametrize("wanted", [{}, {"uid": 5, "gid": 5}])
@pytest.mark.parametrize("no_new", [False, True])
def test_a_listener(user: User, no_new: bool, wanted: dict[str, int]) -> None:
    """Its descriptor lies in a process that hides, at the gate and in an exec, and of another uid."""
    if wanted:
        need_tools()
    path = user.folder / "agent"
    supervisor = Supervisor(path, errno.EXDEV)
    path.chmod(0o777)
    document = user.document("sleep", "1000", many=bool(wanted), seccomp=policy(path),
                             noNewPrivileges=no_new, user=wanted)  # fmt: skip
    try:
        assert user.run(document, "--detach").returncode == 0
        done = user.call("exec", user.runtime.id, "mkdir", "/proc/y")
        assert "cross-device link" in done.stderr
    finally:
        user.call("delete", "--force", user.runtime.id)
        supervisor.close()
    assert [found["state"]["id"] for found in supervisor.states] == [user.runtime.id] * 2
