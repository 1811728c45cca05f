# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#events-module
"""What happened: the last events, and those to come, for whoever listens."""

from __future__ import annotations

import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Event = dict[str, Any]


# %% notebooks/14f_states.ipynb#events
KEPT = 256  # as many as Docker remembers for `since`


class Events:
    """A list of events that threads wait at."""

    def __init__(self) -> None:
        """Begin with none."""
        self.changed = threading.Condition()
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self.count = 0

    def publish(self, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
        """Tell everybody that `action` happened to `actor` (an id), in the shape of Docker's events."""
        at = time.time_ns()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": attributes},
            "scope": "local",
            "time": at // 1_000_000_000,
            "timeNano": at,
        }
        if kind in ("container", "image"):  # the words of API 1.21, which clients still read
            old = {"status": action, "id": actor}
            event = {
                **old,
                **({"from": attributes["image"]} if "image" in attributes else {}),
                **event,
            }
        with self.changed:
            self.kept.append(event)
            self.count += 1
            self.changed.notify_all()

    def follow(
        self, since: int | None, until: int | None, stopped: Callable[[], bool]
    ) -> Iterator[Event | None]:
        """Return kept events from `since` (nanoseconds) on, then what happens up to `until`, or for ever;
        an `until` of 0 is now.

        There is a None twice a second while nothing happens, so that the caller can see whether anybody
        still listens; ends when `stopped()`. What happens after this call is among them, whenever the
        first is asked for.
        """
        with self.changed:
            past = [
                event for event in self.kept if since is not None and event["timeNano"] >= since
            ]
            return self._follow(past, self.count, time.time_ns() if until == 0 else until, stopped)

    def _follow(
        self, past: list[Event], seen: int, until: int | None, stopped: Callable[[], bool]
    ) -> Iterator[Event | None]:
        yield from (event for event in past if until is None or event["timeNano"] <= until)
        while not stopped() and (until is None or time.time_ns() < until):
            new, seen = self._wait(seen)
            yield from new
            if not new:
                yield None

    def _wait(self, seen: int) -> tuple[list[Event], int]:
        """Return the events after the first `seen` ones, waiting half a second for some."""
        with self.changed:
            self.changed.wait_for(lambda: self.count > seen, 0.5)
            fresh = min(self.count - seen, len(self.kept))
            return (list(self.kept)[-fresh:] if fresh else []), self.count
