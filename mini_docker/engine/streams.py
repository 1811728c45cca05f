# Exported from notebooks/18b_streams.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18b_streams.ipynb#streams-module
"""A container's streams for clients: attach, resize, and logs in pieces as Docker sends them."""

from __future__ import annotations

import functools
import json
import select
import time
from collections import namedtuple
from urllib.parse import quote_plus

from mini_docker.engine.attached import CHUNK, PATIENCE, frame
from mini_docker.engine.execs import wait_for_reader
from mini_docker.engine.logs import follow_log, log_path, read_log
from mini_docker.engine.moments import moment
from mini_docker.engine.store import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from typing import Any, NamedTuple

    from mini_docker.engine.container import Container
    from mini_docker.engine.containers import Containers
    from mini_docker.engine.logs import Entry

    class LogsWanted(NamedTuple):
        """What a reader of logs asks for; times in nanoseconds since 1970, `tail` None for all."""

        stdout: bool
        stderr: bool
        follow: bool
        timestamps: bool
        since: int
        until: int
        tail: int | None
        details: bool = False

else:
    LogsWanted = namedtuple(
        "LogsWanted",
        ("stdout", "stderr", "follow", "timestamps", "since", "until", "tail", "details"),
        defaults=(False,),
    )


# %% notebooks/18b_streams.ipynb#attach
def attach(
    containers: Containers,
    container: Container,
    take: Callable[[], tuple[socket.socket, str]],
    wanted: dict[str, Any],
) -> socket.socket | None:
    """Hand a connection to the container's shim; before the start it is kept, and returned: `wait_for_start`.

    `take()` answers the client and returns its connection, with what it has typed already. It is called
    under the container's lock: whoever starts the container as soon as it has the answer finds the
    client here. `wanted`: stdin, stdout, stderr, stream, logs, keys. Raises Conflict for too many.
    """
    with container.lock:
        if len(container.clients) >= MOST_KEPT:
            raise Conflict(f"{MOST_KEPT} clients wait for the start of {container.id} already")
        connection, typed = take()
        containers.tell(container, "attach")
        wanted = {**wanted, "typed": typed}
        try:
            if container.alive:
                wait_for_reader(connection)
                fds = (connection.fileno(),)
                containers.ask(container, {"ask": "attach", **wanted}, fds).close()
            elif wanted.get("logs"):
                _send_logs(containers, container, connection, wanted)
        except OSError:
            pass  # it ended at this moment, or does not read: the connection is closed
        else:
            if wanted.get("stream") and not container.alive and not container.removed:
                container.clients.append((connection, wanted))
                return connection
        connection.close()
        return None


LOOK_SECONDS = 1.0
MOST_KEPT = 200  # one message takes all their descriptors to the shim: SCM_MAX_FD, unix(7)


def wait_for_start(container: Container, connection: socket.socket) -> None:
    """Wait until a start takes a kept client over, the container is removed, or the client goes away."""

    def taken() -> bool:
        return all(one is not connection for one, _ in container.clients)

    with container.lock:
        while not container.changed.wait_for(taken, LOOK_SECONDS):
            if vanished(connection):
                kept = [client for client in container.clients if client[0] is not connection]
                container.clients[:] = kept
                connection.close()


def vanished(connection: socket.socket) -> bool:
    """Say whether the other side has closed both ways: one that has only ended its input still reads."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _send_logs(
    containers: Containers, container: Container, connection: socket.socket, wanted: dict[str, Any]
) -> None:
    """Send what the log has; a client that does not read is let go, as others wait for the lock."""
    wait_for_reader(connection)
    connection.settimeout(PATIENCE)
    both = LogsWanted(
        bool(wanted.get("stdout")), bool(wanted.get("stderr")), False, False, 0, 0, None
    )
    send_logs(containers, container, both, connection.sendall, lambda: False)


def resize(containers: Containers, container: Container, rows: int, columns: int) -> None:
    """Set the size of a running container's terminal. Raises Conflict."""
    container.require_alive()
    try:
        containers.ask(container, {"ask": "resize", "rows": rows, "columns": columns}).close()
    except OSError:
        raise Conflict(f"Container {container.id} is not running") from None
    containers.tell(container, "resize", height=str(rows), width=str(columns))


# %% notebooks/18b_streams.ipynb#logs
def send_logs(
    containers: Containers,
    container: Container,
    wanted: LogsWanted,
    piece: Callable[[bytes], object],
    gone: Callable[[], bool],
) -> None:
    """Send a container's log as Docker does, in pieces, and follow it if that is wanted.

    Raises what `piece` raises.
    """
    path = log_path(containers.store.directory(container.id), container.id)
    batch = Batch(piece, wanted, not container.record["Config"].get("Tty"))
    news = _news_of(containers, container) if wanted.follow and container.alive else None
    if news is None:
        batch.add(read_log(path, wanted.tail))
    else:
        with news:
            exits = container.exits
            wait = functools.partial(_wait, batch, news, wanted.until, gone)
            batch.add(follow_log(path, wanted.tail, wait))
        with container.lock:  # who sees the end of the log may remove the container at once
            over = lambda: container.exits > exits or not container.alive or gone()  # noqa: E731
            container.changed.wait_for(over, 0 if wanted.until else 5.0)
    batch.flush()


class Batch:
    """Log entries on their way to a client: few large pieces, but nothing waits while we do."""

    def __init__(self, piece: Callable[[bytes], object], wanted: LogsWanted, framed: bool) -> None:
        """Send by `piece`."""
        self.piece, self.wanted, self.framed = piece, wanted, framed
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Send the entries that are wanted."""
        wanted = self.wanted
        streams = [name for name in ("stdout", "stderr") if getattr(wanted, name)]
        for entry in entries:
            if wanted.until and entry.at > wanted.until:
                continue  # and do not end: somebody may have set the clock back
            if entry.at >= wanted.since and entry.stream in streams:
                part = log_piece(entry, wanted.timestamps, wanted.details, self.framed)
                self.parts.append(part)
                self.size += len(part)
                if self.size > CHUNK:
                    self.flush()

    def flush(self) -> None:
        """Send what there is."""
        if self.parts:
            self.piece(b"".join(self.parts))
        self.parts, self.size = [], 0


def _news_of(containers: Containers, container: Container) -> socket.socket | None:
    """Return the connection over which the shim says that there is more; None where it has ended."""
    try:
        news = containers.ask(container, {"ask": "watch"})
    except OSError:
        return None
    news.settimeout(1.0)
    return news


def _wait(batch: Batch, news: socket.socket, until: int, gone: Callable[[], bool]) -> bool:
    """Wait for more of a log; return False when no more comes, or nobody wants it."""
    batch.flush()
    while True:
        if gone() or (until and time.time_ns() > until):
            return False
        try:
            return bool(news.recv(CHUNK))
        except TimeoutError:
            continue
        except OSError:
            return False


def log_piece(entry: Entry, timestamps: bool, details: bool, framed: bool) -> bytes:
    """Return a log entry as Docker sends it: framed unless there was a terminal."""
    data = b"%b %b" % (details_of(entry.attrs), entry.data) if details else entry.data
    data = f"{moment(entry.at)} ".encode() + data if timestamps else data
    return frame(entry.stream, data) if framed else data


@functools.lru_cache(16)
def details_of(attrs: bytes) -> bytes:
    """Return the attributes of a log's line as `docker logs --details` shows them: "a=1,b=x+y"."""
    pairs = sorted(json.loads(attrs or b"{}").items())
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs).encode()
