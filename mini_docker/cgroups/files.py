# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#control-files
"""The files of a control group, read and written, and its directory made."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mini_docker.cgroups.tree import Hierarchies


def read_file(path: str) -> str:
    """Return the text of a control file. Raises OSError."""
    with open(path) as file:
        return file.read()


def write_file(path: str, text: str) -> None:
    """Write `text` to a control file in one write(2); the kernel's answer is the OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r} to {path}: {error.strerror}") from None
    finally:
        os.close(fd)


# %% notebooks/08_control_groups.ipynb#make-directory
def make_directory(trees: Hierarchies, root: str, path: str) -> bool:
    """Make the group `path` in the tree at `root`, mkdir(2); return whether it was not there.

    v1's cpuset is born empty, and nobody can enter a group without processors: it is filled from above.
    """
    directory = root + path
    made = not os.path.isdir(directory)
    os.makedirs(directory, exist_ok=True)
    if root == trees.mounts.get("cpuset") and root != trees.unified:
        above = root
        for part in path.strip("/").split("/"):
            _fill_cpuset(above, f"{above}/{part}")
            above = f"{above}/{part}"
    return made


def _fill_cpuset(above: str, directory: str) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read_file(f"{directory}/{name}").strip():
            write_file(f"{directory}/{name}", read_file(f"{above}/{name}").strip())


def pass_down(root: str, path: str, controllers: Iterable[str]) -> None:
    """Have the v2 groups above `path` give their children `controllers`, from the top down.

    Raises OSError(EBUSY) for one that holds processes itself and is asked for memory or io: only the
    root of the machine may do both. Source: cgroups(7), "no internal processes", "threaded controllers".
    """
    above = root
    for part in path.strip("/").split("/"):
        missing = set(controllers) - set(read_file(f"{above}/cgroup.subtree_control").split())
        if missing:
            words = " ".join(f"+{name}" for name in sorted(missing))
            try:
                write_file(f"{above}/cgroup.subtree_control", words)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise OSError(
                    errno.EBUSY,
                    f"control group {above} holds processes itself, so it cannot give its children "
                    f"{', '.join(sorted(missing))}; remedy: move them into a group below it",
                ) from None
        above = f"{above}/{part}"
