# Exported from notebooks/10b_drivers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10b_drivers.ipynb#trees-module
"""Roots on a driver that keeps whole trees, btrfs or vfs; imported where a data root has one of them."""

from __future__ import annotations

import os

from mini_docker.engine.roots import Roots, file_system_name
from mini_docker.images.layers import chain_id
from mini_docker.linux.mount import OPEN_TREE_CLONE, open_tree
from mini_docker.storage.driver import DRIVERS, Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from mini_docker.storage.overlay import Overlay
    from mini_docker.storage.tree import Change


def open_copy(path: Overlay | str) -> int:
    """Return a descriptor of a mount of the tree at `path`, attached nowhere, open_tree(2)."""
    return open_tree(str(path), OPEN_TREE_CLONE)


class TreeRoots(Roots):
    """The roots of containers as whole trees, below DATA_ROOT/DRIVER."""

    opener = staticmethod(open_copy)

    def __init__(self, home: str, name: str) -> None:
        """Use the driver `name`."""
        super().__init__(home)
        self.name = name
        self.driver = DRIVERS[name](f"{home}/{name}")

    def _root(self, record: dict[str, Any]) -> Root:
        """Return the driver's name for a container's root, with its layers there. Raises OSError."""
        diff_ids = [f"sha256:{name}" for name in record["Layers"]]
        chains: list[str] = []
        for end, unpacked in enumerate(self.layers(record), 1):
            chain = chain_id(diff_ids[:end]).rpartition(":")[2]
            self.driver.add_layer(chain, chains, unpacked)
            chains.append(chain)
        return Root(record["Id"], tuple(chains), False)

    def plan(self, record: dict[str, Any]) -> Overlay | str:
        """Copy the image's tree, if the container has none yet; return where."""
        self._make(self.directory(record))
        self.driver.make_root(self._root(record))
        return self.driver.root_path(record["Id"])

    def plan_look(self, record: dict[str, Any]) -> Overlay | str:
        """Return where the tree is: it is the same for readers."""
        return self.plan(record)

    def changes(self, record: dict[str, Any]) -> list[Change]:
        """Compare the container's tree with its image's."""
        self.plan(record)
        return self.driver.changes(self._root(record))

    def diff(self, record: dict[str, Any]) -> AbstractContextManager[str]:
        """Lend a directory made of the comparison."""
        self.plan(record)
        return self.driver.diff(self._root(record))

    def changed(self, record: dict[str, Any]) -> str:
        """Return the whole tree."""
        return self.driver.root_path(record["Id"])

    def remove(self, container_id: str) -> None:
        """Remove the container's tree."""
        self.driver.remove_root(container_id)

    def remove_layers(self, needed: Iterable[Sequence[str]]) -> None:
        """Remove the trees of all but these stacks of diff_ids."""
        kept = set()
        for stack in needed:
            for end in range(1, len(stack) + 1):
                kept.add(chain_id(stack[:end]).rpartition(":")[2])
        for chain in os.listdir(f"{self.driver.home}/layers"):
            if chain not in kept:
                self.driver.remove_layer(chain)

    def data(self, record: dict[str, Any]) -> dict[str, str] | None:
        """Return nothing, as Docker does of these drivers."""
        return None

    def status(self) -> list[list[str]] | None:
        """Return what Docker shows: of btrfs its library's version, which we have none of."""
        return (
            [["Backing Filesystem", file_system_name(self.home)]] if self.name == "btrfs" else None
        )

    def trouble(self) -> str:
        """Ask the driver."""
        return self.driver.trouble()
