# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#layers-module
"""The unpacked layers of a data root: who needs them, and how the others go."""

from __future__ import annotations

import threading

from mini_docker.images.catalog import stacks
from mini_docker.images.layers import remove_layers
from mini_docker.images.layout import Digest, ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from mini_docker.engine.store import Store


# %% notebooks/14f_states.ipynb#layers
class Hold:
    """The layers of one who is at work, kept as long as a `with` statement lasts."""

    def __init__(self, layers: Layers, stack: Sequence[str]) -> None:
        """Name the layers by their diff_ids, in a list that may grow."""
        self.layers, self.stack = layers, stack

    def __enter__(self) -> None:
        """Keep them: who clears up now is waited for, who does so later sees it."""
        with self.layers.lock:
            self.layers.at_work.append(self)

    def __exit__(self, *_: object) -> None:
        """Let them go."""
        with self.layers.lock:
            self.layers.at_work.remove(self)


class Layers:
    """What is unpacked in a data root, which belongs to the images, the containers, and who is at work."""

    def __init__(self, store: Store, records: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Look after a store's layers; `records` returns those of all containers."""
        self.store, self.records = store, records
        self.lock = threading.Lock()
        self.at_work: list[Hold] = []

    def held(self, stack: Sequence[str]) -> Hold:
        """Keep the layers of these diff_ids, for a `with` statement."""
        return Hold(self, stack)

    def clean(self) -> None:
        """Remove the layers that nobody needs, and what the driver made of them.

        Where that fails, or the index cannot be read, they stay for the next time.
        """
        with self.lock:
            try:
                needed = self._needed()
                names = {Digest(diff_id).encoded for stack in needed for diff_id in stack}
                remove_layers(f"{self.store.root}/layers", names)
                self.store.roots.remove_layers(needed)
            except (ImageError, OSError):
                return

    def _needed(self) -> list[Sequence[str]]:
        """Return the diff_ids of everything that stands on layers, lowest first. Raises ImageError."""
        used = [[f"sha256:{name}" for name in record["Layers"]] for record in self.records()]
        return [*stacks(self.store.layout), *used, *(list(hold.stack) for hold in self.at_work)]

    def clean_after(self, record: dict[str, Any]) -> None:
        """Do so once a container is gone, if its image went before it."""
        image_id = record.get("ImageID")
        if image_id and not self.store.layout.has(image_id):
            self.clean()
