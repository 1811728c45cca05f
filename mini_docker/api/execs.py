# Exported from notebooks/18b_streams.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18b_streams.ipynb#execs-module
"""The routes of exec."""

from __future__ import annotations

from mini_docker.api.containers import found
from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route
from mini_docker.api.schemas import checked
from mini_docker.api.streams import DETACH_KEYS, RAW_STREAM, parse_keys, size
from mini_docker.engine.execs import NoSuchExec
from mini_docker.engine.orders import StartFailed
from mini_docker.engine.store import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.api.routes import Call
    from mini_docker.engine.execs import Exec


# %% notebooks/18b_streams.ipynb#execs
def exec_create(call: Call) -> None:
    """POST /containers/{id}/exec."""
    container = found(call)
    body = checked(call.request.json(), "ExecCreate")
    if isinstance(body.get("Cmd"), str):
        body["Cmd"] = [body["Cmd"]]
    parse_keys(body.get("DetachKeys") or DETACH_KEYS, "escape")
    call.reply.send_json(201, {"Id": call.engine.execs.create(container, body).id})


def exec_start(call: Call) -> None:
    """POST /exec/{id}/start: the connection becomes the process's streams, unless it is detached."""
    body = checked(call.request.json(), "ExecStart")
    one = call.engine.execs.find(call.holes["id"])
    console = body.get("ConsoleSize") or one.request.get("ConsoleSize") or [0, 0]
    if body.get("Detach"):
        call.engine.execs.start(one, None, {}, console)
        call.reply.empty(200)
        return
    if not one.started:
        call.engine.execs.check_start(one)
    _attached(call, one, console, framed=not body.get("Tty"))


def _attached(call: Call, one: Exec, console: list[int], framed: bool) -> None:
    """Hand the connection over; whether it is framed is this request's to say, as in Docker."""
    wanted: dict[str, Any] = {
        "framed": framed,
        "stdin": bool(one.request.get("AttachStdin")),
        "stdout": bool(one.request.get("AttachStdout")),
        "stderr": bool(one.request.get("AttachStderr")),
        "keys": parse_keys(one.request.get("DetachKeys") or DETACH_KEYS),
    }
    stream, typed = call.reply.hijack(call.request.upgrades, True, RAW_STREAM)
    with call.engine.plain(stream) as connection:
        try:
            wanted["typed"] = typed.decode("latin-1")
            call.engine.execs.start(one, connection, wanted, console)
        except (Conflict, NoSuchExec, StartFailed) as error:
            call.engine.execs.attach_error(one, connection, error)


def exec_show(call: Call) -> None:
    """GET /exec/{id}/json."""
    call.reply.send_json(200, call.engine.execs.find(call.holes["id"]).view())


def exec_resize(call: Call) -> None:
    """POST /exec/{id}/resize."""
    rows, columns = size(call)
    one = call.engine.execs.find(call.holes["id"])
    try:
        call.engine.execs.resize(one, rows, columns)
    except Conflict:
        words = "no such exec" if one.container.alive else f"No such exec instance: {one.id}"
        raise HttpError(404, words) from None
    call.reply.empty(200)


EXEC_ROUTES = (
    Route("POST", "/containers/{id}/exec", exec_create, "Exec"),
    Route("POST", "/exec/{id}/start", exec_start, "Exec"),
    Route("GET", "/exec/{id}/json", exec_show, "Exec"),
    Route("POST", "/exec/{id}/resize", exec_resize, "Exec"),
)
