"""Docker's words for privileges: what they make of the document, and what the document makes of a process."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mini_docker.engine.document import InvalidRequest, document
from mini_docker.engine.privileges import (
    NO_LIMIT,
    capabilities,
    check_privileges,
    devices,
    harden,
    kept_program,
    labels,
    parse_rule,
    rlimits,
    seccomp,
    security_options,
    sysctls,
    tmpfs_mounts,
)
from mini_docker.lab import run_in_child
from mini_docker.linux.mount import MS_BIND, mount
from mini_docker.namespaces.user import User, resolve_groups
from mini_docker.runtime.init import start
from mini_docker.runtime.plan import Resources, plan
from mini_docker.security import labels as security_labels
from mini_docker.security.capabilities import DEFAULT, available
from mini_docker.security.labels import open_attribute, plan_labels
from mini_docker.security.policy import cut_profile, default_policy
from tests.conftest import cannot_run_here
from tests.daemons import Daemon

CAPABILITIES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set(DEFAULT)),
    ({"CapAdd": None, "CapDrop": []}, set(DEFAULT)),
    ({"CapDrop": ["ALL"]}, set()),
    ({"CapDrop": ["all"], "CapAdd": ["kill", "CAP_NET_RAW"]}, {"CAP_KILL", "CAP_NET_RAW"}),
    ({"CapDrop": ["CHOWN"]}, set(DEFAULT) - {"CAP_CHOWN"}),
    ({"CapAdd": ["cap_sys_admin", "SYS_ADMIN", "KILL"]}, {*DEFAULT, "CAP_SYS_ADMIN"}),
    ({"CapDrop": ["KILL"], "CapAdd": ["KILL"]}, set(DEFAULT)),
    ({"CapAdd": ["ALL"], "CapDrop": ["CAP_KILL"]}, set(available()) - {"CAP_KILL"}),
    ({"CapAdd": ["ALL"], "CapDrop": ["ALL"]}, set(available())),
    ({"Privileged": True, "CapDrop": ["ALL"]}, set(available())),
]


@pytest.mark.parametrize(("host", "wanted"), CAPABILITIES)
def test_capabilities_are_added_and_dropped_in_dockers_order(
    host: dict[str, Any], wanted: set[str]
) -> None:
    found = capabilities(host)
    assert set(found) == wanted and len(found) == len(wanted)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"CapAdd": ["FLY"]}, 'invalid CapAdd: unknown capability: "CAP_FLY"'),
    ({"CapDrop": ["cap_"]}, 'invalid CapDrop: unknown capability: "CAP_"'),
    ({"SecurityOpt": ["fly"]}, 'invalid --security-opt 1: "fly"'),
    ({"SecurityOpt": ["fly=1"]}, 'invalid --security-opt 2: "fly=1"'),
    ({"SecurityOpt": ["no-new-privileges=maybe"]}, 'invalid --security-opt 2: "no-new-privileges='),
    ({"OomScoreAdj": 1001}, r"Invalid value 1001, range for oom score adj is \[-1000, 1000\]"),
    ({"Ulimits": [{"Name": "fly", "Soft": 1, "Hard": 1}]}, "invalid ulimit type: fly"),
    (
        {"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 8}]},
        "ulimit soft limit must be less than or equal to hard limit: 9 > 8",
    ),
    ({"UsernsMode": "private"}, "invalid user namespace mode: private"),
    ({"Tmpfs": {"rel": ""}}, "invalid mount path: 'rel' mount path must be absolute"),
    ({"Tmpfs": {"/..": ""}}, "destination can't be '/'"),
    ({"DeviceCgroupRules": ["x"]}, "invalid device cgroup format 'x'"),
    ({"DeviceCgroupRules": ["c 1:3 q"]}, "invalid device cgroup format 'c 1:3 q'"),
    ({"DeviceCgroupRules": ["c 1:3 r m"]}, "invalid device cgroup format"),
]


@pytest.mark.parametrize(("host", "words"), REFUSED)
def test_wrong_wishes_are_refused_before_anything_is_made(host: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_privileges(host)
    with pytest.raises(InvalidRequest, match=words):
        spec_of(**host)


def spec_of(uid: int = 0, **host: Any) -> dict[str, Any]:
    request = {"Hostname": "web", "Cmd": ["sh"], "HostConfig": {"NetworkMode": "none", **host}}
    return document(request, {}, "ID", "/dir", User(uid, 0, (), "/"))


def test_a_plain_container_is_confined() -> None:
    spec = spec_of()
    process, linux = spec["process"], spec["linux"]
    assert process["capabilities"]["effective"] == list(DEFAULT)
    assert spec_of(uid=5)["process"]["capabilities"]["effective"] == []
    assert (process["noNewPrivileges"], process["oomScoreAdj"], process["rlimits"]) == (
        False,
        0,
        [],
    )
    assert linux["seccomp"] == default_policy(list(DEFAULT), os.uname().machine)
    assert "/proc/kcore" in linux["maskedPaths"] and "/proc/sys" in linux["readonlyPaths"]
    assert linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert spec_of(NetworkMode="host")["linux"]["sysctl"] == {}


def test_a_privileged_container_is_not() -> None:
    spec = spec_of(Privileged=True)
    linux = spec["linux"]
    assert "seccomp" not in linux and linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert linux["resources"]["devices"][-1] == {"allow": True, "access": "rwm"}
    assert "/dev/null" in {device["path"] for device in linux["devices"]}
    options = {m["destination"]: m["options"] for m in spec["mounts"]}
    assert "ro" not in options["/sys"] and "ro" not in options["/sys/fs/cgroup"]
    assert "ro" in {m["destination"]: m["options"] for m in spec_of()["mounts"]}["/sys"]


def test_paths_can_be_named_and_opened() -> None:
    linux = spec_of(MaskedPaths=["/a"], ReadonlyPaths=[])["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (["/a"], [])


def test_harden_leaves_its_arguments_alone() -> None:
    spec, host = spec_of(), {"CapAdd": ["SYS_ADMIN"], "Tmpfs": {"/t": ""}, "ShmSize": 1 << 20}
    before = json.dumps([spec, host])
    hard = harden(spec, host)
    assert json.dumps([spec, host]) == before
    assert hard["mounts"][-1]["destination"] == "/t"
    assert "mount" in {n for r in hard["linux"]["seccomp"]["syscalls"] for n in r["names"]}


OPTIONS = [
    (["no-new-privileges"], {"no-new-privileges": ["true"]}),
    (["no-new-privileges:false"], {"no-new-privileges": ["false"]}),
    (["seccomp=unconfined"], {"seccomp": ["unconfined"]}),
    (["seccomp:unconfined"], {"seccomp": ["unconfined"]}),
    (["disable"], {"label": ["disable"]}),
    (["label=type:x_t", "label=level:s0"], {"label": ["type:x_t", "level:s0"]}),
    (["apparmor=a=b"], {"apparmor": ["a=b"]}),
]


@pytest.mark.parametrize(("words", "wanted"), OPTIONS)
def test_security_options(words: list[str], wanted: dict[str, list[str]]) -> None:
    assert security_options({"SecurityOpt": words}) == wanted


def test_which_policy() -> None:
    own = '{"defaultAction": "SCMP_ACT_ALLOW"}'
    assert seccomp({}, True, []) is None
    assert seccomp({"seccomp": ["unconfined"]}, False, []) is None
    assert seccomp({"seccomp": ["builtin"]}, True, [], "x86_64") == default_policy([], "x86_64")
    found = seccomp({"seccomp": [own]}, True, [], "x86_64")
    assert found == {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}


HOSTILE = [
    "{", "[]", "5", "null", '"x"', '{"syscalls": [1]}', '{"syscalls": 5}', '{"archMap": [{}]}',
    '{"defaultAction": 5}', '{"defaultAction": "SCMP_ACT_FLY"}', "[" * 100_000, '{"a":' * 100_000,
    '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "NO"}]}',
    '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": 7, "action": "SCMP_ACT_ERRNO"}]}',
    '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", '
    '"args": [{"index": 99, "value": 1, "op": "SCMP_CMP_EQ"}]}]}',
    '{"defaultAction": "SCMP_ACT_ALLOW"}' + " " * (1 << 20),
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:30])
def test_a_profile_that_is_none_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="Decoding seccomp profile failed: "):
        seccomp({"seccomp": [text]}, False, [], "x86_64")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("/dev/../etc/hostname", "not a device node"),
        ("../dev/null", "no such file or directory"),
        ("/dev/nosuch", "no such file or directory"),
        ("/dev/null\x00x", "no device"),
        ("", "no such file or directory"),
    ],
)
def test_a_path_that_is_no_device(asked: str, words: str) -> None:
    host = {
        "Devices": [{"PathOnHost": asked, "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]
    }
    with pytest.raises(ValueError, match=words):
        devices(host)


PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", "includes": {}},
        {"name": "b", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_KILL"]}},
        {"names": ["c"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_KILL"]}},
        {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["e"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
        {"names": ["f"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["g"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        {"names": ["h"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
    ],
}


@pytest.mark.parametrize(
    ("capability", "machine", "letters"),
    [([], "x86_64", "acef"), (["CAP_KILL"], "x86_64", "abef"), ([], "aarch64", "acdf")],
)
def test_a_docker_profile_is_cut_to_the_container(
    capability: list[str], machine: str, letters: str
) -> None:
    found = cut_profile(PROFILE, capability, machine)
    assert "".join(entry["names"][0] for entry in found["syscalls"]) == letters
    wanted = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] if machine == "x86_64" else ["SCMP_ARCH_AARCH64"]
    assert found["architectures"] == wanted and "archMap" not in found


def test_a_profile_that_says_things_twice_is_refused() -> None:
    for more, word in (
        ({"architectures": ["SCMP_ARCH_X86"]}, "archMap"),
        ({"syscalls": [{"name": "a", "names": ["b"]}]}, "names"),
    ):
        with pytest.raises(ValueError, match=f"both '.*' and '{word}' are specified"):
            cut_profile({**PROFILE, **more}, [], "x86_64")


def test_limits_sysctls_and_tmpfs() -> None:
    asked = [{"Name": "nofile", "Soft": 7, "Hard": 8}, {"Name": "core", "Soft": -1, "Hard": -1}]
    assert rlimits({"Ulimits": asked}) == [
        {"type": "RLIMIT_NOFILE", "soft": 7, "hard": 8},
        {"type": "RLIMIT_CORE", "soft": NO_LIMIT, "hard": NO_LIMIT},
    ]
    assert sysctls({"Sysctls": {"net.ipv4.ping_group_range": "1 0"}}, True) == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "1 0",
    }
    [tmpfs] = tmpfs_mounts({"Tmpfs": {"/t": "exec,size=1m"}})
    assert tmpfs["options"] == ["nosuid", "nodev", "exec", "size=1m"]


def test_devices_of_the_host(tmp_path: Path) -> None:
    asked = {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}
    [made], [rule] = devices({"Devices": [asked]})
    assert (made["path"], made["type"], made["major"], made["minor"]) == ("/dev/x", "c", 1, 5)
    assert rule == {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}
    for path, words in (
        ("/dev/fly", "no such file or directory"),
        (str(tmp_path / "f"), "not a dev"),
    ):
        (tmp_path / "f").touch()
        with pytest.raises(ValueError, match=f'custom device "{path}": {words}'):
            devices({"Devices": [{"PathOnHost": path}]})


RULES = [
    ("c 1:3 rw", {"type": "c", "major": 1, "minor": 3, "access": "rw"}),
    ("b 8:* m", {"type": "b", "major": 8, "access": "m"}),
    ("a *:* rwm", {"type": "a", "access": "rwm"}),
]


@pytest.mark.parametrize(("text", "wanted"), RULES)
def test_device_rules(text: str, wanted: dict[str, Any]) -> None:
    assert parse_rule(text) == {"allow": True, **wanted}


def test_added_groups_are_looked_up_in_the_image() -> None:
    assert resolve_groups(["video", "77"], "video:x:44:\n") == (44, 77)
    with pytest.raises(ValueError, match="Unable to find group fly: no matching entries in group"):
        resolve_groups(["fly"], "video:x:44:\n")


def test_a_program_is_kept_in_the_data_root(tmp_path: Path) -> None:
    spec = spec_of()
    kept = kept_program(str(tmp_path), spec)
    assert kept and len(os.listdir(tmp_path / "seccomp")) == 1
    assert kept == kept_program(str(tmp_path), spec)
    assert kept_program(str(tmp_path), spec_of(Privileged=True)) is None


# --- labels -------------------------------------------------------------------------------------


def test_a_label_that_cannot_be_set_is_refused() -> None:
    for key, module in (("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")):
        if security_labels.enabled(module):
            assert plan_labels({"process": {key: "x"}})[0].name == "run as x"
        else:
            with pytest.raises(
                ValueError, match=f"process.{key}: 'x' cannot be set: .* no {module}"
            ):
                plan_labels({"process": {key: "x"}})
    assert plan_labels({"process": {"apparmorProfile": "", "selinuxLabel": ""}}) == []


def test_labels_where_the_kernel_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels({}, False) == {} or security_labels.enabled("selinux")
    monkeypatch.setattr("mini_docker.engine.privileges.enabled", lambda module: True)
    options = {"apparmor": ["strict"], "label": ["type:mine_t", "level:s0:c1"]}
    assert labels(options, False) == {
        "apparmorProfile": "strict",
        "selinuxLabel": "system_u:system_r:mine_t:s0:c1",
    }
    assert labels({"label": ["disable"]}, True) == {"apparmorProfile": "unconfined"}
    with pytest.raises(ValueError, match='bad label option "fly:x"'):
        labels({"label": ["fly:x"]}, False)


def a_label_on(scene: str, directory: str) -> str:
    """Set a scene on our own attribute file, then open it as plan_labels would."""
    own = f"/proc/{os.readlink('/proc/thread-self')}"
    if scene == "tmpfs for /proc":
        mount("none", directory, "tmpfs")
        os.makedirs(f"{directory}/1/attr")
        Path(directory, "1/attr/exec").touch()
        os.symlink("1", f"{directory}/thread-self")
        proc = directory
    elif scene == "a file of /proc/sys":
        mount("/proc/sys/kernel/domainname", f"{own}/comm", None, MS_BIND)
        proc = "/proc"
    elif scene == "a part of /proc":
        mount(own, directory, None, MS_BIND)
        proc = directory
    else:
        proc = "/proc"
    os.close(open_attribute(("comm",) if scene != "tmpfs for /proc" else ("attr/exec",), proc))
    return "opened"


SCENES = [
    ("nothing is wrong", "opened"),
    ("tmpfs for /proc", "PermissionError"),  # CVE-2019-16884
    ("a file of /proc/sys", "Errno 18"),  # CVE-2025-52881: procfs as well, but mounted there
    ("a part of /proc", "PermissionError"),
]


@pytest.mark.root
@pytest.mark.parametrize(("scene", "words"), SCENES)
def test_cve_2019_16884_and_2025_52881_a_label_goes_to_the_kernel_or_nowhere(
    tmp_path: Path, scene: str, words: str
) -> None:
    outcome = run_in_child(a_label_on, scene, str(tmp_path))
    assert words in f"{outcome.value} {outcome.error}"


# --- the whole way ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with nothing but busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        cannot_run_here("there is no busybox (remedy: apt install busybox-static)")
    root = tmp_path_factory.mktemp("root")
    (root / "bin").mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for name in subprocess.check_output([busybox, "--list"], text=True).split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    return root


def output_of(root: Path, script: str, uid: int = 0, **host: Any) -> str:
    """Run a shell script in a container with this HostConfig; return all that it says."""
    spec = spec_of(uid, **host)
    spec["root"]["path"] = str(root)
    spec["process"] |= {"args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"]}
    spec["mounts"] = [m for m in spec["mounts"] if not m["destination"].startswith("/etc")]
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    streams = Resources((), None, (null_fd, write_fd, write_fd), None)
    try:
        process = start(spec, [planned.step for planned in plan(spec, streams)])
    finally:
        os.close(write_fd)
        os.close(null_fd)
    os.close(process.pidfd)
    with open(read_fd) as file:
        text = file.read()
    os.waitpid(process.pid, 0)
    return text


STATUS = "grep -E '^(Cap|NoNew|Seccomp:|Groups)' /proc/self/status"


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_a_container_ends_up_as_docker_makes_it(rootfs: Path) -> None:
    status = dict(line.split(":\t") for line in output_of(rootfs, STATUS).splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")
    assert int(status["CapEff"], 16).bit_count() == len(DEFAULT)
    assert status["CapEff"] == status["CapBnd"] and int(status["CapInh"], 16) == 0


RUNS: list[tuple[str, dict[str, Any], str]] = [
    ("unshare -U true 2>&1 || echo no", {}, "Operation not permitted\nno\n"),
    ("unshare -U true && echo yes", {"CapAdd": ["SYS_ADMIN"]}, "yes\n"),
    ("unshare -U true && echo yes", {"SecurityOpt": ["seccomp=unconfined"]}, "yes\n"),
    ("mount -t tmpfs x /proc 2>&1", {}, "mount: permission denied (are you root?)\n"),
    ("grep NoNew /proc/self/status", {"SecurityOpt": ["no-new-privileges"]}, "NoNewPrivs:\t1\n"),
    ("ulimit -n", {"Ulimits": [{"Name": "nofile", "Soft": 33, "Hard": 44}]}, "33\n"),
    ("ulimit -n", {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 5}]}, "5\n"),
    ("cat /proc/self/oom_score_adj", {"OomScoreAdj": 321}, "321\n"),
    ("cat /proc/sys/kernel/shm_rmid_forced", {"Sysctls": {"kernel.shm_rmid_forced": "1"}}, "1\n"),
    ("touch /x 2>&1", {"ReadonlyRootfs": True}, "touch: /x: Read-only file system\n"),
    ("echo x > /t/x && cat /t/x", {"ReadonlyRootfs": True, "Tmpfs": {"/t": "size=1m"}}, "x\n"),
    ("df -k /dev/shm | tail -n1 | awk '{print $2}'", {"ShmSize": 1 << 20}, "1024\n"),
    (
        "ls /dev/mine",
        {"Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/mine"}]},
        "/dev/mine\n",
    ),
    ("cat /proc/kcore | wc -c", {}, "0\n"),
    ("echo x 2>&1 > /proc/sys/kernel/domainname", {}, "domainname: Read-only file system\n"),
    (
        "echo mine > /proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname",
        {"ReadonlyPaths": [], "MaskedPaths": [], "CapAdd": ["SYS_ADMIN"]},
        "mine\n",
    ),
]


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
@pytest.mark.parametrize(("script", "host", "wanted"), RUNS)
def test_what_each_word_does(rootfs: Path, script: str, host: dict[str, Any], wanted: str) -> None:
    found = output_of(rootfs, script, **host)
    assert found.endswith(wanted), found


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_a_privileged_container_has_all_that_we_have(rootfs: Path) -> None:
    script = f"{STATUS}; mount -t tmpfs x /mnt && echo mounted; ls -l /dev/null"
    (rootfs / "mnt").mkdir(exist_ok=True)
    found = output_of(rootfs, script, Privileged=True)
    assert "Seccomp:\t0" in found and "mounted" in found
    mask = int(found.partition("CapEff:\t")[2].split()[0], 16)
    assert mask.bit_count() == len(available())
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


PROFILE_OF_ONE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
}


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
@pytest.mark.parametrize("more", [[], ["no-new-privileges"]])
def test_a_policy_of_the_user_s_own(rootfs: Path, more: list[str]) -> None:
    options = [f"seccomp={json.dumps(PROFILE_OF_ONE)}", *more]
    found = output_of(rootfs, "mkdir /tmp 2>&1", SecurityOpt=options)
    assert found == "mkdir: can't create directory '/tmp': No space left on device\n"


# --- through the daemon -------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.usefixtures("leak_free")
def test_the_daemon_refuses_and_obeys_the_same_words(daemon: Daemon) -> None:
    for host, words in (
        ({"CapAdd": ["FLY"]}, 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        ({"SecurityOpt": ["fly=1"]}, 'invalid --security-opt 2: "fly=1"'),
        ({"OomScoreAdj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
    ):
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
        assert daemon.ask("POST", "/containers/create", body) == (400, {"message": words})
    host = {"CapDrop": ["ALL"], "GroupAdd": ["77"], "SecurityOpt": ["no-new-privileges"]}
    script = "grep -E '^(CapBnd|NoNewPrivs|Seccomp|Groups):' /proc/self/status"
    daemon.run("plain", "sh", "-c", script, HostConfig=host)
    daemon.ask("POST", "/containers/plain/wait")
    said = daemon.logs("plain").decode()
    assert "CapBnd:\t0000000000000000" in said and "NoNewPrivs:\t1" in said
    assert "Seccomp:\t2" in said and "77" in said.partition("Groups:")[2].split("\n")[0].split()
    assert os.listdir(daemon.root / "seccomp")
