# Exported from notebooks/04_mnt.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/04_mnt.ipynb#mnt-module
"""Mount namespaces: a root file system of one's own, built while the host's tree is still in sight."""

from __future__ import annotations

import errno
import os
import stat
from collections import namedtuple

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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NamedTuple

    class MountOptions(NamedTuple):
        """The options of one mount, sorted by who obeys them.

        `attr_set` and `attr_clr` are MOUNT_ATTR_* of the mount itself, `tree_set` and `tree_clr` of all
        mounts below it as well; `propagation` is MS_PRIVATE, MS_SLAVE ... (0: not asked for), perhaps
        with MS_REC; `bind` says whether it is a bind mount, `recursive` whether with the mounts below;
        `data` are the file system's own options, a pair (key, value or None) each.
        """

        attr_set: int
        attr_clr: int
        tree_set: int
        tree_clr: int
        propagation: int
        bind: bool
        recursive: bool
        data: tuple[tuple[str, str | None], ...]

    class Device(NamedTuple):
        """A device file: its path in the container, type and permissions, device number, owner."""

        path: str
        mode: int
        number: int
        uid: int
        gid: int

else:
    MountOptions = namedtuple(
        "MountOptions",
        (
            "attr_set",
            "attr_clr",
            "tree_set",
            "tree_clr",
            "propagation",
            "bind",
            "recursive",
            "data",
        ),
    )
    Device = namedtuple("Device", ("path", "mode", "number", "uid", "gid"))


# %% notebooks/04_mnt.ipynb#plan-private
PROPAGATION = {
    "private": MS_PRIVATE,
    "slave": MS_SLAVE,
    "shared": MS_SHARED,
    "unbindable": MS_UNBINDABLE,
}
PROPAGATION |= {f"r{name}": flag | MS_REC for name, flag in PROPAGATION.items()}


def has_own_mounts(spec: dict[str, Any]) -> bool:
    """Return whether the container gets a new mount namespace; one that it joins is somebody else's.

    Raises ValueError for a document without any: its mounts would be the host's.
    """
    namespaces = spec.get("linux", {}).get("namespaces", ())
    for entry in namespaces:
        if entry["type"] == "mount":
            return not entry.get("path")
    raise ValueError("linux.namespaces: no 'mount': the container's mounts would be the host's")


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


# %% notebooks/04_mnt.ipynb#options
# linux/mount.h: attributes that chapter 1 had no use for
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
ATTRIBUTES = {
    # option: (the bits it decides, their value)
    "ro": (MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY),
    "rw": (MOUNT_ATTR_RDONLY, 0),
    "nosuid": (MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSUID),
    "suid": (MOUNT_ATTR_NOSUID, 0),
    "nodev": (MOUNT_ATTR_NODEV, MOUNT_ATTR_NODEV),
    "dev": (MOUNT_ATTR_NODEV, 0),
    "noexec": (MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOEXEC),
    "exec": (MOUNT_ATTR_NOEXEC, 0),
    "noatime": (MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME),
    "strictatime": (MOUNT_ATTR__ATIME, MOUNT_ATTR_STRICTATIME),
    "relatime": (MOUNT_ATTR__ATIME, 0),
    "atime": (MOUNT_ATTR__ATIME, 0),
    "norelatime": (MOUNT_ATTR__ATIME, 0),
    "nostrictatime": (MOUNT_ATTR__ATIME, 0),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    "diratime": (MOUNT_ATTR_NODIRATIME, 0),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
    "symfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
}
TREE_ATTRIBUTES = {f"r{option}": bits for option, bits in ATTRIBUTES.items()}
BINDS = {"bind": False, "rbind": True}
IGNORED = ("defaults", "loud", "silent", "iversion", "noiversion")
OF_THE_SUPERBLOCK = ("sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand")
UNSUPPORTED = ("remount",)
# obeyed by others than the kernel's mount: see runtime/idmap, and mount_in_root
OURS = ("idmap", "ridmap", "tmpcopyup")
LONGEST_OPTION = 255  # bytes, fsconfig(2)


def parse_options(options: Sequence[str]) -> MountOptions:
    """Sort mount options by who obeys them; what we do not know belongs to the file system.

    Raises ValueError for two that contradict each other, for one we cannot do, and for one longer than
    the 255 bytes that fsconfig(2) takes. Source: OCI config.md "Linux mount options", mount(8).
    """
    for option in options:
        if option in UNSUPPORTED:
            raise ValueError(f"mount option '{option}' is not supported")
    attr_set, attr_clr = _attributes(ATTRIBUTES, options)
    tree_set, tree_clr = _attributes(TREE_ATTRIBUTES, options)
    binds = [BINDS[option] for option in options if option in BINDS]
    known = (ATTRIBUTES, TREE_ATTRIBUTES, PROPAGATION, BINDS, IGNORED, OURS)
    data = [_data(option) for option in options if not any(option in table for table in known)]
    if binds:
        data = [(key, value) for key, value in data if key not in OF_THE_SUPERBLOCK]
        if data:
            raise ValueError(f"mount option '{data[0][0]}': a bind mount has no options of its own")
    return MountOptions(
        attr_set,
        attr_clr,
        tree_set,
        tree_clr,
        _propagation(options),
        bool(binds),
        any(binds),
        tuple(data),
    )


def _attributes(table: dict[str, tuple[int, int]], options: Sequence[str]) -> tuple[int, int]:
    """Return the bits to set, and those to clear before, of the options that `table` knows."""
    decided: dict[int, str] = {}
    for option in options:
        if option in table:
            before = decided.setdefault(table[option][0], option)
            if table[before] != table[option]:
                raise ValueError(f"mount options '{before}' and '{option}' contradict each other")
    chosen = [table[option] for option in decided.values()]
    return sum(value for _, value in chosen), sum(mask for mask, _ in chosen)


def _propagation(options: Sequence[str]) -> int:
    asked = [option for option in options if option in PROPAGATION]
    if len({option.removeprefix("r") for option in asked}) > 1:
        raise ValueError(f"mount options '{asked[0]}' and '{asked[1]}' contradict each other")
    flags = 0
    for option in asked:
        flags |= PROPAGATION[option]
    return flags


def _data(option: str) -> tuple[str, str | None]:
    key, equals, value = option.partition("=")
    length = len(os.fsencode(value))
    if length > LONGEST_OPTION:
        raise ValueError(f"mount option '{key}' has {length} bytes; {LONGEST_OPTION} is the limit")
    return key, value if equals else None


# %% notebooks/04_mnt.ipynb#in-root
class Fd(int):
    """A file descriptor that is closed at the end of its `with` block."""

    __slots__ = ()

    def __enter__(self) -> Fd:
        """Return the descriptor."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self)


ATTEMPTS = 128


def open_in_root(root_fd: int, path: str, resolve: int = 0) -> Fd:
    """Open `path` (O_PATH) as if `root_fd` were the root: no `..` and no symlink leads out, openat2(2).

    Where a rename went on beside it, the kernel cannot vouch for a `..` and says EAGAIN: once more.
    Raises OSError.
    """
    for _ in range(ATTEMPTS):
        try:
            return Fd(openat2(root_fd, path, os.O_PATH, RESOLVE_IN_ROOT | resolve))
        except BlockingIOError as error:
            again = error
    raise again


def open_mount_point(root_fd: int, path: str, directory: bool, resolve: int = 0) -> Fd:
    """Open `path` inside `root_fd`, made as a directory or an empty file where it is missing.

    Raises OSError, also if it is there and of the other kind.
    """
    try:
        found = open_in_root(root_fd, path, resolve)
    except FileNotFoundError:
        make_in_root(root_fd, path, directory)
        found = open_in_root(root_fd, path, resolve)
    except OSError as error:
        if error.errno == errno.ELOOP and resolve & RESOLVE_NO_SYMLINKS:
            text = f"{path} leads over a symlink in this root: refused"
            raise OSError(errno.ELOOP, text) from None
        raise
    if stat.S_ISDIR(os.fstat(found).st_mode) != directory:
        os.close(found)
        kinds = ("file", "directory") if directory else ("directory", "file")
        text = f"{path} is a {kinds[0]}, and a {kinds[1]} would be mounted on it"
        raise NotADirectoryError(errno.ENOTDIR, text)
    return found


def make_in_root(root_fd: int, path: str, directory: bool) -> None:
    """Make `path` inside `root_fd`, and the directories above it, each by its parent's descriptor.

    A symlink that points to nothing is in the way of mkdirat(2), which follows none: then what it points
    to is made, inside the root too. Raises OSError.
    """
    parent, name = os.path.split(path.rstrip("/"))
    with open_mount_point(root_fd, parent or "/", True) as parent_fd:
        if name in ("", ".", ".."):
            return
        try:
            _make(name, parent_fd, directory)
        except FileExistsError:
            try:
                target = os.readlink(name, dir_fd=parent_fd)
            except OSError:
                return  # no link: another container on the same root made it just now
            make_in_root(root_fd, os.path.join(parent, target), directory)


def _make(name: str, dir_fd: int, directory: bool) -> None:
    """Make a directory or an empty file that everyone may read, whatever the caller's umask."""
    umask = os.umask(0)
    try:
        if directory:
            os.mkdir(name, 0o755, dir_fd=dir_fd)
        else:
            os.mknod(name, stat.S_IFREG | 0o644, dir_fd=dir_fd)
    finally:
        os.umask(umask)


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
    for name in names:
        _mount_hierarchy(root, destination, name, options)
    with (
        Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd,
        open_in_root(root_fd, destination) as directory_fd,
    ):
        for name in names:
            for controller in name.split(",") if "," in name else ():
                os.symlink(name, controller, dir_fd=directory_fd)
        if "ro" in options:
            make_readonly(directory_fd, f"/proc/self/fd/{directory_fd}")


def _mount_hierarchy(root: str, destination: str, name: str, options: Sequence[str]) -> None:
    """Mount one line of /proc/self/cgroup: "cpu,cpuacct", "name=systemd", or "" for version 2."""
    directory = f"{destination}/{name.removeprefix('name=') or 'unified'}"
    if not name:
        mount_in_root(root, directory, "cgroup2", "cgroup", options)
        return
    which = ("none", name) if name.startswith("name=") else name.split(",")
    mount_in_root(root, directory, "cgroup", "cgroup", (*options, *which))


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


# %% notebooks/04_mnt.ipynb#devices
DEFAULT_DEVICES = tuple(
    Device(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor), 0, 0)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def plan_devices(spec: dict[str, Any]) -> list[Step]:
    """Plan the default devices, those of linux.devices, and the links in /dev.

    Where /dev is a directory of the host, bound, nothing is made in it. Raises ValueError.
    Source: OCI config-linux.md "Default Devices".
    """
    if not has_own_mounts(spec) or any(map(_is_host_dev, spec.get("mounts", ()))):
        return []
    root = spec["root"]["path"]
    asked = [
        parse_device(index, entry)
        for index, entry in enumerate(spec.get("linux", {}).get("devices") or ())
    ]
    own = {device.path for device in asked}
    standard = tuple(device for device in DEFAULT_DEVICES if device.path not in own)
    steps = [Step("make the devices null zero full ...", make_devices, (root, standard))]
    steps += [Step(f"make the device {d.path}", make_devices, (root, (d,))) for d in asked]
    return [*steps, Step("make the links in /dev", link_devices, (root, DEVICE_LINKS))]


def _is_host_dev(entry: dict[str, Any]) -> bool:
    bind = entry.get("type") == "bind" or not BINDS.keys().isdisjoint(entry.get("options") or ())
    return bind and os.path.normpath(entry["destination"]) == "/dev"


def parse_device(index: int, entry: dict[str, Any]) -> Device:
    """Return linux.devices[index] as a Device. Raises ValueError."""
    if entry.get("type") not in DEVICE_TYPES:
        raise ValueError(f"linux.devices[{index}].type: '{entry.get('type')}' is none of c u b p")
    mode = DEVICE_TYPES[entry["type"]] | (entry.get("fileMode") or 0o666) & 0o7777
    number = os.makedev(entry.get("major", 0), entry.get("minor", 0))
    return Device(entry["path"], mode, number, entry.get("uid") or 0, entry.get("gid") or 0)


def make_devices(root: str, devices: Sequence[Device]) -> None:
    """Make device files inside `root`, mknod(2); where that is not allowed, bind the host's.

    A user namespace may not make devices. Raises OSError, also if another file has the name.
    """
    umask = os.umask(0)
    try:
        with Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd:
            for device in devices:
                _make_device(root, root_fd, device)
    finally:
        os.umask(umask)


def _make_device(root: str, root_fd: int, device: Device) -> None:
    directory, name = os.path.split(device.path)
    with open_mount_point(root_fd, directory, True) as directory_fd:
        try:
            os.mknod(name, device.mode, device.number, dir_fd=directory_fd)
            os.chown(name, device.uid, device.gid, dir_fd=directory_fd, follow_symlinks=False)
        except PermissionError:
            mount_in_root(root, device.path, "bind", device.path, ("bind",))
        except FileExistsError:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            wanted = (stat.S_IFMT(device.mode), device.number)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) != wanted:
                text = f"{device.path} in this root is another file, not the device"
                raise FileExistsError(errno.EEXIST, text) from None


def link_devices(root: str, links: Sequence[tuple[str, str]]) -> None:
    """Make the symlinks `links`, pairs (name, target), in the /dev of `root`, symlink(2).

    One that is there stays, but for ptmx: it must be that of the container's own devpts. Raises OSError.
    """
    with (
        Fd(os.open(root, os.O_PATH | os.O_CLOEXEC)) as root_fd,
        open_mount_point(root_fd, "/dev", True) as dev_fd,
    ):
        for name, target in links:
            try:
                os.symlink(target, name, dir_fd=dev_fd)
            except FileExistsError:
                if name == "ptmx":
                    os.unlink(name, dir_fd=dev_fd)
                    os.symlink(target, name, dir_fd=dev_fd)


def bind_console(root: str, slave_fd: int) -> None:
    """Bind the terminal behind `slave_fd` on /dev/console inside `root`, open_tree(2).

    Neither end is a path that a container could swap: the source is the descriptor itself, and a link in
    the way of the target is refused (CVE-2025-52565). Raises OSError.
    """
    flags = OPEN_TREE_CLONE | AT_EMPTY_PATH
    with Fd(open_tree("", flags, slave_fd)) as mount_fd:
        attach_in_root(mount_fd, root, "/dev/console", RESOLVE_NO_SYMLINKS)


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
    return [Step("attach the root", move_mount, (rootfs_fd, path))]


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
