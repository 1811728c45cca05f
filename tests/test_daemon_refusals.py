"""What is refused, and in which words: each line of refusals.txt to dockerd and to ours.

What a create takes is removed again, and its warnings are compared. docs/differences.md says why ours
answers 400 to some that Docker answers 500 to, and refuses some that Docker takes. Most containers are of
an empty image: dockerd here copies a whole image for each of them.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from mini_docker.api.table import TABLE
from tests.daemons import Daemon, Dockerd
from tests.described import operation
from tests.system import until

pytestmark = pytest.mark.root

TEXT = pathlib.Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8")
SAME, SOONER, OTHER_WORDS, STARTS, WRITTEN = (
    [line for line in part.splitlines()[1:] if line and not line.startswith("#")]
    for part in TEXT.split("\n= ")
)
PLAYED = {*SAME, *SOONER, *OTHER_WORDS}
DOCUMENTED = pathlib.Path(__file__).with_name("documented.txt").read_text(encoding="utf-8")
BASE = {"Image": "tiny", "Cmd": ["true"]}
EMPTY_TAR = bytes(10240)
PUBLISHED = {"NetworkMode": "net", "PortBindings": {"80/tcp": [{"HostPort": "38082"}]}}
# name, image, command, whether it is started, HostConfig
CONTAINERS: list[tuple[str, str, str, bool, dict[str, Any]]] = [
    ("made", "tiny", "true", False, {}),
    ("none", "tiny", "true", False, {}),
    ("auto", "tiny", "true", False, {"AutoRemove": True}),
    ("nolog", "tiny", "true", False, {"LogConfig": {"Type": "none"}}),
    ("run", "busybox", "sleep 1000", True, {**PUBLISHED, "Binds": ["used:/u"]}),
    ("paused", "busybox", "sleep 1000", True, {}),
    ("bad", "tiny", "nosuch", False, {}),
    ("badplace", "tiny", "/etc", False, {}),
    ("port", "busybox", "true", False, PUBLISHED),
    ("left", "busybox", "sleep 1000", True, {}),
    ("ro", "tiny", "true", False, {"ReadonlyRootfs": True}),
]


def make(daemon: Daemon) -> dict[str, str]:
    """Have on a daemon what the lines name; return the ids of execs by their names there."""
    assert daemon.ask("POST", "/images/create?fromSrc=-&repo=tiny", EMPTY_TAR)[0] == 200
    lan = {"Name": "net", "IPAM": {"Config": [{"Subnet": "10.99.0.0/24"}]}}
    assert daemon.ask("POST", "/networks/create", lan)[0] == 201
    assert daemon.ask("POST", "/volumes/create", {"Name": "used"})[0] == 201
    for name, image, command, starts, host in CONTAINERS:
        made = daemon.run if starts else daemon.create
        made(name, *command.split(), Image=image, HostConfig=host)
    execs = {}
    for name, container in (("RAN", "run"), ("LEFT", "left"), ("STILL", "paused")):
        made_one = daemon.ask("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})
        execs[name] = made_one[1]["Id"]
    assert daemon.ask("POST", f"/exec/{execs['RAN']}/start", {"Detach": True})[0] == 200
    until(lambda: daemon.ask("GET", f"/exec/{execs['RAN']}/json")[1]["ExitCode"] == 0)
    assert daemon.ask("POST", "/containers/left/kill")[0] == 204
    assert daemon.ask("POST", "/containers/left/wait")[0] == 200
    assert daemon.ask("POST", "/containers/paused/pause")[0] == 204
    return execs


def parts(line: str) -> tuple[str, str, bytes | None]:
    """Return a line's method, path and body; a body begins after the first space outside of a query."""
    found = re.fullmatch(r"(\w+) ([^ ]+)(?: (.*))?", line)
    assert found, line
    method, path, body = found.groups()
    if path.startswith("/containers/create") and re.fullmatch(r"\{.*\}", body or ""):
        body = json.dumps({**BASE, **json.loads(body)})
    place, mark, query = path.partition("?")
    prefix = "" if place.startswith("/v1.") else "/v1.41"
    path = f"{prefix}{place}{mark}{quote(query, safe='=&%/:-')}"
    return method, path, body.encode() if body else None


EXEC = re.compile(r"\b(RAN|LEFT|STILL)\b")


def said(daemon: Daemon, line: str, execs: dict[str, str]) -> tuple[int, str]:
    """Return the status of a line, and the message, or the warnings of what was taken (and is gone again)."""
    method, path, body = parts(EXEC.sub(lambda name: execs[name[0]], line))
    status, answer = daemon.ask(method, path, body)
    found = answer if isinstance(answer, dict) else {}
    if status == 201 and "Id" in found:
        daemon.ask("DELETE", f"/{path.split('/')[2]}/{found['Id']}?v=1")
    if status == 201 and "Mountpoint" in found:
        daemon.ask("DELETE", f"/volumes/{found['Name']}")
    return status, sentence(answer)


def sentence(answer: Any) -> str:
    """Return the message or the warnings of an answer, without what differs between two daemons."""
    found = answer if isinstance(answer, dict) else {"message": answer}
    words = str(found.get("message") or " ".join(found.get("Warnings") or ())).strip()
    words = re.sub(r"\b[0-9a-f]{64}\b", "ID", words)
    words = re.sub(r"\b[0-9a-f]{12}\b", "SHORT", words)
    # a name that is none is named here
    return re.sub(r"(no such image: .*: )?invalid (reference|tag) format.*", "no name", words)


def said_at_start(daemon: Daemon, line: str) -> tuple[int, str]:
    """Return the status and the message of the start of what a create took."""
    body = {**BASE, **json.loads(line)}
    assert daemon.ask("POST", "/v1.41/containers/create?name=late", body)[0] == 201, line
    status, answer = daemon.ask("POST", "/v1.41/containers/late/start")
    daemon.ask("DELETE", "/containers/late?force=1")
    return status, sentence(answer)


def answers(daemon: Daemon) -> dict[str, tuple[int, str]]:
    """Return what a daemon says to every line."""
    execs = make(daemon)
    found = {line: said_at_start(daemon, line) for line in STARTS}
    return found | {line: said(daemon, line, execs) for line in [*SAME, *SOONER, *OTHER_WORDS]}


def unmade(answers: Iterable[tuple[str, tuple[int, str]]]) -> list[str]:
    """Return what Docker documents and no line has made."""
    made = set()
    for line, (status, _) in answers:
        method, path, _ = (
            parts(line) if line in PLAYED else ("POST", "/containers/late/start", None)
        )
        if found := operation(method, path):
            made.add(f"{method} {found[0]} {status}")
    wanted = [
        line.split() for line in DOCUMENTED.splitlines() if line[:1] not in "#" and ":" not in line
    ]
    every = {
        f"{method} {path} {status}" for method, path, *statuses in wanted for status in statuses
    }
    return sorted(every - made)


@pytest.mark.peers
def test_what_is_refused_is_refused_in_dockers_words(
    daemon: Daemon, dockerd: Dockerd, both: tuple[str, str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        found, wanted = pool.map(answers, (daemon, dockerd))
    differing = [
        f"{line}\n  dockerd {wanted[line]}\n  ours    {found[line]}"
        for line in [*STARTS, *SAME]
        if found[line] != wanted[line] and found[line] != (400, wanted[line][1])
    ]
    differing += [f"{line}: {found[line]}" for line in SOONER if found[line][0] != 400]
    differing += [f"{line}: {found[line]}" for line in OTHER_WORDS if found[line][0] < 400]
    differing += [f"{line}: dockerd {wanted[line]}" for line in SOONER if wanted[line][0] >= 300]
    assert not differing, "\n".join(differing)
    assert unmade([*found.items(), *wanted.items()]) == []


def test_every_operation_is_documented_or_ours() -> None:
    """Whoever adds a route says in documented.txt what else it answers than success."""
    lines = [line for line in DOCUMENTED.splitlines() if not line.startswith("#")]
    named = {" ".join(line.split()[:2]) for line in lines}
    assert named == {f"{route.method} {route.path}" for route in TABLE.routes}


def test_what_dockerd_cannot_be_asked_here_is_refused_in_its_words(daemon: Daemon) -> None:
    execs = make(daemon)
    wanted = dict(zip(WRITTEN[::2], map(str.strip, WRITTEN[1::2]), strict=True))
    found = {line: " ".join(map(str, said(daemon, line, execs))) for line in wanted}
    assert found == wanted
