# Exported from notebooks/04_mnt.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/04_mnt.ipynb#mnt-module
"""Mount namespaces: a root file system of one's own, built while the host's tree is still in sight."""

from __future__ import annotations

import errno
import os
import stat

from mini_docker.linux.mount import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_MOVE,
    MS_NOATIME,
    MS_NODIRATIME,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_UNBINDABLE,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    fsconfig_set,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    umount2,
)
from mini_docker.linux.step import Step
from mini_docker.namespaces.options import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_STRICTATIME,
    PROPAGATION,
    MountOptions,
    has_own_mounts,
    parse_options,
)
from mini_docker.namespaces.places import Fd, make_at, open_in_root, open_mount_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


# %% notebooks/04_mnt.ipynb#plan-private
def root_propagation(spec: dict[str, Any]) -> int:
    """Return linux.rootfsPropagation as MS_* flags, by default rprivate. Raises ValueError."""
    name = spec.get("linux", {}).get("rootfsPropagation") or "rprivate"
    if name not in PROPAGATION:
        raise ValueError(f"linux.rootfsPropagation: '{name}' is none of {', '.join(PROPAGATION)}")
    return PROPAGATION[name]


def plan_private(spec: dict[str, Any]) -> list[Step]:
    """Plan that no mount made from here on is seen by the host; it has to be the first step of all.

    A new mount namespace starts with copies of the host's mounts, and systemd makes those *shared*: each
    would report new mounts back. linux.rootfsPropagation slave or shared lets the host's mounts come in,
    and still none out. Source: mount_namespaces(7), OCI config-linux.md.
    """
    if not has_own_mounts(spec):
        return []
    if root_propagation(spec) & (MS_SLAVE | MS_SHARED):
        return [Step("make every mount a slave", mount, (None, "/", None, MS_REC | MS_SLAVE))]
    return [Step("make every mount private", mount, (None, "/", None, MS_REC | MS_PRIVATE))]


# %% notebooks/04_mnt.ipynb#file-systems
def open_file_system(fstype: str, source: str | None, wanted: MountOptions) -> Fd:
    """Return a new file system as a detached mount, with its options and attributes, fsopen(2).

    Raises OSError with what the kernel wrote about it, such as "tmpfs: Unknown parameter 'sise'".
    """
    with Fd(fsopen(fstype)) as fs_fd:
        try:
            for key, value in (("source", source or fstype), *wanted.data):
                fsconfig_set(fs_fd, key, value)
            return Fd(fsmount(fs_fd, wanted.attr_set | wanted.tree_set))
        except OSError as error:
            text = _kernel_words(fs_fd) or f"{fstype}: {error.strerror}"
            raise OSError(error.errno, text) from None


def _kernel_words(fs_fd: int) -> str:
    """Read the one message that a refused file system leaves in its descriptor; "" for none."""
    try:
        return os.read(fs_fd, 4096).decode(errors="replace").strip().partition(" ")[2]
    except OSError:
        return ""


def set_attributes(mount_fd: int, set_: int, clear: int, recursive: bool = False) -> bool:
    """Change MOUNT_ATTR_* of a mount, mount_setattr(2); return False on a kernel before 5.12.

    Raises OSError.
    """
    try:
        mount_setattr(mount_fd, set_, clear, recursive)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return False
    return True


def set_bind_attributes(mount_fd: int, wanted: MountOptions) -> bool:
    """Give a detached bind mount its attributes; return False if they have to wait for `remount`.

    Raises OSError(ENOSYS) for recursive ones on a kernel before 5.12: the old way knows no such thing.
    """
    if wanted.tree_clr and not set_attributes(mount_fd, wanted.tree_set, wanted.tree_clr, True):
        raise OSError(errno.ENOSYS, "recursive mount options such as 'rro' need Linux 5.12")
    return not wanted.attr_clr or set_attributes(mount_fd, wanted.attr_set, wanted.attr_clr)


def make_readonly(mount_fd: int, path: str) -> None:
    """Make the mount behind `mount_fd`, which is also at `path`, read-only; none of those below it.

    Raises OSError. Source: mount_setattr(2).
    """
    if not set_attributes(mount_fd, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY):
        remount(path, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY)


def remount(path: str, set_: int, clear: int) -> None:
    """Change MOUNT_ATTR_* of the mount at `path` the old way, MS_REMOUNT | MS_BIND of mount(2).

    It replaces all attributes at once: those not named in `clear` are read first. Raises OSError.
    """
    # these four have the same number in mount(2), mount_setattr(2) and statvfs(3)
    same = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    flags = (os.statvfs(path).f_flag & ~clear | set_) & same
    for attribute, flag in (
        (MOUNT_ATTR_NOATIME, MS_NOATIME),
        (MOUNT_ATTR_STRICTATIME, MS_STRICTATIME),
        (MOUNT_ATTR_NODIRATIME, MS_NODIRATIME),
        (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
    ):
        flags |= flag if set_ & attribute else 0
    mount(None, path, None, MS_REMOUNT | MS_BIND | flags)


# %% notebooks/04_mnt.ipynb#mount-in-root
def open_mount(fstype: str, source: str | None, wanted: MountOptions, subpath: str = "") -> Fd:
    """Return a detached mount: a new file system, or a copy of the mount at `source`, open_tree(2).

    `subpath` names a place inside `source`, found there in one step whatever somebody renames meanwhile.
    """
    if not wanted.bind:
        return open_file_system(fstype, source, wanted)
    flags = OPEN_TREE_CLONE | (AT_RECURSIVE if wanted.recursive else 0)
    if not subpath:
        return Fd(open_tree(source or "", flags))
    with (
        Fd(os.open(source or "", os.O_PATH | os.O_CLOEXEC)) as source_fd,
        open_in_root(source_fd, subpath) as found_fd,
    ):
        return Fd(open_tree("", flags | AT_EMPTY_PATH, found_fd))


def attach_in_root(mount_fd: int, root: str, destination: str, resolve: int = 0) -> None:
    """Attach a detached mount on `destination` inside `root`, move_mount(2). Raises OSError."""
    directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
    with (
        Fd(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd,
        open_mount_point(root_fd, destination, directory, resolve) as target_fd,
    ):
        move_mount(mount_fd, "", target_fd)


def mount_in_root(
    root: str,
    destination: str,
    fstype: str,
    source: str | None,
    options: Sequence[str],
    subpath: str = "",
    prepared_fd: int | None = None,
) -> None:
    """Mount a new file system, or bind `source`, on `destination` inside `root`, move_mount(2).

    The mount is made detached, gets its attributes, and only then a place, which is a descriptor opened
    inside `root`: a symlink in the image leads nowhere else (CVE-2021-30465). A missing place is made.
    proc and sysfs take no symlink at all: what masks parts of them relies on where they are
    (CVE-2019-19921). The mount may be `prepared_fd`, made detached before. Raises OSError. Source: OCI
    config.md "mounts".
    """
    wanted = parse_options(("bind", *options) if fstype == "bind" else options)
    resolve = RESOLVE_NO_SYMLINKS if fstype in ("proc", "sysfs") else 0
    if prepared_fd is None:
        made = open_mount(fstype, source, wanted, subpath)
    else:
        made = Fd(prepared_fd)
    with made as mount_fd:
        if "tmpcopyup" in options:
            copy_up(root, destination, mount_fd)
        late = wanted.bind and not set_bind_attributes(mount_fd, wanted)
        attach_in_root(mount_fd, root, destination, resolve)
        place = f"/proc/self/fd/{mount_fd}"
        if late:
            remount(place, wanted.attr_set, wanted.attr_clr)
        if wanted.propagation:
            mount(None, place, None, wanted.propagation)


def copy_up(root: str, destination: str, mount_fd: int) -> None:
    """Copy what lies at `destination` inside `root` to a new, still detached tmpfs: option tmpcopyup.

    Directories, files and symlinks with their owners and modes; device files are left out. Raises OSError.
    """
    with Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd:
        try:
            source_fd = openat2(root_fd, destination, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT)
        except FileNotFoundError:
            return
    with Fd(source_fd), Fd(os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount_fd)) as target_fd:
        _copy_tree(source_fd, target_fd)


def _copy_tree(source_fd: int, target_fd: int) -> None:
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    for name in os.listdir(source_fd):
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
        elif stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target_fd)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            with (
                Fd(os.open(name, flags, dir_fd=source_fd)) as below_fd,
                Fd(os.open(name, flags, dir_fd=target_fd)) as copy_fd,
            ):
                _copy_tree(below_fd, copy_fd)
        elif stat.S_ISREG(status.st_mode):
            _copy_file(source_fd, target_fd, name)


def _copy_file(source_fd: int, target_fd: int, name: str) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    with (
        Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)) as file_fd,
        Fd(os.open(name, flags, 0o600, dir_fd=target_fd)) as copy_fd,
    ):
        status = os.fstat(file_fd)
        while os.sendfile(copy_fd, file_fd, None, 1 << 20):
            pass
        os.fchown(copy_fd, status.st_uid, status.st_gid)
        os.fchmod(copy_fd, stat.S_IMODE(status.st_mode))


# %% notebooks/04_mnt.ipynb#plan-mounts
def mount_cgroups(root: str, destination: str, options: Sequence[str]) -> None:
    """Mount the control groups of the caller's cgroup namespace, cgroups(7).

    Where version 2 is all there is, that is one mount. On version 1 and hybrid machines it is a tmpfs
    with a directory for each hierarchy, and a link for each controller that shares one. Raises OSError.
    """
    with open("/proc/self/cgroup") as file:
        names = [line.split(":")[1] for line in file]
    if not any(names):
        mount_in_root(root, destination, "cgroup2", "cgroup", options)
        return
    writable = [option for option in options if option != "ro"]
    mount_in_root(root, destination, "tmpfs", "tmpfs", (*writable, "mode=755"))
    wanted = parse_options(options)
    with (
        Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd,
        open_in_root(root_fd, destination) as directory_fd,
    ):
        for name in names:
            _mount_hierarchy(directory_fd, name, wanted)
            for controller in name.split(",") if "," in name else ():
                os.symlink(name, controller, dir_fd=directory_fd)
        if "ro" in options:
            make_readonly(directory_fd, f"/proc/self/fd/{directory_fd}")


def _mount_hierarchy(directory_fd: int, name: str, wanted: MountOptions) -> None:
    """Mount one line of /proc/self/cgroup: "cpu,cpuacct", "name=systemd", or "" for version 2.

    Its place is made in a tmpfs of ours, where no image has put a symlink.
    """
    named = name.removeprefix("name=")
    which: list[tuple[str, str | None]] = [(controller, None) for controller in name.split(",")]
    if named != name:
        which = [("none", None), ("name", named)]
    make_at(named or "unified", directory_fd, True)
    kind, data = ("cgroup", (*wanted.data, *which)) if name else ("cgroup2", wanted.data)
    with open_file_system(kind, "cgroup", wanted._replace(data=data)) as mount_fd:
        move_mount(mount_fd, named or "unified", directory_fd)
        if wanted.propagation:
            mount(None, f"/proc/self/fd/{mount_fd}", None, wanted.propagation)


# Docker's, from moby's daemon/pkg/oci/defaults.go
DEFAULT_MOUNTS: tuple[dict[str, Any], ...] = tuple(
    {"destination": destination, "type": fstype, "source": source, "options": options.split(",")}
    for destination, fstype, source, options in (
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,ro"),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
    )
)


def plan_mounts(spec: dict[str, Any], prepared: Mapping[int, int] = {}) -> list[Step]:  # noqa: B006
    """Plan one step for each entry of mounts, in the document's order.

    `prepared` are detached mounts made before, by the entry's index. Raises ValueError with the JSON path
    of a wrong option. Source: OCI config.md, mounts.
    """
    if not has_own_mounts(spec):
        return []
    count = len(spec.get("mounts") or ())
    return [_plan_mount(spec, index, prepared.get(index)) for index in range(count)]


def _plan_mount(spec: dict[str, Any], index: int, prepared_fd: int | None) -> Step:
    root, entry = spec["root"]["path"], spec["mounts"][index]
    options = tuple(entry.get("options") or ())
    destination, source = entry["destination"], entry.get("source")
    try:
        wanted = parse_options(options)
    except ValueError as error:
        raise ValueError(f"mounts[{index}].options: {error}") from None
    if is_idmapped(entry) and prepared_fd is None:
        raise ValueError(f"mounts[{index}].uidMappings: the mount was not prepared by the parent")
    fstype = "bind" if wanted.bind else entry.get("type", "none")
    if fstype == "cgroup":
        return Step(f"mount cgroup on {destination}", mount_cgroups, (root, destination, options))
    name = f"bind {source}" if fstype == "bind" else f"mount {fstype}"
    arguments: tuple[Any, ...] = (root, destination, fstype, source, options)
    if entry.get("subpath") or prepared_fd is not None:
        arguments += (entry.get("subpath", ""),)  # ours, of a volume; no other engine writes it
    if prepared_fd is not None:
        arguments += (prepared_fd,)
    return Step(f"{name} on {destination}", mount_in_root, arguments)


def is_idmapped(entry: dict[str, Any]) -> bool:
    """Return whether an entry of mounts wants its owners translated. Source: OCI config.md."""
    asked = {"idmap", "ridmap"}.intersection(entry.get("options") or ())
    return bool(asked or entry.get("uidMappings") or entry.get("gidMappings"))


# %% notebooks/04_mnt.ipynb#plan-pivot
def plan_root(spec: dict[str, Any], rootfs_fd: int | None = None) -> list[Step]:
    """Plan a mount on root.path: the detached mount `rootfs_fd`, or the directory bound on itself.

    pivot_root(2) takes nothing but a mount point. Source: OCI config.md, root.
    """
    if not has_own_mounts(spec):
        return []
    path = spec["root"]["path"]
    if rootfs_fd is None:
        return [Step("bind the root on itself", mount, (path, path, None, MS_BIND | MS_REC))]
    return [Step("attach the root", attach_root, (rootfs_fd, path))]


def attach_root(rootfs_fd: int, path: str) -> None:
    """Attach a detached mount at `path`, private: a copy of a shared mount would report to its original.

    Raises OSError. Source: open_tree(2), mount_namespaces(7).
    """
    move_mount(rootfs_fd, path)
    mount(None, path, None, MS_REC | MS_PRIVATE)


def plan_pivot(spec: dict[str, Any], pivot: bool = True) -> list[Step]:
    """Plan the change of root: enter it, swap it with the host's, let go of that one.

    Both "." are the same directory: the old root lands on top of the new one, is unmounted from there,
    and no directory for it is needed. Without `pivot` the root is moved over the host's and entered by
    chroot(2): weaker, and the only way where the host's root is a ramfs. Source: pivot_root(2),
    OCI config.md root.readonly.
    """
    if not has_own_mounts(spec):
        return []
    steps = [Step("enter the root", os.chdir, (spec["root"]["path"],))]
    if pivot:
        steps += [
            Step("swap it with the host's root", pivot_root, (".", ".")),
            Step("let go of the host's root", umount2, (".", MNT_DETACH)),
        ]
    else:
        steps += [
            Step("move it over the host's root", mount, (".", "/", None, MS_MOVE)),
            Step("take it for the root", os.chroot, (".",)),
        ]
    steps.append(Step("change directory to /", os.chdir, ("/",)))
    propagation = root_propagation(spec)
    if propagation & (MS_SHARED | MS_UNBINDABLE):
        steps.append(Step("set the root's propagation", mount, (None, "/", None, propagation)))
    if spec["root"].get("readonly"):
        steps.append(Step("make the root read-only", make_root_readonly, ()))
    return steps


def make_root_readonly() -> None:
    """Make the mount at / read-only, mount_setattr(2). Raises OSError."""
    with Fd(os.open("/", os.O_PATH | os.O_CLOEXEC)) as root_fd:
        make_readonly(root_fd, "/")
