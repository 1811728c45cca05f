"""The mount namespace's plans: pure ones compared as data, the others by what the kernel's tables say."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    fsmount,
    fsopen,
    mount,
    open_tree,
)
from mini_docker.linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    unshare,
)
from mini_docker.linux.step import Step, apply
from mini_docker.namespaces import devices, mnt
from mini_docker.namespaces.mnt import DEFAULT_MOUNTS, mount_in_root
from mini_docker.namespaces.options import MOUNT_ATTR__ATIME, MountOptions, parse_options
from mini_docker.namespaces.places import Fd, open_mount_point
from tests.conftest import cannot_run_here

root_only = pytest.mark.root


def document(root: object = "/root", mounts: Any = (), **linux: Any) -> dict[str, Any]:
    """Return the part of an OCI document that this chapter obeys."""
    linux.setdefault("namespaces", [{"type": "mount"}])
    return {"root": {"path": str(root)}, "mounts": list(mounts), "linux": linux}


def plan(spec: dict[str, Any], rootfs_fd: int | None = None) -> list[Step]:
    """Return this chapter's steps in the runtime's order."""
    later = (mnt.plan_mounts, devices.plan_devices, mnt.plan_pivot)
    steps = [*mnt.plan_private(spec), *mnt.plan_root(spec, rootfs_fd)]
    return steps + [step for planner in later for step in planner(spec)]


def inside(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)` called in a mount namespace that dies with it; what it raises fails."""
    outcome = run_in_child(function, *args)
    assert outcome.status == 0, outcome.error or outcome.output
    return outcome.value


def refused(function: Callable[..., Any], *args: Any) -> str:
    """Return the one line of the exception that `function(*args)` raises."""
    outcome = run_in_child(function, *args)
    assert outcome.error is not None, "it was not refused"
    return outcome.error


def table(prefix: str = "") -> dict[str, tuple[str, set[str], str]]:
    """Return {place: (type, the mount's options, propagation)} of the mounts below `prefix`."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        _, _, _, _, place, options, *marks = fields.split(" ")
        if place.startswith(prefix):
            kinds = " ".join(mark.partition(":")[0] for mark in marks)
            found[place.removeprefix(prefix)] = (tail.split(" ")[0], set(options.split(",")), kinds)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty root directory, beside it `victim`, a directory of the host with one file."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").touch()
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# plans are pure


@pytest.mark.parametrize(
    ("propagation", "flags"),
    [
        (None, MS_PRIVATE),
        ("private", MS_PRIVATE),
        ("rprivate", MS_PRIVATE),
        ("unbindable", MS_PRIVATE),
        ("slave", MS_SLAVE),
        ("rslave", MS_SLAVE),
        ("rshared", MS_SLAVE),
    ],
)
def test_the_first_step_stops_mounts_from_getting_out(propagation: str | None, flags: int) -> None:
    (step,) = mnt.plan_private(document(rootfsPropagation=propagation))
    assert (step.call, step.arguments) == (mount, (None, "/", None, MS_REC | flags))


def test_a_wrong_propagation_is_named() -> None:
    with pytest.raises(ValueError, match=r"linux\.rootfsPropagation: 'rslav' is none of private"):
        mnt.plan_private(document(rootfsPropagation="rslav"))


def test_without_a_mount_namespace_there_is_no_plan() -> None:
    for planner in (mnt.plan_private, mnt.plan_root, mnt.plan_mounts, devices.plan_devices):
        with pytest.raises(ValueError, match="would be the host's"):
            planner(document(namespaces=[{"type": "pid"}]))


def test_a_joined_mount_namespace_is_left_alone() -> None:
    joined = [{"type": "mount", "path": "/proc/1/ns/mnt"}]
    assert plan(document(mounts=DEFAULT_MOUNTS, namespaces=joined)) == []


def test_the_plan_is_one_step_for_each_mount_in_order() -> None:
    steps = mnt.plan_mounts(document("/r", DEFAULT_MOUNTS))
    assert [step.name for step in steps] == [
        "mount proc on /proc",
        "mount tmpfs on /dev",
        "mount devpts on /dev/pts",
        "mount sysfs on /sys",
        "mount cgroup on /sys/fs/cgroup",
        "mount mqueue on /dev/mqueue",
        "mount tmpfs on /dev/shm",
    ]
    volume = {"destination": "/d", "type": "none", "source": "/s", "options": ["rbind", "ro"]}
    (step,) = mnt.plan_mounts(document("/r", [volume]))
    assert step == ("bind /s on /d", mount_in_root, ("/r", "/d", "bind", "/s", ("rbind", "ro")))


def test_a_wrong_mount_is_named_by_its_json_path() -> None:
    with pytest.raises(ValueError, match=r"^mounts\[1\]\.options: .*'ro' and 'rw' contradict"):
        mnt.plan_mounts(
            document("/r", [DEFAULT_MOUNTS[0], {"destination": "/d", "options": ["ro", "rw"]}])
        )
    with pytest.raises(ValueError, match=r"^mounts\[0\]\.uidMappings"):
        mnt.plan_mounts(document("/r", [{"destination": "/d", "uidMappings": [{}]}]))


def test_options_are_sorted_by_who_obeys_them() -> None:
    wanted = parse_options(["rbind", "ro", "nosuid", "rnodev", "rslave", "defaults", "sync"])
    assert wanted.attr_set == wanted.attr_clr == MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
    assert wanted.tree_set == wanted.tree_clr == MOUNT_ATTR_NODEV
    assert (wanted.propagation, wanted.bind, wanted.recursive) == (MS_SLAVE | MS_REC, True, True)
    assert wanted.data == ()


def test_data_goes_to_the_file_system() -> None:
    wanted = parse_options(["noexec", "newinstance", "mode=0620", "context=a=b", "sync"])
    assert wanted.attr_set == MOUNT_ATTR_NOEXEC
    assert not wanted.bind
    assert wanted.data == (
        ("newinstance", None),
        ("mode", "0620"),
        ("context", "a=b"),
        ("sync", None),
    )


def test_a_positive_option_clears() -> None:
    wanted = parse_options(["bind", "rw", "exec", "relatime"])
    assert wanted.attr_set == 0
    assert wanted.attr_clr == MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC | MOUNT_ATTR__ATIME


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["ro", "nosuid", "rw"], "'ro' and 'rw' contradict each other"),
        (["noatime", "strictatime"], "'noatime' and 'strictatime' contradict each other"),
        (["rro", "rrw"], "'rro' and 'rrw' contradict each other"),
        (["private", "rshared"], "'private' and 'rshared' contradict each other"),
        (["bind", "size=1m"], "'size': a bind mount has no options of its own"),
        (["x" + "=" + "y" * 256], "'x' has 256 bytes; 255 is the limit"),
        (["remount"], "'remount' is not supported"),
    ],
)
def test_options_that_cannot_be(options: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_options(options)


def test_what_says_the_same_twice_is_no_contradiction() -> None:
    assert parse_options(["ro", "ro", "private", "rprivate"]).propagation == MS_PRIVATE | MS_REC
    assert parse_options(["relatime", "norelatime"]).attr_set == 0
    assert parse_options(["z=" + "y" * 255]).data[0][0] == "z"


def test_devices_of_the_document_take_the_place_of_the_default_ones() -> None:
    tty = {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o600, "gid": 5}
    steps = devices.plan_devices(document(devices=[tty]))
    assert [step.name for step in steps][1:] == [
        "make the device /dev/tty",
        "make the links in /dev",
    ]
    assert "/dev/tty" not in {device.path for device in steps[0].arguments[1]}
    assert steps[1].arguments[1] == (
        devices.Device("/dev/tty", stat.S_IFCHR | 0o600, os.makedev(5, 0), 0, 5),
    )
    with pytest.raises(ValueError, match=r"linux\.devices\[0\]\.type: 'x'"):
        devices.plan_devices(document(devices=[{**tty, "type": "x"}]))


def test_nothing_is_made_in_the_hosts_own_dev() -> None:
    bound = {"destination": "/dev/", "type": "none", "source": "/dev", "options": ["rbind"]}
    assert devices.plan_devices(document(mounts=[bound])) == []


# a place inside


def place_of(root: Path, path: str, directory: bool = True) -> str:
    """Return where a mount point lies, relative to `root`."""
    with (
        Fd(os.open(root, os.O_PATH)) as root_fd,
        open_mount_point(root_fd, path, directory) as fd,
    ):
        return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), root)


@pytest.mark.parametrize(
    ("link", "target", "asked", "found"),
    [
        ("data", "../victim", "/data", "victim"),
        ("data", "../../../../../victim", "/data/x", "victim/x"),
        ("data", "/victim", "/data", "victim"),
        ("data", "/no/such", "/data", "no/such"),
        ("data", "no", "/data/../other", "other"),
        ("a", "b/../../../victim", "/a/deep", "victim/deep"),
        ("data", "..", "/data", "."),
        ("unused", "x", "/../../../victim", "victim"),
        ("unused", "x", "/new/./dir/", "new/dir"),
        ("unused", "x", "relative", "relative"),
        ("unused", "x", "/", "."),
    ],
)
def test_every_path_ends_inside(root: Path, link: str, target: str, asked: str, found: str) -> None:
    (root / link).symlink_to(target)
    assert place_of(root, asked) == found
    assert place_of(root, asked) == found
    assert sorted(os.listdir(root.parent / "victim")) == ["precious"]
    assert sorted(os.listdir(root.parent)) == ["root", "victim"]


def test_a_path_of_the_host_as_target_of_a_link(root: Path) -> None:
    (root / "data").symlink_to(root.parent / "victim")
    assert place_of(root, "/data") == str(root.parent / "victim").lstrip("/")
    assert sorted(os.listdir(root.parent / "victim")) == ["precious"]


@pytest.mark.parametrize("target", ["/etc", "etc", "/other"])
def test_a_link_to_itself_is_an_error_and_not_the_hosts_directory(root: Path, target: str) -> None:
    (root / "etc").symlink_to(target)
    (root / "other").symlink_to("etc")
    with pytest.raises(OSError) as caught:
        place_of(root, "/etc")
    assert caught.value.errno == errno.ELOOP


def test_a_file_is_made_for_a_file(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc" / "resolv.conf").symlink_to("../run/stub/resolv.conf")
    assert place_of(root, "/etc/resolv.conf", directory=False) == "run/stub/resolv.conf"
    assert (root / "run/stub/resolv.conf").read_text() == ""


def test_the_wrong_kind_is_named(root: Path) -> None:
    (root / "file").touch()
    with pytest.raises(
        NotADirectoryError, match="/file is a file, and a directory would be mounted"
    ):
        place_of(root, "/file")
    with pytest.raises(NotADirectoryError, match="/ is a directory, and a file"):
        place_of(root, "/", directory=False)
    with pytest.raises(NotADirectoryError):
        place_of(root, "/file/below")


def test_what_is_made_can_be_read_by_all_whatever_the_umask(root: Path) -> None:
    umask = os.umask(0o077)
    try:
        place_of(root, "/a/file", directory=False)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(umask)
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "a/file").stat().st_mode) == 0o644


def test_no_descriptor_stays_open(root: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    (root / "file").touch()
    (root / "loop").symlink_to("loop")
    before = descriptors()
    place_of(root, "/new/deep")
    for path in ("/file", "/loop"):
        with pytest.raises(OSError):
            place_of(root, path)
    assert descriptors() == before


def swap_for_ever(root: Path) -> None:
    """Exchange the directory and the link, in one step: what is looked for is always one of them."""
    renameat2, here = ctypes.CDLL(None, use_errno=True).renameat2, -100  # AT_FDCWD
    os.chdir(root)
    while renameat2(here, b"data", here, b"link", 2) == 0:  # RENAME_EXCHANGE
        pass


def test_a_link_swapped_in_at_the_worst_moment_leads_nowhere_else(root: Path) -> None:
    """CVE-2021-30465: somebody swaps a directory for a link while we look."""
    (root / "data").mkdir()
    (root / "link").symlink_to("../victim")
    swapper = os.fork()
    if swapper == 0:
        try:
            swap_for_ever(root)
        finally:
            os._exit(1)
    try:
        seen = set()
        for _ in range(2000):
            with Fd(os.open(root, os.O_PATH)) as root_fd:
                try:
                    with open_mount_point(root_fd, "/data/x", True) as fd:
                        seen.add(os.path.commonpath([os.readlink(f"/proc/self/fd/{fd}"), root]))
                except (FileNotFoundError, FileExistsError):
                    pass  # it went away between making and opening: an error, and no way out
        assert seen == {str(root)}
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
    assert sorted(os.listdir(root.parent / "victim")) == ["precious"]


# mounts


@root_only
def test_the_default_mounts_in_an_empty_directory(root: Path) -> None:
    def enter() -> tuple[dict[str, Any], list[str], list[str]]:
        unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)
        apply(plan(document(root, DEFAULT_MOUNTS)))
        return table(), sorted(os.listdir("/")), sorted(os.listdir("/dev"))

    found, top, dev = inside(enter)
    places = [place for place in found if not place.startswith("/sys/fs/cgroup/")]
    assert places == [
        "/",
        *("/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"),
    ]
    assert {"ro", "nosuid", "nodev", "noexec"} < found["/sys"][1]
    assert all("ro" in options for place, (_, options, _) in found.items() if "cgroup" in place)
    assert all(marks == "" for _, _, marks in found.values())
    assert top == ["dev", "proc", "sys"]
    assert dev == sorted(
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    )


@root_only
def test_the_host_is_the_same_byte_for_byte(root: Path) -> None:
    """On a host that shares its mounts, as systemd has it; without the first step it is not."""

    def host(steps: list[Step]) -> bool:
        mount(None, "/", None, MS_REC | MS_SHARED)
        before = Path("/proc/self/mountinfo").read_bytes()
        child = os.fork()
        if child == 0:
            try:
                unshare(CLONE_NEWNS)
                apply(steps)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return Path("/proc/self/mountinfo").read_bytes() == before

    steps = plan(document(root, DEFAULT_MOUNTS[:4]))
    assert inside(host, steps) is True
    assert inside(host, steps[1:]) is False
    slaves = plan(document(root, DEFAULT_MOUNTS[:4], rootfsPropagation="rshared"))
    assert inside(host, slaves) is True


@root_only
@pytest.mark.parametrize(
    ("propagation", "marks"), [("rslave", ""), ("rshared", "shared"), ("unbindable", "unbindable")]
)
def test_the_roots_propagation_in_the_end(root: Path, propagation: str, marks: str) -> None:
    def enter() -> str:
        unshare(CLONE_NEWNS)
        apply(plan(document(root, DEFAULT_MOUNTS[:1], rootfsPropagation=propagation)))
        return table()["/"][2]

    assert inside(enter) == marks


@root_only
def test_a_root_that_comes_as_a_descriptor(root: Path) -> None:
    def enter() -> tuple[str, list[str]]:
        fs_fd = fsopen("tmpfs")
        rootfs_fd = fsmount(fs_fd)
        unshare(CLONE_NEWNS)
        apply(plan(document(root, DEFAULT_MOUNTS[:1]), rootfs_fd))
        return table()["/"][0], os.listdir("/")

    assert inside(enter) == ("tmpfs", ["dev", "proc"])
    assert os.listdir(root) == []


@root_only
def test_a_read_only_root_has_writable_mounts_in_it(root: Path) -> None:
    def enter() -> list[int]:
        unshare(CLONE_NEWNS)
        spec = document(root, DEFAULT_MOUNTS[:2])
        spec["root"]["readonly"] = True
        apply(plan(spec))
        return [errno_of(os.mkdir, path) for path in ("/x", "/dev/x")]

    assert inside(enter) == [errno.EROFS, 0]


def errno_of(function: Callable[..., Any], *args: Any) -> int:
    """Return 0, or the errno of the OSError that `function(*args)` raises."""
    try:
        function(*args)
    except OSError as error:
        return error.errno or -1
    return 0


@root_only
@pytest.mark.parametrize("how", ["/victim", "victim", "../victim", "no-such-place"])
@pytest.mark.parametrize("fstype", ["proc", "sysfs"])
def test_proc_and_sys_take_no_symlink(root: Path, fstype: str, how: str) -> None:
    """CVE-2019-19921."""
    (root / "victim").mkdir()
    (root / "proc").symlink_to(how)
    line = refused(mount_in_root, str(root), "/proc", fstype, fstype, ())
    assert "/proc leads over a symlink in this root: refused" in line
    line = refused(mount_in_root, str(root), "/proc/below", fstype, fstype, ())
    assert "refused" in line
    assert os.listdir(root / "victim") == []


@root_only
def test_proc_takes_no_file(root: Path) -> None:
    (root / "proc").touch()
    assert "/proc is a file" in refused(mount_in_root, str(root), "/proc", "proc", "proc", ())


@root_only
def test_a_volume_on_a_link_to_the_host(root: Path) -> None:
    def volume() -> dict[str, Any]:
        mount_in_root(str(root), "/data", "tmpfs", "tmpfs", ("mode=700",))
        return table(str(root.parent))

    (root / "data").symlink_to("../victim")
    assert list(inside(volume)) == ["/root/victim"]
    assert os.listdir(root.parent / "victim") == ["precious"]


@root_only
def test_the_kernels_own_words(root: Path) -> None:
    line = refused(mount_in_root, str(root), "/x", "tmpfs", "tmpfs", ("sise=1m",))
    assert line == "OSError: [Errno 22] tmpfs: Unknown parameter 'sise'"
    assert "No such device" in refused(mount_in_root, str(root), "/x", "nofs", None, ())
    assert "No such file" in refused(mount_in_root, str(root), "/x", "bind", f"{root}/no", ())
    assert os.listdir(root) == []


def bind(root: Path, *options: str) -> dict[str, Any]:
    """Bind a nosuid,nodev tmpfs that holds another one on /data; return table and errnos of writing."""
    source = root.parent / "victim"
    mount("none", str(source), "tmpfs", MS_NOSUID | MS_NODEV)
    (source / "below").mkdir()
    mount("none", str(source / "below"), "tmpfs")
    mount_in_root(str(root), "/data", "none", str(source), options)
    paths = (root / "data/x", root / "data/below/x", source / "y")
    return {**table(str(root)), "write": [errno_of(path.touch) for path in paths]}


@root_only
def test_read_only_is_the_bind_and_not_the_file_system(root: Path) -> None:
    found = inside(bind, root, "rbind", "ro")
    assert found["write"] == [errno.EROFS, 0, 0]
    assert {"ro", "nosuid", "nodev"} < found["/data"][1]


@root_only
def test_recursively_read_only(root: Path) -> None:
    assert inside(bind, root, "rbind", "rro")["write"] == [errno.EROFS, errno.EROFS, 0]


@root_only
def test_bind_without_the_mounts_below(root: Path) -> None:
    found = inside(bind, root, "bind", "noexec")
    assert list(found) == ["/data", "write"]
    assert {"rw", "nosuid", "nodev", "noexec"} < found["/data"][1]
    assert found["write"] == [0, 0, 0]


@root_only
@pytest.mark.parametrize(
    ("options", "marks"),
    [
        (("rbind", "rprivate"), ""),
        (("rbind", "rshared"), "shared"),
        (("rbind",), ""),
        (("rbind", "unbindable"), "unbindable"),
    ],
)
def test_propagation_of_a_bind(root: Path, options: tuple[str, ...], marks: str) -> None:
    assert inside(bind, root, *options)["/data"][2] == marks


@root_only
def test_a_slave_hears_of_the_hosts_mounts(root: Path) -> None:
    def enter() -> tuple[bool, bool]:
        source, data = root.parent / "victim", root / "data"
        mount("none", str(source), "tmpfs")
        mount(None, str(source), None, MS_SHARED)
        for name in ("out", "in"):
            (source / name).mkdir()
        mount_in_root(str(root), "/data", "bind", str(source), ("rslave",))
        mount("none", str(source / "in"), "tmpfs")
        mount("none", str(data / "out"), "tmpfs")
        return os.path.ismount(data / "in"), os.path.ismount(source / "out")

    assert inside(enter) == (True, False)


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 5.10 and 5.11: no mount_setattr(2)."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "mount_setattr: Function not implemented")

    monkeypatch.setattr(mnt, "mount_setattr", missing)


@root_only
@pytest.mark.usefixtures("old_kernel")
def test_read_only_on_an_old_kernel(root: Path) -> None:
    found = inside(bind, root, "rbind", "ro", "noatime", "nodiratime")
    assert found["write"] == [errno.EROFS, 0, 0]
    assert {"ro", "nosuid", "nodev", "noatime", "nodiratime"} <= found["/data"][1]
    assert "rw" in inside(bind, root, "rbind")["/data"][1]
    assert "Linux 5.12" in refused(bind, root, "rbind", "rro")


@root_only
@pytest.mark.usefixtures("old_kernel")
def test_a_read_only_root_on_an_old_kernel(root: Path) -> None:
    test_a_read_only_root_has_writable_mounts_in_it(root)


@root_only
def test_cgroups_of_version_2(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(mnt, "open", lambda _: open(tmp_path / "cgroup"), raising=False)
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(mnt, "mount_in_root", lambda *arguments: made.append(arguments))
    mnt.mount_cgroups(str(root), "/sys/fs/cgroup", ("ro", "nosuid"))
    assert made == [(str(root), "/sys/fs/cgroup", "cgroup2", "cgroup", ("ro", "nosuid"))]


def test_cgroups_of_version_1(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = "3:cpu,cpuacct:/x\n2:memory:/x\n1:name=systemd:/\n0::/\n"
    (tmp_path / "cgroup").write_text(lines)
    monkeypatch.setattr(mnt, "open", lambda _: open(tmp_path / "cgroup"), raising=False)
    made: list[tuple[Any, ...]] = []

    def record(root: str, place: str, *arguments: Any) -> None:
        os.makedirs(root + place)
        made.append((place, *arguments))

    def open_file_system(fstype: str, source: str, wanted: MountOptions) -> Fd:
        made.append((fstype, source, wanted.attr_set, wanted.data))
        return Fd(os.open(os.devnull, os.O_RDONLY))

    def move_mount(mount_fd: int, place: str, dir_fd: int) -> None:
        assert stat.S_ISDIR(os.stat(place, dir_fd=dir_fd).st_mode)
        made[-1] = (place, *made[-1])

    monkeypatch.setattr(mnt, "mount_in_root", record)
    monkeypatch.setattr(mnt, "open_file_system", open_file_system)
    monkeypatch.setattr(mnt, "move_mount", move_mount)
    mnt.mount_cgroups(str(root), "/cg", ("nosuid",))
    nosuid = MOUNT_ATTR_NOSUID
    assert made == [
        ("/cg", "tmpfs", "tmpfs", ("nosuid", "mode=755")),
        ("cpu,cpuacct", "cgroup", "cgroup", nosuid, (("cpu", None), ("cpuacct", None))),
        ("memory", "cgroup", "cgroup", nosuid, (("memory", None),)),
        ("systemd", "cgroup", "cgroup", nosuid, (("none", None), ("name", "systemd"))),
        ("unified", "cgroup2", "cgroup", nosuid, ()),
    ]
    assert os.readlink(root / "cg/cpu") == os.readlink(root / "cg/cpuacct") == "cpu,cpuacct"
    assert not (root / "cg/memory").is_symlink()


# devices


@root_only
def test_devices_work_and_are_what_they_say(root: Path) -> None:
    def enter() -> tuple[dict[str, tuple[int, int]], bytes, dict[str, str]]:
        os.umask(0o077)
        mount_in_root(str(root), "/dev", "tmpfs", "tmpfs", ("mode=755",))
        fuse = {"path": "/dev/sub/fuse", "type": "c", "major": 10, "minor": 229, "uid": 7}
        apply(devices.plan_devices(document(root, devices=[{**fuse, "fileMode": 0o20640}])))
        dev = root / "dev"
        names = [name for name in os.listdir(dev) if not (dev / name).is_symlink()]
        stats = {name: (dev / name).stat() for name in [*names, "sub/fuse"] if name != "sub"}
        assert (dev / "null").write_bytes(b"x") == 1
        assert stats["sub/fuse"].st_uid == 7
        links = {name: os.readlink(dev / name) for name in os.listdir(dev) if name not in names}
        numbers = {name: (found.st_rdev, found.st_mode) for name, found in stats.items()}
        with open(dev / "zero", "rb") as zero:
            return numbers, zero.read(3), links

    numbers, zeros, links = inside(enter)
    assert numbers.pop("sub/fuse") == (os.makedev(10, 229), stat.S_IFCHR | 0o640)
    assert {mode for _, mode in numbers.values()} == {stat.S_IFCHR | 0o666}
    assert numbers["null"][0] == os.makedev(1, 3)
    assert set(numbers) == {"null", "zero", "full", "random", "urandom", "tty"}
    assert zeros == bytes(3)
    assert links == dict(devices.DEVICE_LINKS)


@root_only
def test_in_a_user_namespace_devices_are_the_hosts(root: Path) -> None:
    def enter() -> tuple[bool, int, str]:
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            Path(f"/proc/self/{name}").write_text(text)
        spec = document(root)
        apply(mnt.plan_private(spec))
        mount_in_root(str(root), "/dev", "tmpfs", "tmpfs", ("mode=755",))
        apply(devices.plan_devices(spec))
        same = os.path.samestat(os.stat("/dev/null"), os.stat(root / "dev/null"))
        return same, (root / "dev/null").write_bytes(b"x"), table(str(root))["/dev/null"][0]

    same, written, kind = inside(enter)
    assert same
    assert written == 1
    assert kind in ("devtmpfs", "tmpfs")


@root_only
def test_a_file_in_the_place_of_a_device_is_refused_and_a_device_is_kept(root: Path) -> None:
    def enter() -> None:
        apply(devices.plan_devices(document(root)))
        apply(devices.plan_devices(document(root)))

    inside(enter)
    (root / "dev/null").unlink()
    (root / "dev/null").touch()
    assert "/dev/null in this root is another file, not the device" in refused(enter)


@root_only
def test_ptmx_becomes_the_containers_own(root: Path) -> None:
    (root / "dev").mkdir()
    for name in ("ptmx", "fd"):
        (root / "dev" / name).write_text("the image's")
    inside(devices.link_devices, str(root), devices.DEVICE_LINKS)
    assert os.readlink(root / "dev/ptmx") == "pts/ptmx"
    assert (root / "dev/fd").read_text() == "the image's"


@root_only
@pytest.mark.parametrize("there", [False, True])
def test_the_console_is_the_terminal(root: Path, there: bool) -> None:
    def enter() -> bool:
        _, slave_fd = pty.openpty()
        devices.bind_console(str(root), slave_fd)
        console_fd = os.open(root / "dev/console", os.O_RDWR | os.O_NOCTTY)
        return os.isatty(console_fd) and os.fstat(console_fd).st_rdev == os.fstat(slave_fd).st_rdev

    if there:
        (root / "dev").mkdir()
        (root / "dev/console").touch()
    assert inside(enter) is True


# peers


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle for runc: a root with busybox in it, and an empty directory to bind."""
    runc, busybox = shutil.which("runc"), shutil.which("busybox")
    if runc is None or busybox is None:
        cannot_run_here("there is no runc or no busybox")
    (tmp_path / "rootfs/bin").mkdir(parents=True)
    (tmp_path / "volume").mkdir()
    shutil.copy(busybox, tmp_path / "rootfs/bin/busybox")
    return tmp_path


@root_only
@pytest.mark.peers
def test_runc_makes_the_same_table_of_the_same_document(bundle: Path) -> None:
    volume: dict[str, Any] = {"destination": "/a/b", "type": "bind", "source": f"{bundle}/volume"}
    volume["options"] = ["rbind", "ro"]
    kinds = ("mount", "pid", "ipc", "network", "uts", "cgroup")
    spec = document(
        bundle / "rootfs", [*DEFAULT_MOUNTS, volume], namespaces=[{"type": kind} for kind in kinds]
    )

    def ours() -> dict[str, Any]:
        unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP)
        apply(plan(spec))
        return table()

    command = ["/bin/busybox", "cat", "/proc/self/mountinfo"]
    process = {"args": command, "cwd": "/", "user": {"uid": 0, "gid": 0}}
    (bundle / "config.json").write_text(
        json.dumps({"ociVersion": "1.0.2", "process": process, **spec})
    )
    command = ["runc", "--root", f"{bundle}/state", "run", "-b", str(bundle), "mini-docker-test"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        cannot_run_here(f"runc itself fails: {done.stderr.strip()}")
    theirs = {}
    for line in done.stdout.splitlines():
        fields, _, tail = line.partition(" - ")
        theirs[fields.split()[4]] = (tail.split()[0], set(fields.split()[5].split(",")))
    found = {place: (kind, options) for place, (kind, options, _) in inside(ours).items()}
    for mounts in (found, theirs):  # runc leaves version 1's tmpfs writable and mounts no `unified`
        for place in [place for place in mounts if place.startswith("/sys/fs/cgroup")]:
            del mounts[place]
    assert list(found) == list(theirs)
    assert found == theirs


@root_only
def test_a_root_that_was_on_a_shared_mount_reports_nothing_back(tmp_path: Path) -> None:
    for name in ("tree/dev", "root"):
        (tmp_path / name).mkdir(parents=True)

    def attach() -> tuple[bool, bool]:
        unshare(CLONE_NEWNS)
        for propagation in (
            MS_PRIVATE,
            MS_SHARED,
        ):  # shared, and not with the host: as under systemd
            mount(None, "/", None, MS_REC | propagation)
        mnt.attach_root(open_tree(f"{tmp_path}/tree", OPEN_TREE_CLONE), f"{tmp_path}/root")
        mount("tmpfs", f"{tmp_path}/root/dev", "tmpfs")
        return os.path.ismount(tmp_path / "root/dev"), os.path.ismount(tmp_path / "tree/dev")

    assert inside(attach) == (True, False)
