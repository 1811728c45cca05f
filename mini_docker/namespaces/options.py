# Exported from notebooks/04_mnt.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/04_mnt.ipynb#options-module
"""Mount options as the document has them, sorted by who obeys them."""

from __future__ import annotations

import os
from collections import namedtuple

from mini_docker.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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


# %% notebooks/04_mnt.ipynb#options
PROPAGATION = {
    "private": MS_PRIVATE,
    "slave": MS_SLAVE,
    "shared": MS_SHARED,
    "unbindable": MS_UNBINDABLE,
}
PROPAGATION |= {f"r{name}": flag | MS_REC for name, flag in PROPAGATION.items()}
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


def has_own_mounts(spec: dict[str, Any]) -> bool:
    """Return whether the container gets a new mount namespace; one that it joins is somebody else's.

    Raises ValueError for a document without any: its mounts would be the host's.
    """
    namespaces = spec.get("linux", {}).get("namespaces", ())
    for entry in namespaces:
        if entry["type"] == "mount":
            return not entry.get("path")
    raise ValueError("linux.namespaces: no 'mount': the container's mounts would be the host's")
