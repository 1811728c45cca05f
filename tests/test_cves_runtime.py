"""Attacks on runtimes that have a number: each is tried against mini_runc, each refused or harmless."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from tests.bundles import Runtime, rootfs, runtime  # noqa: F401 (fixtures)

pytestmark = pytest.mark.root
PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
SYS = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}


@pytest.fixture
def evil_root(rootfs: str, tmp_path: pathlib.Path) -> pathlib.Path:
    """A root file system that an attacker may prepare."""
    root = tmp_path / "evil"
    subprocess.run(["cp", "-a", rootfs, root], check=True)
    return root


# ---- CVE-2019-5736: the runtime's own binary, reached through /proc/PID/exe -------------------------


@pytest.mark.parametrize("script", ["#!/proc/self/exe\n", "#!/bin/way\n", ""])
def test_cve_2019_5736_the_command_is_the_runtime(
    runtime: Runtime, evil_root: pathlib.Path, script: str
) -> None:
    (evil_root / "bin" / "way").symlink_to("/proc/self/exe")
    (evil_root / "bin" / "evil").write_text(script)
    (evil_root / "bin" / "evil").chmod(0o755)
    command = "evil" if script else "/bin/way"
    words = runtime.refused(command, root={"path": str(evil_root)})
    assert words == f'exec: "{command}": permission denied'


def test_cve_2019_5736_what_waits_at_the_gate_is_hidden(runtime: Runtime) -> None:
    """A neighbour in the same pid namespace looks at an init that is still our interpreter."""
    pid = runtime.start("sleep", "1000", capabilities={})
    neighbour, runtime.id = runtime.id, f"{runtime.id}-b"
    kinds = [{"type": kind} for kind in ("mount", "uts", "ipc", "network", "cgroup")]
    kinds.append({"type": "pid", "path": f"/proc/{pid}/ns/pid"})
    waiting = runtime.create("sleep", "1001", namespaces=kinds, capabilities={})
    assert "python" in os.readlink(f"/proc/{waiting}/exe")
    look = "for p in /proc/[0-9]*; do echo $(cat $p/comm) $(readlink $p/exe); done"
    seen = runtime.call("exec", neighbour, "sh", "-c", look).stdout
    assert "sleep /bin/busybox" in seen and "/bin/python" not in seen
    assert "python" in seen or "mini_runc" in seen  # it is there, only its file is not shown
    runtime.call("delete", "--force", runtime.id)
    runtime.id = neighbour


def test_cve_2019_5736_exec_of_the_runtime(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    done = runtime.call("exec", runtime.id, "/proc/self/exe")
    assert done.returncode == 255 and 'exec: "/proc/self/exe": permission denied' in done.stderr


# ---- CVE-2019-19921, CVE-2023-27561: /proc of the image is a symlink to somewhere prepared ----------


@pytest.mark.parametrize(("name", "mount"), [("proc", PROC), ("sys", SYS)])
@pytest.mark.parametrize("target", ["tmp/fake", "/tmp/fake", "../../../../tmp", "/proc/self/cwd"])
def test_cve_2019_19921_a_proc_that_is_a_symlink(
    runtime: Runtime, evil_root: pathlib.Path, name: str, mount: dict[str, object], target: str
) -> None:
    (evil_root / "tmp" / "fake").mkdir()
    (evil_root / name).rmdir()
    (evil_root / name).symlink_to(target)
    words = runtime.refused(root={"path": str(evil_root)}, mounts=[mount])
    assert f"/{name} leads over a symlink in this root: refused" in words


def test_cve_2023_27561_a_proc_below_a_symlink(runtime: Runtime, evil_root: pathlib.Path) -> None:
    """The mask of /proc/kcore would lie elsewhere; refused as long as any part of the way is a link."""
    (evil_root / "real").mkdir()
    (evil_root / "alias").symlink_to("real")
    mount = {**PROC, "destination": "/alias/proc"}
    words = runtime.refused(root={"path": str(evil_root)}, mounts=[mount])
    assert "leads over a symlink in this root: refused" in words


def test_cve_2023_27561_control_groups_on_a_symlink(
    runtime: Runtime, evil_root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (evil_root / "cg").symlink_to(host)
    mount = {"destination": "/cg", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    done = runtime.run("true", root={"path": str(evil_root)}, mounts=[PROC, mount])
    assert done.returncode in (0, 1) and "internal" not in done.stderr
    assert list(host.iterdir()) == []


# ---- CVE-2021-30465: a mount's destination leads over a symlink of the image ------------------------


@pytest.mark.parametrize("climb", ["", "../../../../../../../.."])
def test_cve_2021_30465_a_destination_over_a_symlink(
    runtime: Runtime, evil_root: pathlib.Path, tmp_path: pathlib.Path, climb: str
) -> None:
    host, volume = tmp_path / "host", tmp_path / "volume"
    host.mkdir()
    volume.mkdir()
    (volume / "file").write_text("of the volume")
    (evil_root / "link").symlink_to(f"{climb}{host}")
    bind = {"destination": "/link/made", "source": str(volume), "options": ["bind"]}
    script = f"cat {host}/made/file; cat /proc/self/mountinfo"
    done = runtime.run("sh", "-c", script, root={"path": str(evil_root)}, mounts=[PROC, bind])
    assert done.stdout.startswith("of the volume"), done.stderr
    assert list(host.iterdir()) == []  # neither a directory nor a mount got out
    assert str(host) not in pathlib.Path("/proc/self/mountinfo").read_text()


def test_cve_2021_30465_a_destination_that_changes_all_the_time(
    runtime: Runtime, evil_root: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Another container swaps a directory and a symlink to the host, as fast as it can."""
    host = tmp_path / "host"
    host.mkdir()
    (evil_root / "a").mkdir()
    (evil_root / "b").symlink_to("/" + "../" * 12 + str(host))
    swap = "while :; do mv a c; mv b a; mv a b; mv c a; done"
    attacker = subprocess.Popen(["sh", "-c", swap], cwd=evil_root, stderr=subprocess.DEVNULL)
    tmpfs = {"destination": "/a/x", "type": "tmpfs", "source": "tmpfs"}
    try:
        for _ in range(8):
            done = runtime.run("true", root={"path": str(evil_root)}, mounts=[PROC, tmpfs])
            assert done.returncode in (0, 1) and "internal" not in done.stderr
    finally:
        attacker.kill()
        attacker.wait()
    assert list(host.iterdir()) == []


# ---- CVE-2022-29162: exec --cap made capabilities inheritable ---------------------------------------


def test_cve_2022_29162_nothing_becomes_inheritable(runtime: Runtime) -> None:
    runtime.start("sleep", "1000", capabilities={"bounding": ["CAP_CHOWN"]})
    done = runtime.call("exec", "--cap", "CAP_KILL", runtime.id, "cat", "/proc/self/status")
    sets = dict(line.split(":\t") for line in done.stdout.splitlines() if line.startswith("Cap"))
    assert sets["CapEff"] == f"{1 << 5 | 1:016x}"  # root gets what the bounding set leaves
    assert sets["CapInh"] == sets["CapAmb"] == f"{0:016x}"


# ---- CVE-2024-21626: a descriptor of the host, left open, as the working directory ------------------


@pytest.mark.parametrize("number", range(3, 12))
@pytest.mark.parametrize("below", ["", "/../../tmp"])
def test_cve_2024_21626_the_working_directory(runtime: Runtime, number: int, below: str) -> None:
    runtime.write(runtime.document("pwd", cwd=f"/proc/self/fd/{number}{below}"))
    host_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        words = ("run", "-b", str(runtime.bundle), runtime.id)
        done = runtime.call(*words, pass_fds=[host_fd])
    finally:
        os.close(host_fd)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1


def test_cve_2024_21626_the_working_directory_of_exec(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    host_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(3, 12):
            words = ("exec", "--cwd", f"/proc/self/fd/{number}", runtime.id, "pwd")
            done = runtime.call(*words, pass_fds=[host_fd])
            assert (done.returncode, done.stdout) == (255, "")
    finally:
        os.close(host_fd)


def test_cve_2024_21626_no_descriptor_is_left_to_the_container(runtime: Runtime) -> None:
    host_fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        runtime.write(runtime.document("sh", "-c", "ls /proc/self/fd; ls /proc/$$/fd"))
        done = runtime.call("run", "-b", str(runtime.bundle), runtime.id, pass_fds=[host_fd])
    finally:
        os.close(host_fd)
    assert set(done.stdout.split()) == {
        "0",
        "1",
        "2",
        "3",
    }  # 3 is the directory that ls itself reads


# ---- others -----------------------------------------------------------------------------------------


def test_what_waits_keeps_nothing_of_its_caller_open(runtime: Runtime) -> None:
    """An engine waits for the end of a pipe that the container's init must not hold."""
    read_fd, write_fd = os.pipe()
    runtime.write(runtime.document("sleep", "1000"))
    null = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = ("create", "-b", str(runtime.bundle), runtime.id)
    assert runtime.call(*words, pass_fds=[write_fd], **null).returncode == 0
    os.close(write_fd)
    os.set_blocking(read_fd, False)
    assert os.read(read_fd, 1) == b""
    os.close(read_fd)
    pid = json.loads(runtime.call("state", runtime.id).stdout)["pid"]
    assert len(os.listdir(f"/proc/{pid}/fd")) == 5  # three streams and the gate
