# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#container
"""A container in the daemon's memory."""

from __future__ import annotations

import socket
import threading

from mini_docker.engine.states import is_alive
from mini_docker.engine.store import Conflict, NoSuchContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")


class NotModified(Exception):
    """The container is already in the state that was asked for."""


class EngineError(Exception):
    """An operation that failed; the text is for the user."""


class Container:
    """A container in the daemon's memory: its record, and who waits for it. Change it under `lock`."""

    def __init__(self, record: dict[str, Any]) -> None:
        """Hold a record; nothing runs yet, as far as is known."""
        self.record = record
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.exits = 0
        self.removed = False
        self.stopped = False  # by its user: no policy starts it again
        self.stops = 0  # that wait for its end, which tells of them
        self.kept = False  # between the two halves of a restart: no end removes it
        self.delay = 0.0
        self.clients: list[tuple[socket.socket, dict[str, Any]]] = []

    @property
    def id(self) -> str:
        """The 64 hex digits."""
        return str(self.record["Id"])

    @property
    def name(self) -> str:
        """The name, without a slash."""
        return str(self.record["Name"])

    @property
    def host(self) -> dict[str, Any]:
        """The HostConfig."""
        host: dict[str, Any] = self.record["HostConfig"]
        return host

    @property
    def state(self) -> dict[str, Any]:
        """The state as it is on disk."""
        state: dict[str, Any] = self.record["State"]
        return state

    @property
    def alive(self) -> bool:
        """Whether it has a process."""
        return is_alive(self.record)

    @property
    def restarting(self) -> bool:
        """Whether it waits for its next life; most of Docker's commands take it for one that runs."""
        return bool(self.state["Status"] == "restarting")

    def require_there(self) -> None:
        """Raise NoSuchContainer where somebody has removed it since it was found. Call it under `lock`."""
        if self.removed:
            raise NoSuchContainer(f"No such container: {self.id}")

    def look(self, look: Callable[[], T]) -> T:
        """Return what a long look at its files finds, which no removal waits for. Raises NoSuchContainer."""
        try:
            found = look()
        except OSError:
            with self.lock:
                self.require_there()
            raise
        with self.lock:
            self.require_there()
        return found

    def require_alive(self) -> None:
        """Raise Conflict, in Docker's words, where there is no process."""
        if self.restarting:
            words = "is restarting, wait until the container is running"
            raise Conflict(f"Container {self.id} {words}")
        if not self.alive:
            raise Conflict(f"Container {self.id} is not running")

    def waiter(self, condition: str) -> Callable[[Callable[[], bool]], int | None]:
        """Return what waits for "not-running" (the default), "next-exit" or "removed", from this moment on.

        Called with `gone`, which is asked regularly, it returns the exit code, or None when nobody waits.
        """
        exits = self.exits

        def reached() -> bool:
            if condition == "next-exit":
                return self.exits > exits or self.removed
            if condition == "removed":  # which does not always succeed
                return self.removed or self.state["Status"] == "dead"
            if self.exits > exits:  # between two lives it does not run
                return True
            return not self.alive and self.state["Status"] != "restarting"

        def wait(gone: Callable[[], bool]) -> int | None:
            with self.lock:
                while not self.changed.wait_for(reached, 1.0):
                    if gone():
                        return None
                return int(self.state["ExitCode"])

        return wait
