# Exported from notebooks/18b_streams.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18b_streams.ipynb#routes-module
"""The routes that do not end with their answer: wait, attach, logs, resize."""

from __future__ import annotations

import json

from mini_docker.api.containers import found
from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.moments import point_in_time
from mini_docker.engine.streams import LogsWanted, attach, resize, send_logs, wait_for_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from mini_docker.api.routes import Call
    from mini_docker.engine.container import Container

RAW_STREAM = "application/vnd.docker.raw-stream"


# %% notebooks/18b_streams.ipynb#wait
def answer_wait(call: Call) -> None:
    """POST /containers/{id}/wait: the head at once, the exit code when there is one.

    A client may ask before the start, and starts only when it has seen the head.
    """
    container = found(call)
    condition = call.request.query.get("condition", "")
    begin = container.waiter(condition)
    piece = call.reply.stream_out("application/json")
    code = begin(call.reply.gone)
    if code is not None:
        answer = {"Error": None, "StatusCode": code}
        piece(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        call.reply.end()


# %% notebooks/18b_streams.ipynb#hijack
NAMED_KEYS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
DETACH_KEYS = "ctrl-p,ctrl-q"


def parse_keys(text: str, what: str = "detach") -> list[int]:
    """Return the bytes of "ctrl-p,ctrl-q" or "a,b". Raises HttpError in Docker's words."""
    found = []
    for key in text.split(","):
        last = key[-1:].lower()
        if len(key) == 1:
            found.append(ord(key) & 0xFF)
        elif key.startswith("ctrl-") and len(key) == 6 and (last in NAMED_KEYS or last.isalpha()):
            found.append(NAMED_KEYS.get(last, ord(last) - 96))
        else:
            raise HttpError(400, f"Invalid {what} keys ({text}) provided")
    return found


def attach_wanted(call: Call, container: Container) -> dict[str, Any]:
    """Return what a request to attach asks for. Raises HttpError."""
    request = call.request
    wanted: dict[str, Any] = {
        name: request.flag(name) for name in ("stdin", "stdout", "stderr", "logs", "stream")
    }
    if container.state["Status"] == "paused":
        words = "is paused, unpause the container before attach"
        raise HttpError(409, f"container {call.holes['id']} {words}")
    wanted["keys"] = parse_keys(request.query.get("detachKeys") or DETACH_KEYS)
    wanted["stdin"] = wanted["stdin"] and bool(container.record["Config"].get("OpenStdin"))
    return wanted


def answer_attach(call: Call) -> None:
    """POST /containers/{id}/attach: the connection becomes the container's streams."""
    request, container = call.request, found(call)
    wanted = attach_wanted(call, container)
    request.raw()

    def take() -> tuple[socket.socket, str]:
        stream, typed = call.reply.hijack(request.upgrades, False, RAW_STREAM)
        return call.engine.plain(stream), typed.decode("latin-1")

    if kept := attach(call.engine.containers, container, take, wanted):
        wait_for_start(container, kept)


def answer_resize(call: Call) -> None:
    """POST /containers/{id}/resize."""
    rows, columns = size(call)
    resize(call.engine.containers, found(call), rows, columns)
    call.reply.empty(200)


def size(call: Call) -> tuple[int, int]:
    """Return `h` and `w` of the query. Raises HttpError."""
    rows, columns = call.request.number("h"), call.request.number("w")
    if rows is None or columns is None:
        raise HttpError(400, 'strconv.Atoi: parsing "": invalid syntax')
    if not (0 <= rows < 65536 and 0 <= columns < 65536):
        raise HttpError(400, "a terminal has between 0 and 65535 rows and columns")
    return rows, columns


def answer_logs(call: Call) -> None:
    """GET /containers/{id}/logs."""
    request = call.request
    if not (request.flag("stdout") or request.flag("stderr")):  # before the container is looked for
        raise HttpError(400, "Bad parameters: you must choose at least one stream")
    container = found(call)
    wanted = LogsWanted(
        request.flag("stdout"),
        request.flag("stderr"),
        request.flag("follow"),
        request.flag("timestamps"),
        moment_of(request.query.get("since", "")),
        moment_of(request.query.get("until", "")),
        tail_of(request.query.get("tail", "")),
        request.flag("details"),
    )
    if (container.record["HostConfig"].get("LogConfig") or {}).get("Type") == "none":
        raise HttpError(501, "configured logging driver does not support reading")
    piece = call.reply.stream_out(None)
    send_logs(call.engine.containers, container, wanted, piece, call.reply.gone)
    call.reply.end()


def moment_of(text: str) -> int:
    """Return nanoseconds since 1970 of `since` or `until`; 0 where it says nothing. Raises HttpError."""
    if text in ("", "0"):
        return 0
    try:
        return point_in_time(text)
    except InvalidRequest:
        raise HttpError(400, f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def tail_of(text: str) -> int | None:
    """Return how many lines `tail` asks for, None for all; what is no number is all, as in Docker."""
    return int(text) if text.isdigit() else None


STREAM_ROUTES = (
    Route("POST", "/containers/{id}/wait", answer_wait, "Container"),
    Route("POST", "/containers/{id}/attach", answer_attach, "Container"),
    Route("POST", "/containers/{id}/resize", answer_resize, "Container"),
    Route("GET", "/containers/{id}/logs", answer_logs, "Container"),
)
