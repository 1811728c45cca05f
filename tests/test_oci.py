"""The OCI document, key by key: what a container sees when each is obeyed, and what is said of wrong ones."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import time
from typing import Any

import pytest

from mini_docker.runtime import hooks
from mini_docker.runtime.schema import check_document
from tests.bundles import KINDS, Runtime, rootfs, runtime  # noqa: F401 (fixtures)
from tests.conftest import cannot_run_here

oci = pytest.mark.oci
root = pytest.mark.root
IDS = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]


def bind(source: object, destination: str = "/mnt", *options: str, **keys: Any) -> dict[str, Any]:
    return {
        "destination": destination,
        "source": str(source),
        "options": [*(options or ("bind",))],
        **keys,
    }


def kinds(*names: str, **paths: str) -> list[dict[str, str]]:
    return [{"type": n} for n in names] + [{"type": n, "path": p} for n, p in paths.items()]


# ---- namespaces -------------------------------------------------------------------------------------


@root
@oci("config-linux.md", "namespaces: each of the eight kinds is new")
def test_new_namespaces(runtime: Runtime) -> None:
    names = {"pid": "pid", "mount": "mnt", "uts": "uts", "ipc": "ipc", "network": "net"}
    names |= {"cgroup": "cgroup", "user": "user", "time": "time"}
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in names.values())
    ids = {"uidMappings": IDS, "gidMappings": IDS}
    found = runtime.sh(script, namespaces=kinds(*names), **ids).split()
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in names.values()]
    assert not set(found) & set(ours) and len(found) == 8


@root
@oci("config-linux.md", "namespaces: joined by path")
def test_namespaces_by_path(runtime: Runtime) -> None:
    pid = runtime.start("sleep", "1000")
    shared = {k: f"/proc/{pid}/ns/{n}" for k, n in (("pid", "pid"), ("uts", "uts"), ("ipc", "ipc"))}
    first, runtime.id = runtime.id, f"{runtime.id}-b"
    try:
        document = runtime.document(
            "sh", "-c", "cat /proc/1/comm; hostname", namespaces=kinds("mount", "cgroup", **shared)
        )
        del document["hostname"]
        runtime.write(document)
        done = runtime.call("run", "-b", str(runtime.bundle), runtime.id)
        assert done.stdout == "sleep\nweb\n", done.stderr
        assert runtime.leftovers() == [f"state/{first}"]
    finally:
        runtime.id = first


@root
@oci("config-linux.md", "uidMappings, gidMappings")
def test_ids_are_mapped(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    runtime.sh(
        "id -u; touch /mnt/file",
        namespaces=kinds(*KINDS, "user"),
        uidMappings=IDS,
        gidMappings=IDS,
        more_mounts=[bind(tmp_path / "shared")],
    )
    assert (tmp_path / "shared" / "file").stat().st_uid == 100_000


@root
@oci("config-linux.md", "timeOffsets")
def test_clocks_are_offset(runtime: Runtime) -> None:
    up = float(runtime.sh("cut -d. -f1 /proc/uptime", namespaces=kinds(*KINDS, "time"),
                          timeOffsets={"boottime": {"secs": 1_000_000}}))  # fmt: skip
    assert up > 1_000_000


# ---- process ----------------------------------------------------------------------------------------


@root
@oci("config.md", "process.user: uid, gid, umask, additionalGids")
def test_the_user(runtime: Runtime) -> None:
    user = {"uid": 7, "gid": 8, "umask": 0o77, "additionalGids": [9, 10]}
    assert runtime.sh("id -u; id -g; id -G; umask", user=user).split() == [
        "7", "8", "8", "9", "10", "0077"
    ]  # fmt: skip


@root
@oci("config.md", "process.cwd, args, env")
def test_cwd_args_env(runtime: Runtime) -> None:
    script = 'pwd; echo "$A"; echo "$1"'
    done = runtime.run("sh", "-c", script, "sh", "a  b", cwd="/etc", env=["PATH=/bin", "A=x y"])
    assert done.stdout == "/etc\nx y\na  b\n"


@root
@oci("config.md", "process.rlimits")
def test_rlimits(runtime: Runtime) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 17, "hard": 19}]
    assert runtime.sh("ulimit -Sn; ulimit -Hn", rlimits=limits) == "17\n19\n"


@root
@oci("config.md", "process.capabilities, noNewPrivileges")
def test_capabilities(runtime: Runtime) -> None:
    sets = {name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted")}
    status = runtime.sh(
        "grep -E 'Cap|NoNew' /proc/self/status", capabilities=sets, noNewPrivileges=True
    )
    found = dict(line.split() for line in status.splitlines())
    assert found["CapEff:"] == found["CapBnd:"] == found["CapPrm:"] == f"{1 << 5:016x}"
    assert found["CapInh:"] == found["CapAmb:"] == f"{0:016x}" and found["NoNewPrivs:"] == "1"


@root
@oci("config.md", "process.oomScoreAdj")
def test_oom_score(runtime: Runtime) -> None:
    assert runtime.sh("cat /proc/self/oom_score_adj", oomScoreAdj=300) == "300\n"


@root
@oci("config.md", "process.scheduler")
def test_scheduler(runtime: Runtime) -> None:
    scheduler = {"policy": "SCHED_BATCH", "nice": 5}
    stat = runtime.sh("cat /proc/self/stat", scheduler=scheduler).rpartition(")")[2].split()
    assert (stat[16], stat[38]) == ("5", "3")  # nice, SCHED_BATCH


@root
@oci("config.md", "process.ioPriority")
def test_io_priority(runtime: Runtime) -> None:
    wanted = {"class": "IOPRIO_CLASS_IDLE", "priority": 3}
    assert runtime.sh("ionice -p $$", ioPriority=wanted).startswith("idle")


@root
@oci("config.md", "process.execCPUAffinity")
def test_affinity_of_exec(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    process = {"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/"}
    full = {**process, "env": ["PATH=/bin"], "execCPUAffinity": {"initial": "0", "final": "0"}}
    path = runtime.directory / "process.json"
    path.write_text(json.dumps(full))
    done = runtime.call("exec", "--process", str(path), runtime.id)
    assert done.stdout.split() == ["Cpus_allowed_list:", "0"], done.stderr


# ---- root and mounts --------------------------------------------------------------------------------


@root
@oci("config.md", "root.path, root.readonly, relative to the bundle")
def test_the_root(runtime: Runtime) -> None:
    os.symlink(runtime.rootfs, runtime.bundle / "rootfs")
    done = runtime.run("sh", "-c", "touch /x || ls /", root={"path": "rootfs", "readonly": True})
    assert "Read-only file system" in done.stderr and "mnt" in done.stdout.split()


@root
@oci("config.md", "mounts: order, bind, ro, and a place that is made")
def test_binds(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    mounts = [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
        bind(tmp_path / "a", "/tmp/deep/er", "bind", "ro"),
        bind(tmp_path / "a" / "f", "/tmp/file", "bind"),
    ]
    script = "cat /tmp/deep/er/f /tmp/file; echo y >/tmp/deep/er/f 2>/dev/null || echo ro"
    assert runtime.sh(script, more_mounts=mounts) == "xxro\n"


@root
@oci("config.md", "mounts: a relative source of a bind mount lies in the bundle")
def test_a_relative_source(runtime: Runtime) -> None:
    (runtime.bundle / "extra").write_text("of the bundle\n")
    for mount in (bind("extra", "/mnt/x"), bind("./extra", "/mnt/x", "ro", type="bind")):
        tmpfs = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}
        assert runtime.sh("cat /mnt/x", more_mounts=[tmpfs, mount]) == "of the bundle\n"


ATTRIBUTES = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]


@root
@oci("config.md", "mounts: options of the mount")
@pytest.mark.parametrize("option", ATTRIBUTES)
def test_a_mount_attribute(runtime: Runtime, option: str) -> None:
    mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [option]}
    line = runtime.sh("grep ' /tmp ' /proc/self/mountinfo", more_mounts=[mount])
    assert option in line.split()[5].split(",")


@root
@oci("config.md", "mounts: recursive attributes (rro, rnosuid, ...)")
@pytest.mark.parametrize("option", ["rro", "rnosuid", "rnodev", "rnoexec"])
def test_a_recursive_attribute(runtime: Runtime, tmp_path: pathlib.Path, option: str) -> None:
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "below"], check=True)
    try:
        mount = bind(tmp_path, "/mnt", "rbind", option)
        lines = runtime.sh("grep ' /mnt' /proc/self/mountinfo", more_mounts=[mount]).splitlines()
    finally:
        subprocess.run(["umount", tmp_path / "below"], check=True)
    assert len(lines) == 2
    assert all(option[1:] in line.split()[5].split(",") for line in lines)


@root
@oci("config.md", "mounts: propagation")
@pytest.mark.parametrize(
    ("option", "tag"), [("private", "-"), ("shared", "shared:"), ("unbindable", "unbindable")]
)
def test_propagation(runtime: Runtime, option: str, tag: str) -> None:
    mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [option]}
    line = runtime.sh("grep ' /tmp ' /proc/self/mountinfo", more_mounts=[mount])
    assert line.split()[6].startswith(tag)


@root
@oci("config.md", "mounts: tmpcopyup")
def test_copy_up(runtime: Runtime) -> None:
    mount = {"destination": "/bin", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    script = "readlink /bin/ls; stat -c %a /bin /bin/busybox; touch /bin/new && stat -f -c %T /bin"
    assert runtime.sh(script, more_mounts=[mount]).split() == [
        "/bin/busybox", "755", "755", "tmpfs"
    ]  # fmt: skip
    assert not os.path.exists(f"{runtime.rootfs}/bin/new")


@root
@oci("config.md", "mounts: uidMappings, gidMappings, idmap")
def test_an_idmapped_mount(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "f").write_text("")
    ids = [{"containerID": 0, "hostID": 5000, "size": 10}]
    mount = bind(tmp_path / "shared", "/mnt", "bind", "idmap", uidMappings=ids, gidMappings=ids)
    done = runtime.run("stat", "-c", "%u:%g", "/mnt/f", more_mounts=[mount])
    if "cannot map ids" in done.stderr:
        cannot_run_here("the file system of /tmp cannot map ids")
    assert done.stdout == "5000:5000\n", done.stderr


@root
@oci("config.md", "mounts: idmap without mappings has those of the container")
def test_an_idmapped_mount_of_a_user_namespace(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    (tmp_path / "shared").mkdir()
    mount = bind(tmp_path / "shared", "/mnt", "bind", "idmap")
    done = runtime.run(
        "sh", "-c", "stat -c %u /mnt && touch /mnt/f && stat -c %u /mnt/f",
        namespaces=kinds(*KINDS, "user"), uidMappings=IDS, gidMappings=IDS, more_mounts=[mount],
    )  # fmt: skip
    if "cannot map ids" in done.stderr:
        cannot_run_here("the file system of /tmp cannot map ids")
    assert done.stdout == "0\n0\n", done.stderr
    assert (tmp_path / "shared" / "f").stat().st_uid == 0


@root
@oci("config-linux.md", "mounts of type cgroup, cgroup namespace")
def test_control_groups_are_mounted(runtime: Runtime) -> None:
    mounts = [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["ro", "nosuid", "noexec", "nodev"],
        },
    ]
    script = "find /sys/fs/cgroup -name cgroup.procs | head -1 | xargs cat; touch /sys/fs/cgroup/x"
    done = runtime.run("sh", "-c", script, more_mounts=mounts)
    assert done.stdout.split()[0] == "1" and "Read-only" in done.stderr


@root
@oci("config-linux.md", "rootfsPropagation")
@pytest.mark.parametrize(("name", "tag"), [("private", "-"), ("rshared", "shared:")])
def test_propagation_of_the_root(runtime: Runtime, name: str, tag: str) -> None:
    line = runtime.sh("grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo",
                      rootfsPropagation=name).splitlines()[0]  # fmt: skip
    assert line.split()[6].startswith(tag)


@root
@oci("config-linux.md", "maskedPaths, readonlyPaths")
def test_masked_and_readonly_paths(runtime: Runtime) -> None:
    script = "cat /proc/uptime | wc -c; ls /proc/sys/vm | wc -l; echo x >/proc/sys/kernel/hostname"
    done = runtime.run("sh", "-c", script, maskedPaths=["/proc/uptime", "/proc/sys/vm", "/nosuch"],
                       readonlyPaths=["/proc/sys/kernel"])  # fmt: skip
    assert done.stdout == "0\n0\n" and "Read-only file system" in done.stderr


# ---- devices, hostname, sysctl, personality, keyring ------------------------------------------------


@root
@oci("config-linux.md", "default devices and links")
def test_default_devices(runtime: Runtime) -> None:
    devices = "null zero full random urandom tty"
    script = f"cd /dev; for d in {devices}; do test -c $d || echo no $d; done; readlink fd; readlink ptmx"
    assert runtime.sh(script) == "/proc/self/fd\npts/ptmx\n"


@root
@oci("config-linux.md", "devices, resources.devices")
def test_devices(runtime: Runtime) -> None:
    device = {"type": "c", "path": "/dev/odd", "major": 1, "minor": 5, "fileMode": 0o640, "gid": 4}
    rules = [{"allow": False, "access": "rwm"}]
    script = "stat -c '%F %a %g %t:%T' /dev/odd; head -c 1 /dev/odd | wc -c; "
    script += "mknod /dev/mem c 1 1; cat /dev/mem"
    done = runtime.run("sh", "-c", script, devices=[device], resources={"devices": rules})
    assert done.stdout == "character special file 640 4 1:5\n1\n", done.stderr
    assert "Operation not permitted" in done.stderr


@root
@oci("config-linux.md", "no resources.devices: the default devices alone")
def test_devices_nobody_named(runtime: Runtime) -> None:
    script = "mknod /dev/other c 10 237; cat /dev/other; head -c 1 /dev/zero | wc -c"
    done = runtime.run("sh", "-c", script)
    assert "can't open '/dev/other': Operation not permitted" in done.stderr
    assert done.stdout == "1\n"


@root
@oci("config.md", "hostname, domainname")
def test_names(runtime: Runtime) -> None:
    script = "hostname; cat /proc/sys/kernel/domainname"
    assert runtime.sh(script, hostname="h", domainname="d") == "h\nd\n"


@root
@oci("config-linux.md", "sysctl")
def test_sysctl(runtime: Runtime) -> None:
    sysctl = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345"}
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"
    assert runtime.sh(script, sysctl=sysctl) == "1\n12345\n"


@root
@oci("config-linux.md", "personality")
def test_personality(runtime: Runtime) -> None:
    machine = runtime.sh("uname -m", personality={"domain": "LINUX32"}).strip()
    assert machine in ("i686", "armv8l")


@root
@oci("config-linux.md", "resources.memory, cpu, pids in the control group")
def test_resources(runtime: Runtime) -> None:
    limits = {"memory": {"limit": 20 << 20}, "cpu": {"shares": 0}, "pids": {"limit": 20}}
    runtime.start("sleep", "1000", resources={**limits, "blockIO": {"weight": 0}})
    stats = json.loads(runtime.call("events", "--stats", runtime.id).stdout)["data"]
    assert stats["pids"]["limit"] == 20
    assert stats["memory"]["usage"]["limit"] == 20 << 20


@root
@oci("config-linux.md", "cgroupsPath")
def test_the_path_of_the_control_group(runtime: Runtime) -> None:
    pid = runtime.start("sleep", "1000")
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(f":/{runtime.id}") for line in lines)


@root
@oci("config-linux.md", "seccomp")
def test_seccomp(runtime: Runtime) -> None:
    names = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    for no_new in (False, True):
        done = runtime.run("sh", "-c", "mkdir /proc/x", noNewPrivileges=no_new,
                           seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [names]})  # fmt: skip
        assert "Function not implemented" in done.stderr, done


@root
@oci("config.md", "annotations")
def test_annotations_are_in_the_state(runtime: Runtime) -> None:
    runtime.create("sleep", "1000", annotations={"org.example": "x"})
    state = json.loads(runtime.call("state", runtime.id).stdout)
    assert state["annotations"] == {"org.example": "x"}


# ---- hooks ------------------------------------------------------------------------------------------

POINTS = "prestart createRuntime createContainer startContainer poststart poststop".split()


@root
@oci("config.md", "hooks: six points, in order, with the state on stdin")
def test_hooks(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    note = tmp_path / "note"
    note.touch()
    hooks = {
        point: [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", f"(echo {point}; cat; echo; readlink /proc/self/ns/mnt) >>$A"],
                "env": [f"A={'/note' if point == 'startContainer' else note}", "PATH=/bin"],
            }
        ]
        for point in POINTS
    }
    done = runtime.run(
        "true", hooks=hooks, more_mounts=[bind(note, "/note")], annotations={"a": "b"}
    )
    assert done.returncode == 0, done.stderr
    lines = note.read_text().splitlines()
    assert lines[::3] == POINTS
    states = [json.loads(line) for line in lines[1::3]]
    assert [state["status"] for state in states] == [
        "creating", "creating", "creating", "created", "running", "stopped"
    ]  # fmt: skip
    assert all(s["id"] == runtime.id and s["annotations"] == {"a": "b"} for s in states)
    assert states[0]["pid"] == states[3]["pid"] > 0 and states[5]["pid"] == 0
    ours = os.readlink("/proc/self/ns/mnt")
    inside = {lines[2 + 3 * POINTS.index(p)] for p in ("createContainer", "startContainer")}
    outside = {lines[2 + 3 * POINTS.index(p)] for p in ("prestart", "createRuntime", "poststart")}
    assert outside == {ours} and len(inside) == 1 and ours not in inside
    (pathlib.Path(runtime.rootfs) / "note").unlink()


@root
@oci("runtime.md", "Hooks: one that fails, fails create, and everything is removed")
@pytest.mark.parametrize("point", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails(runtime: Runtime, point: str) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]}
    words = runtime.refused(hooks={point: [hook]})
    assert "hook #0 /bin/sh: exit status 3: no luck" in words


@root
@oci("config.md", "hooks: timeout")
def test_a_hook_that_hangs(runtime: Runtime) -> None:
    hook = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    assert "timed out after 1 s" in runtime.refused(hooks={"createRuntime": [hook]})


def test_a_hook_whose_time_is_up_before_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it has not made its process group yet, by which it would be killed."""
    monkeypatch.setattr(hooks, "_become_hook", lambda *_: time.sleep(60))
    with pytest.raises(OSError, match="timed out after 0.01 s"):
        hooks.run_hooks([{"path": "/bin/true", "timeout": 0.01}], b"")


@root
@oci("runtime.md", "Hooks: a failing poststop is a warning")
def test_a_poststop_that_fails(runtime: Runtime) -> None:
    done = runtime.run("true", hooks={"poststop": [{"path": "/bin/false"}]})
    assert done.returncode == 0 and "warning: poststop" in done.stderr


# ---- descriptors, pivot, rootless -------------------------------------------------------------------


@oci("the command line, as runc's", "create, run: --preserve-fds, LISTEN_FDS")
@root
@pytest.mark.parametrize("variable", ["--preserve-fds", "LISTEN_FDS"])
def test_descriptors_are_passed_on_when_asked(runtime: Runtime, variable: str) -> None:
    ours, theirs = socket.socketpair()
    saved = os.dup(3) if os.path.exists("/proc/self/fd/3") else None
    os.dup2(theirs.fileno(), 3)
    script = "echo hello >&3; ls /proc/self/fd | wc -w; echo $LISTEN_FDS $LISTEN_PID"
    runtime.write(runtime.document("sh", "-c", script))
    words = ["run", "-b", str(runtime.bundle), runtime.id]
    environment = dict(os.environ)
    if variable == "LISTEN_FDS":
        environment["LISTEN_FDS"] = "1"
    else:
        words[1:1] = ["--preserve-fds", "1"]
    done = runtime.call(*words, pass_fds=[3], env=environment)
    if saved is not None:
        os.dup2(saved, 3)
    assert ours.recv(10) == b"hello\n", done.stderr
    assert done.stdout.split()[0] == "5"
    assert ("1 1" in done.stdout) == (variable == "LISTEN_FDS")
    ours.close()
    theirs.close()


@oci("the command line, as runc's", "create, run: --no-pivot")
@root
def test_without_pivot_root(runtime: Runtime) -> None:
    runtime.write(runtime.document("sh", "-c", "ls /; cd ..; pwd"))
    done = runtime.call("run", "--no-pivot", "-b", str(runtime.bundle), runtime.id)
    assert "mnt" in done.stdout.split() and "home" not in done.stdout.split(), done.stderr


# ---- wrong documents --------------------------------------------------------------------------------


def good() -> dict[str, Any]:
    return {
        "ociVersion": "1.0.2-dev",
        "process": {"args": ["sh"], "cwd": "/", "env": ["A=1"], "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}], "resources": {"memory": {"limit": -1}}},
        "unknown": {"left": "alone"},
    }


WRONG: list[tuple[str, Any, str]] = [
    ("ociVersion", None, "ociVersion: is missing"),
    ("ociVersion", "2.0.0", "ociVersion: '2.0.0' is not a version 1"),
    ("ociVersion", "new", "ociVersion: 'new' is no semantic version"),
    ("process", None, "process: is missing"),
    ("process", [], "process: an object is needed, not a list"),
    ("process.args", [], "process.args: is missing"),
    ("process.args", "sh", "process.args: a list is needed, not a string"),
    ("process.args", ["sh", 1], "process.args[1]: a string is needed, not a number"),
    ("process.args", ["a\0b"], "process.args[0]: a NUL byte is in it"),
    ("process.args", [""], "process.args[0]: is empty"),
    ("process.cwd", "x", "process.cwd: 'x' is not an absolute path"),
    ("process.env", ["A"], "process.env[0]: 'A' is not NAME=value"),
    ("process.user.uid", -1, "process.user.uid: -1 is out of range (uint32)"),
    ("process.user.uid", 2**32, "process.user.uid: 4294967296 is out of range"),
    ("process.user.uid", True, "process.user.uid: a whole number is needed, not a boolean"),
    ("process.terminal", 1, "process.terminal: true or false is needed"),
    ("process.scheduler", {"policy": "X"}, "process.scheduler.policy: 'X' is none of"),
    ("root", None, "root: is missing"),
    ("root.path", 5, "root.path: a string is needed"),
    ("mounts", [{}], "mounts[0].destination: is missing"),
    ("mounts", [{"destination": "/a/../../b"}], "mounts[0].destination: '/a/../../b' has '..'"),
    ("mounts", [None], "mounts[0]: null is no element"),
    ("hooks", {"prestart": [{"path": "x"}]}, "hooks.prestart[0].path: 'x' is not absolute"),
    ("hooks", {"prestart": [{"path": "/x", "timeout": 0}]}, "hooks.prestart[0].timeout: 0 is out"),
    ("linux.namespaces", [{"type": "x"}], "linux.namespaces[0].type: 'x' is none of"),
    (
        "linux.namespaces",
        [{"type": "pid", "path": "x"}],
        "linux.namespaces[0].path: 'x' is not abs",
    ),
    ("linux.namespaces", [{"type": "user"}], "linux.uidMappings: a new user namespace needs"),
    ("linux.uidMappings", IDS, "linux.uidMappings: needs a user namespace"),
    ("linux.resources.pids", {"limit": "x"}, "linux.resources.pids.limit: a whole number"),
    ("linux.devices", [{"type": "x", "path": "/x"}], "linux.devices[0].type: 'x' is none of c, b"),
    ("linux.sysctl", {"a": 1}, "linux.sysctl.a: a string is needed"),
    ("hostname", "web", "hostname: needs a 'uts' namespace"),
    ("domainname", "d", "domainname: needs a 'uts' namespace"),
    ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt: cache and bandwidth control is not"),
]


@oci("config.md", "a document of a wrong form is refused, with the path of the fault")
@pytest.mark.parametrize(("path", "value", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_document_has_a_path(path: str, value: Any, words: str) -> None:
    document = good()
    check_document(document)
    target = document
    *parents, last = path.split(".")
    for name in parents:
        target = target.setdefault(name, {})
    target[last] = value
    with pytest.raises(ValueError) as caught:
        check_document(document)
    assert str(caught.value).startswith(words)


@root
@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "null", '{"ociVersion": "1.0.0"}', "\0"])
def test_what_is_no_document_is_one_line(runtime: Runtime, text: str) -> None:
    (runtime.bundle / "config.json").write_text(text)
    done = runtime.call("create", "-b", str(runtime.bundle), runtime.id)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "internal" not in done.stderr
    assert runtime.leftovers() == []


@root
@oci("config.md", "null is an absent value")
def test_null_is_an_absent_value(runtime: Runtime) -> None:
    of_process = (
        "rlimits capabilities user env scheduler ioPriority oomScoreAdj consoleSize terminal"
    )
    of_linux = "seccomp resources devices sysctl maskedPaths readonlyPaths uidMappings personality"
    of_all = "hooks annotations domainname"
    nothing: dict[str, Any] = dict.fromkeys(" ".join((of_process, of_linux, of_all)).split())
    done = runtime.run("/bin/sh", "-c", "echo fine", **nothing)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


@root
@oci("config.md", "unknown keys are left alone")
def test_unknown_keys_are_left_alone(runtime: Runtime) -> None:
    assert runtime.sh("echo fine", extension={"x": 1}) == "fine\n"
