# Exported from notebooks/14g_files.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14g_files.ipynb#changes
"""What a container has changed, as `docker diff` shows it."""

from __future__ import annotations

import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.engine.container import Container
    from mini_docker.engine.store import Store

# What a start itself makes in the upper directory: mount points.
MOUNT_POINTS = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
KINDS = {"C": 0, "A": 1, "D": 2}


def changes(store: Store, container: Container) -> list[dict[str, Any]] | None:
    """Return what `docker diff` shows; None where nothing has changed."""
    found = store.roots.changes(container.record)
    ours = set(MOUNT_POINTS)
    shown = [change for change in found if not _is_ours(change.path, ours)]
    dropped = {posixpath.dirname(change.path) for change in found if _is_ours(change.path, ours)}
    kept = [
        {"Path": change.path, "Kind": KINDS[change.kind]}
        for change in shown
        if change.path not in dropped
        or any(other.path.startswith(f"{change.path}/") for other in shown)
    ]
    return kept or None


def _is_ours(path: str, ours: set[str]) -> bool:
    return any(path == point or path.startswith(f"{point}/dev-null") for point in ours) or (
        path.startswith(("/dev/", "/proc/", "/sys/"))
    )
