"""The same requests to dockerd and to ours: status, fields and types of all answers, and all events.

Values differ between two daemons, so they are not compared; what a field may be (null, list, object, text,
number) is. DIFFERENT says which fields are not the same, and docs/differences.md says why.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from difflib import unified_diff
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import pytest

from tests.daemons import Daemon, Dockerd, UnixConnection
from tests.system import until

pytestmark = [pytest.mark.root, pytest.mark.peers]

MINUTE = {
    "Image": "busybox", "Cmd": ["sleep", "1000"], "Volumes": {"/v": {}}, "ExposedPorts": {"90/udp": {}},
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000}, "Labels": {"a": "b"},
    "HostConfig": {
        "PortBindings": {"80/tcp": [{"HostPort": "38080"}]}, "Binds": ["/tmp:/bound:ro"],
        "Mounts": [{"Type": "volume", "Source": "vv", "Target": "/vv"}, {"Type": "tmpfs", "Target": "/t"}],
    },
}  # fmt: skip
NONE = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
Requests: TypeAlias = list[tuple[str, str, Any]]
REQUESTS: Requests = [
    ("GET", "/version", None),
    ("GET", "/info", None),
    ("GET", "/images/json", None),
    ("GET", "/images/busybox/json", None),
    ("GET", "/images/busybox/history", None),
    ("POST", "/containers/create?name=none", NONE),
    ("GET", "/containers/none/json", None),
    ("POST", "/containers/none/start", None),
    ("GET", "/containers/none/json?size=1", None),
    ("GET", "/containers/none/top", None),
    ("GET", "/containers/none/changes", None),
    ("GET", "/containers/none/stats?stream=0&one-shot=1", None),
    ("POST", "/containers/create?name=more", MINUTE),
    ("GET", "/containers/more/json", None),
    ("POST", "/containers/more/start", None),
    ("GET", "/containers/json?size=1", None),
    ("GET", "/containers/more/stats?stream=0", None),
    ("GET", "/networks/bridge", None),
    ("GET", "/networks/host", None),
    ("GET", "/volumes", None),
    ("GET", "/volumes/vv", None),
    ("POST", "/networks/create", {"Name": "net", "Labels": {"a": "b"}}),
    ("GET", "/networks/net", None),
    ("POST", "/networks/net/connect", {"Container": "more", "EndpointConfig": {"Aliases": ["x"]}}),
    ("GET", "/networks/net", None),
    ("POST", "/containers/more/exec", {"Cmd": ["sleep", "5"], "AttachStdout": True}),
    ("GET", "/containers/more/json", None),
    ("GET", "/system/df", None),
    ("POST", "/containers/more/update", {"Memory": 100_000_000, "MemorySwap": -1}),
    ("POST", "/containers/more/update", {"CpuShares": "many"}),
    ("POST", "/containers/more/stop?t=0", None),
    ("GET", "/containers/more/json", None),
    ("GET", "/containers/more/stats?stream=0", None),
    ("GET", "/containers/json?all=1", None),
    ("POST", "/commit?container=more&repo=made&tag=1&comment=c&author=a", {}),
    ("GET", "/images/made:1/json", None),
    ("GET", "/images/made:1/history", None),
    ("DELETE", "/images/made:1", None),
    ("POST", "/containers/more/wait", None),
    ("DELETE", "/containers/more?v=1", None),
    ("DELETE", "/networks/net", None),
    ("POST", "/containers/prune", None),
    ("POST", "/volumes/prune", None),
    ("POST", "/volumes/prune", None),
    ("POST", "/networks/prune", None),
    ("POST", "/images/prune", None),
    ("POST", "/build/prune", None),
    ("POST", "/volumes/create", {}),
    ("POST", "/volumes/create", {"Name": "named", "Labels": {"a": "b"}}),
    ("DELETE", "/volumes/named", None),
    ("GET", "/swarm", None),
    ("GET", "/plugins", None),
    ("DELETE", "/containers/none?force=1", None),
]  # fmt: skip
VOLUME = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["vol:/v"]}}
LIFE: Requests = [
    ("POST", "/containers/create?name=bad", {**VOLUME, "Cmd": ["nosuch"]}),
    ("POST", "/containers/bad/start", None),
    ("HEAD", "/containers/bad/archive?path=/v", None),
    ("GET", "/containers/bad/archive?path=/v", None),
    ("PUT", "/containers/bad/archive?path=/v", bytes(1024)),
    ("GET", "/containers/bad/export", None),
    ("POST", "/containers/create?name=life", VOLUME),
    ("POST", "/containers/life/start", None),
    ("GET", "/containers/life/archive?path=/etc", None),
    ("POST", "/containers/life/pause", None),
    ("POST", "/containers/life/unpause", None),
    ("POST", "/containers/life/rename?name=other", None),
    ("POST", "/containers/other/resize?h=10&w=20", None),
    ("POST", "/containers/other/kill?signal=CONT", None),
    ("POST", "/containers/other/restart?t=0", None),
    ("POST", "/containers/other/kill", None),
    ("POST", "/containers/other/wait", None),
    ("POST", "/networks/create", {"Name": "net"}),
    ("POST", "/networks/net/connect", {"Container": "other"}),
    ("POST", "/networks/net/disconnect", {"Container": "other"}),
    ("DELETE", "/networks/net", None),
    ("POST", "/images/busybox/tag?repo=named", None),
    ("GET", "/images/named/get", None),
    ("GET", "/images/get?names=named", None),
    ("DELETE", "/images/named", None),
    ("DELETE", "/volumes/vol", None),
    ("DELETE", "/containers/other?force=1", None),
    ("DELETE", "/containers/bad", None),
    ("DELETE", "/volumes/vol", None),
]
DIFFERENT = (
    r"/info.*\.(DriverStatus|Runtimes|Plugins\.(Log|Network))",
    r"/json.*\.GraphDriver\.Data",
    r"\.memory_stats\.stats",  # what the kernel of this machine counts
    r"/stats.*\.(percpu_usage|io_service.*|sectors.*|io_.*)",
    r"\.Ports",  # no [::] without an IPv6 address
    r"\.Health\.Log",
    r"history.*\.Tags",
    r"update status",  # a wrong type is 400 here
    r"/networks/bridge.*\.Gateway",  # dockerd says it only with its rules
    r"DELETE /images/made:1",
    r"top.*\.Processes",
    r"\.CacheDiskUsage",
)


def kind(value: Any) -> str:
    """Return what a value is; an empty list or object is one too."""
    kinds = {
        dict: "object",
        list: "list",
        str: "text",
        bool: "truth",
        int: "number",
        float: "number",
    }
    return kinds.get(type(value), "null")


def places(value: Any, where: str) -> dict[str, str]:
    """Return every place in an answer and what stands there; ids and names of our making are one."""
    found = {where: kind(value)}
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= places(inner, f"{where}.{re.sub('^[0-9a-f]{64}$', 'ID', key)}")
    elif isinstance(value, list):
        for inner in value:
            found |= places(inner, f"{where}[]")
    return found


def answers(daemon: Daemon, requests: Requests) -> dict[str, str]:
    """Return the shapes of all answers, by request and place."""
    found = {}
    for number, (method, path, body) in enumerate(requests):
        if path.startswith("/containers/json?size"):
            wait_for_health(daemon)
        status, answer = daemon.ask(method, f"/v1.41{path}", body)
        where = f"{number:02} {method} {path}"
        found[f"{where} status"] = str(status)
        found |= places(answer, where)
    return found


def wait_for_health(daemon: Daemon) -> None:
    until(lambda: daemon.state("more")["Health"]["Status"] != "starting")


UNTIMED = ("exec_", "health_status")  # of health checks: how many there are is the clock's


def watched(daemon: Daemon, requests: Requests) -> tuple[dict[str, str], list[str]]:
    """Return the answers of a daemon and what happened meanwhile, as it says while it happens.

    It says so from a moment on: dockerd sends the head of its answer before it begins to listen itself.
    """
    connection = UnixConnection(daemon.path)
    connection.request("GET", f"/events?since={time.time():.6f}")
    with ThreadPoolExecutor(1) as pool, closing(connection):
        heard = pool.submit(listen, connection.getresponse())
        found = answers(daemon, requests)
        daemon.ask("POST", "/volumes/create", {"Name": END})
        return found, heard.result()


END = "the-end"


def listen(stream: Iterable[bytes]) -> list[str]:
    """Return the events up to the END as lines; volumes of one container may come in any order."""
    lines = []
    for event in map(json.loads, stream):
        actor, words = event["Actor"], (event["Type"], event["Action"], event["scope"])
        if actor["ID"] == END:
            break
        if not event["Action"].startswith(UNTIMED):
            about = sorted(actor["Attributes"].items())
            line = f"{words} {actor['ID']} {about} {event.get('from')}"
            lines.append((words, re.sub(r"\b[0-9a-f]{64}\b", "ID", line)))
    runs = [{line for _, line in run} for _, run in groupby(lines, itemgetter(0))]
    return [line for run in runs for line in sorted(run)]


@pytest.mark.parametrize("requests", [REQUESTS, LIFE], ids=["objects", "life"])
def test_every_answer_has_the_same_shape(
    daemon: Daemon, dockerd: Dockerd, both: tuple[str, str], requests: Requests
) -> None:
    wanted, wanted_events = watched(dockerd, requests)
    found, found_events = watched(daemon, requests)
    differing = [
        f"{place}: dockerd {wanted.get(place)}, ours {found.get(place)}"
        for place in sorted(wanted.keys() | found.keys())
        if wanted.get(place) != found.get(place)
        and not any(re.search(pattern, place) for pattern in DIFFERENT)
    ]
    assert not differing, json.dumps(differing, indent=1)
    assert found_events == wanted_events, "\n".join(unified_diff(wanted_events, found_events, n=2))
