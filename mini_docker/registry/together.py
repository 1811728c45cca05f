# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#together-module
"""Several blobs at once: workers, of whom the first failure stops the others, and one voice for all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from mini_docker.images.layout import Descriptor
from mini_docker.registry.client import Client

# %% notebooks/13_registry.ipynb#together
Progress = Callable[[dict[str, Any]], None]


def side_by_side(client: Client, most: int, tasks: Iterable[Callable[[], object]]) -> None:
    """Do tasks that talk through `client`, `most` at a time; raise the first failure, which ends them all."""
    with ThreadPoolExecutor(max(1, int(most))) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            client.close()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Voice:
    """What tells of a pull or push, in Docker's progress messages; its threads take turns."""

    def __init__(self, progress: Progress) -> None:
        """Speak to `progress`."""
        self._progress, self._lock = progress, threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        """Hand on a message."""
        with self._lock:
            self._progress(message)

    def tell(self, blob: Descriptor, status: str, current: int = 0) -> None:
        """Say how it goes with a blob, of which `current` bytes have gone."""
        detail = {"current": current, "total": blob.size} if current else {}
        name = blob.digest.partition(":")[2][:12]
        self.say({"status": status, "progressDetail": detail, "id": name})
