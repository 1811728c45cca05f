"""Every operation answers as /openapi.json describes it; `Daemon.ask` looks at each answer of all tests."""

from __future__ import annotations

import time

import pytest

from tests.daemons import Daemon
from tests.described import description
from tests.test_daemon_shapes import REQUESTS

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]

ELSEWHERE = {  # what needs a registry, a terminal or a raw stream has tests of its own
    "POST /auth", "GET /distribution/{name}/json", "GET /images/search", "POST /images/create",
    "POST /images/{name}/push", "GET /containers/{id}/attach/ws", "POST /exec/{id}/resize",
    "POST /containers/{id}/resize", "PUT /containers/{id}/archive", "POST /images/load",
}  # fmt: skip
MORE = [
    ("POST", "/containers/create?name=one", {"Image": "busybox", "Cmd": ["sleep", "1000"]}),
    ("POST", "/containers/one/explain", None),
    ("POST", "/containers/one/pause", None),
    ("POST", "/containers/one/unpause", None),
    ("POST", "/containers/one/rename?name=two", None),
    ("POST", "/containers/two/start", None),
    ("POST", "/containers/two/restart?t=0", None),
    ("GET", "/containers/two/logs?stdout=1", None),
    ("POST", "/containers/two/exec", {"Cmd": ["true"]}),
    ("POST", "/exec/EXEC/start", {"Detach": True}),
    ("GET", "/exec/EXEC/json", None),
    ("HEAD", "/containers/two/archive?path=/etc", None),
    ("GET", "/containers/two/archive?path=/etc/passwd", None),
    ("GET", "/containers/two/export", None),
    ("POST", "/containers/two/kill", None),
    ("POST", "/containers/two/attach?logs=1&stdout=1", None),
    ("POST", "/networks/create", {"Name": "lan"}),
    ("POST", "/networks/lan/connect", {"Container": "two"}),
    ("POST", "/networks/lan/disconnect", {"Container": "two"}),
    ("POST", "/images/busybox/tag?repo=other", None),
    ("GET", "/images/get?names=other", None),
    ("GET", "/images/other/get", None),
    ("DELETE", "/images/other", None),
    ("HEAD", "/_ping", None),
    ("GET", "/_ping", None),
    ("GET", "/openapi.json", None),
    ("GET", "/networks", None),
]  # fmt: skip


def test_every_operation_answers_as_described(daemon: Daemon) -> None:
    """All that can be answered is asked once; what is not described, or missing, is an error."""
    asked = [*REQUESTS, *MORE, ("GET", f"/events?since=1&until={time.time()}", None)]
    exec_id = ""
    daemon.answered.clear()
    for method, path, body in asked:
        status, answer = daemon.ask(method, path.replace("EXEC", exec_id), body)
        if path.endswith("/exec"):
            exec_id = answer["Id"]
    described = {
        f"{method.upper()} {path}"
        for path, methods in description()["paths"].items()
        for method, operation in methods.items()
        if operation["responses"].keys() != {"default"}
    }
    done = {where for where, status in daemon.answered if status < 400}
    assert described - done - ELSEWHERE == set()
    assert done - {""} <= described
