"""What only a machine with systemd and AppArmor can show: `make vm-test` runs these, make test says why not.

systemd's scopes under mini_runc and under podman's, the daemon's own units in labs/, profiles that confine.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from mini_docker.cgroups.systemd import SYSTEM_BUS, systemd_is_here
from mini_docker.security.labels import enabled
from tests.bundles import MINI_RUNC, ROOT, Runtime, rootfs, runtime  # noqa: F401 (fixtures)
from tests.conftest import cannot_run_here
from tests.system import COMMAND, has_ended

pytestmark = pytest.mark.root
LIMITS = {"pids": {"limit": 20}, "memory": {"limit": 64 << 20}, "cpu": {"quota": 50_000}}


@pytest.fixture
def systemd(leak_free: None) -> None:
    """Ask for a machine that systemd runs, and that has the v2 tree alone."""
    if not systemd_is_here() or not os.path.exists(SYSTEM_BUS):
        cannot_run_here("systemd does not run this machine (remedy: sudo make vm-test)")
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        cannot_run_here("the control groups are not version 2 (remedy: sudo make vm-test)")


def shown(unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit, as systemctl shows them."""
    wanted = [f"--property={name}" for name in names]
    words = ["systemctl", "show", *wanted, unit]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def active(unit: str) -> str:
    return shown(unit, "ActiveState")["ActiveState"]


def group_of(pid: int | str) -> str:
    return pathlib.Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def read_group(path: str, name: str) -> str:
    return pathlib.Path(f"/sys/fs/cgroup{path}/{name}").read_text().strip()


def eventually(true: Callable[[], object], what: str, seconds: float = 240) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


# ---- scopes, over D-Bus -----------------------------------------------------------------------------


@pytest.fixture
def asking(runtime: Runtime) -> Runtime:  # noqa: F811
    """mini_runc that asks systemd for each control group."""
    wrapper = runtime.directory / "mini_runc"
    wrapper.write_text(f'#!/bin/sh\nexec {MINI_RUNC} --systemd-cgroup "$@"\n')
    wrapper.chmod(0o755)
    runtime.program = str(wrapper)
    return runtime


@pytest.fixture
def scoped(asking: Runtime, systemd: None) -> Iterator[Runtime]:
    """The same, where there is a systemd to ask."""
    yield asking
    subprocess.run(["systemctl", "stop", f"test-{asking.id}.scope"], capture_output=True)


def path_of(scoped: Runtime, slice_name: str = "system.slice") -> str:
    return f"{slice_name}:test:{scoped.id}"


@pytest.mark.oci("config-linux.md", "cgroupsPath: a scope of systemd's, with --systemd-cgroup")
def test_a_container_lives_in_a_scope_of_systemds(scoped: Runtime) -> None:
    pid = scoped.start("sleep", "600", cgroupsPath=path_of(scoped), resources=LIMITS)
    unit = f"test-{scoped.id}.scope"
    assert group_of(pid) == f"/system.slice/{unit}"
    properties = shown(unit, "ActiveState", "Delegate", "TasksMax", "MemoryMax", "Slice")
    assert properties == {
        "ActiveState": "active",
        "Delegate": "yes",
        "TasksMax": "20",
        "MemoryMax": str(64 << 20),
        "Slice": "system.slice",
    }
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    limits = [read_group(group_of(pid), name) for name in ("pids.max", "memory.max", "cpu.max")]
    assert limits == ["20", str(64 << 20), "50000 100000"]
    assert scoped.call("kill", scoped.id, "KILL").returncode == 0
    scoped.wait_for("stopped")
    assert scoped.call("delete", scoped.id).returncode == 0
    assert active(unit) == "inactive"
    assert not os.path.exists(f"/sys/fs/cgroup/system.slice/{unit}")


def test_the_limits_of_a_scope_hold_and_can_be_changed(scoped: Runtime) -> None:
    greedy = "(for n in $(seq 30); do sleep 600 & done) 2>/dev/null; exec sleep 600"
    pid = scoped.start("sh", "-c", greedy, cgroupsPath=path_of(scoped), resources=LIMITS)
    group, unit = group_of(pid), f"test-{scoped.id}.scope"
    eventually(lambda: "max 0" not in read_group(group, "pids.events"), "no fork was refused")
    assert int(read_group(group, "pids.current")) <= 20
    assert scoped.call("update", "--pids-limit", "25", scoped.id).returncode == 0
    assert shown(unit, "TasksMax") == {"TasksMax": "25"}
    assert read_group(group, "pids.max") == "25"
    assert scoped.call("pause", scoped.id).returncode == 0
    assert "frozen 1" in read_group(group, "cgroup.events")
    assert scoped.call("resume", scoped.id).returncode == 0
    assert scoped.call("delete", "--force", scoped.id).returncode == 0
    assert active(unit) == "inactive"


def test_an_oom_kill_in_a_scope(scoped: Runtime) -> None:
    done = scoped.run("tail", "/dev/zero", cgroupsPath=path_of(scoped), resources=LIMITS)
    assert done.returncode == 137
    assert active(f"test-{scoped.id}.scope") == "inactive"


def test_exec_enters_the_scope(scoped: Runtime) -> None:
    scoped.start("sleep", "600", cgroupsPath=path_of(scoped))
    done = scoped.call("exec", scoped.id, "cat", "/proc/self/cgroup")
    assert done.stdout == "0::/\n"  # its own control group namespace begins there
    assert scoped.call("delete", "--force", scoped.id).returncode == 0


def test_a_slice_of_its_own_is_made_and_named(scoped: Runtime) -> None:
    slice_name = f"test-{os.getpid()}.slice"
    pid = scoped.start("sleep", "600", cgroupsPath=path_of(scoped, slice_name))
    assert group_of(pid) == f"/test.slice/{slice_name}/test-{scoped.id}.scope"
    assert scoped.call("delete", "--force", scoped.id).returncode == 0
    subprocess.run(["systemctl", "stop", slice_name, "test.slice"], check=True)


def test_who_stops_the_scope_stops_the_container(scoped: Runtime) -> None:
    script = "trap exit TERM; while :; do sleep 1; done"  # or systemd waits 90 s before it kills
    pid = scoped.start("sh", "-c", script, cgroupsPath=path_of(scoped))
    subprocess.run(["systemctl", "stop", f"test-{scoped.id}.scope"], check=True)
    eventually(lambda: has_ended(pid), "it lives")
    scoped.wait_for("stopped")
    assert scoped.call("delete", scoped.id).returncode == 0


@pytest.mark.parametrize("path", ["/no/scope", "a:b", "x.scope:test:web", "system.slice:a/b:web"])
def test_a_path_that_names_no_scope_is_refused(asking: Runtime, path: str) -> None:
    """It once left a record that delete --force could not read."""
    assert f"cgroupsPath: '{path}' is not like" in asking.refused("true", cgroupsPath=path)


# ---- podman, with systemd as its manager ------------------------------------------------------------


@pytest.fixture
def podman(systemd: None, rootfs: str, tmp_path: pathlib.Path) -> Iterator[list[str]]:  # noqa: F811
    """The words of a podman that has mini_runc make its containers, in systemd's scopes."""
    if not shutil.which("podman") or not shutil.which("conmon"):
        cannot_run_here("podman is not installed (remedy: labs/provision.sh --peers)")
    short = pathlib.Path(tempfile.mkdtemp())  # its sockets lie there
    words = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run"]
    words += ["--tmpdir", f"{short}/tmp", "--runtime", MINI_RUNC, "--storage-driver", "vfs"]
    words += ["--cgroup-manager", "systemd", "--events-backend", "file"]
    subprocess.run(["tar", "-C", rootfs, "-cf", tmp_path / "busybox.tar", "."], check=True)
    subprocess.run(
        [*words, "import", tmp_path / "busybox.tar", "busybox"], check=True, cwd=tmp_path
    )
    yield words
    subprocess.run([*words, "rm", "--all", "--force", "--time", "0"], cwd=tmp_path)
    subprocess.run(["systemctl", "stop", "machine.slice"], check=True)
    shutil.rmtree(short)


def test_podman_with_systemds_groups(podman: list[str], tmp_path: pathlib.Path) -> None:
    def call(*words: str) -> str:
        done = subprocess.run(
            [*podman, *words], capture_output=True, text=True, cwd=tmp_path, timeout=240
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    flags = ("--network", "none", "--pids-limit", "20", "--memory", "64m")
    name = call("run", "-d", "--name", "web", *flags, "busybox", "sleep", "600")
    pid = call("inspect", "-f", "{{.State.Pid}}", "web")
    assert group_of(pid).startswith(f"/machine.slice/libpod-{name}.scope")
    assert shown(f"libpod-{name}.scope", "TasksMax", "MemoryMax") == {
        "TasksMax": "20",
        "MemoryMax": str(64 << 20),
    }
    assert call("exec", "web", "hostname") == name[:12]
    call("pause", "web")
    call("unpause", "web")
    call("rm", "--force", "--time", "0", "web")
    eventually(lambda: active(f"libpod-{name}.scope") == "inactive", "its scope is still there")


# ---- AppArmor ---------------------------------------------------------------------------------------

PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  unix,
  deny /mnt/secret* rwklx,
}}
"""


@pytest.fixture
def profile(tmp_path: pathlib.Path) -> Iterator[str]:
    """The name of a profile that is loaded: all is allowed but /mnt/secret."""
    if not enabled("apparmor") or not shutil.which("apparmor_parser"):
        cannot_run_here("this kernel has no AppArmor, or nobody its parser (remedy: make vm-test)")
    name = f"mini_docker-test-{os.getpid()}"
    text = PROFILE.format(name=name)

    def parser(*words: str) -> None:
        command = ["apparmor_parser", "--skip-cache", *words]
        subprocess.run(command, input=text, text=True, check=True)

    parser("--replace")
    yield name
    parser("--remove")


SECRET = "cat /proc/self/attr/current; echo a >/mnt/plain && echo b >/mnt/secret; ls /mnt"


def test_a_profile_confines_a_container(
    runtime: Runtime,  # noqa: F811
    profile: str,
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "shared").mkdir()
    mount = {"destination": "/mnt", "source": str(tmp_path / "shared"), "options": ["bind"]}
    words = ("sh", "-c", SECRET)
    done = runtime.run(*words, more_mounts=[mount], apparmorProfile=profile)
    assert done.stdout == f"{profile} (enforce)\nplain\n"
    assert "can't create /mnt/secret: Permission denied" in done.stderr
    assert "secret" in runtime.run(*words, more_mounts=[mount]).stdout


def test_exec_takes_the_profile_of_the_container(runtime: Runtime, profile: str) -> None:  # noqa: F811
    runtime.start("sleep", "600", apparmorProfile=profile)
    words = ("cat", "/proc/self/attr/current")
    assert runtime.call("exec", runtime.id, *words).stdout == f"{profile} (enforce)\n"


def test_a_profile_that_nobody_loaded_is_refused(runtime: Runtime, profile: str) -> None:  # noqa: F811
    assert f"{profile}-not" in runtime.refused(apparmorProfile=f"{profile}-not")


# ---- the daemon's units -----------------------------------------------------------------------------

UNIT = "mini_docker-test"
SOCKET = f"/run/{UNIT}.sock"


@pytest.fixture
def units(systemd: None, tmp_path: pathlib.Path) -> Iterator[None]:
    """The two files of labs/ under other names, with a data root and a socket of the tests' own."""
    for kind in ("service", "socket"):
        text = (ROOT / "labs" / f"mini_docker.{kind}").read_text()
        text = text.replace("mini_docker.socket", f"{UNIT}.socket")
        text = text.replace("/run/mini_docker.sock", SOCKET)
        text = text.replace("/opt/mini_docker/", f"{ROOT}/").replace(
            "-H fd://", f"--data-root {tmp_path}/root -H fd://"
        )
        pathlib.Path(f"/run/systemd/system/{UNIT}.{kind}").write_text(text)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    ours = [COMMAND, "--data-root", f"{tmp_path}/root"]
    subprocess.run([*ours, "setup"], check=True)
    yield
    subprocess.run(["systemctl", "stop", f"{UNIT}.socket", f"{UNIT}.service"])
    subprocess.run([*ours, "reset"], check=True)
    for kind in ("service", "socket"):
        os.unlink(f"/run/systemd/system/{UNIT}.{kind}")
    subprocess.run(["systemctl", "daemon-reload"], check=True)


def docker(*words: str) -> str:
    """Call our command line at the unit's socket."""
    command = [COMMAND, "-H", f"unix://{SOCKET}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()


def test_the_first_client_starts_the_daemon_and_containers_outlive_it(units: None) -> None:
    subprocess.run(["systemctl", "start", f"{UNIT}.socket"], check=True)
    assert (active(f"{UNIT}.socket"), active(f"{UNIT}.service")) == ("active", "inactive")

    loop = "while :; do echo alive; sleep 0.2; done"
    docker("run", "-d", "--name", "web", "--network", "none", "busybox", "sh", "-c", loop)
    assert active(f"{UNIT}.service") == "active"
    pid = docker("inspect", "-f", "{{.State.Pid}}", "web")
    assert f"{UNIT}.service" not in group_of(pid)

    first = shown(f"{UNIT}.service", "MainPID")["MainPID"]
    subprocess.run(["systemctl", "restart", f"{UNIT}.service"], check=True)
    assert shown(f"{UNIT}.service", "MainPID")["MainPID"] not in (first, "0")
    assert docker("inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "web") == f"{pid} running"
    assert docker("exec", "web", "echo", "still here") == "still here"

    subprocess.run(["systemctl", "stop", f"{UNIT}.service"], check=True)
    assert active(f"{UNIT}.service") == "inactive"
    assert not has_ended(int(pid))
    lines = docker("logs", "web").count("alive")  # which starts the daemon again
    assert active(f"{UNIT}.service") == "active"
    eventually(lambda: docker("logs", "web").count("alive") > lines, "its output is lost")

    docker("rm", "--force", "web")
    assert has_ended(int(pid))
    state = json.loads(docker("info", "--format", "{{json .Containers}}"))
    assert state == 0
    subprocess.run(["systemctl", "stop", f"{UNIT}.socket", f"{UNIT}.service"], check=True)
    eventually(lambda: left_in_the_service() == [], f"left: {left_in_the_service()}")


def left_in_the_service() -> list[str]:
    """Return the processes that are still in the service's control group: shims would be."""
    group = pathlib.Path(f"/sys/fs/cgroup/system.slice/{UNIT}.service/cgroup.procs")
    return group.read_text().split() if group.exists() else []
