"""Two requests about one container at the same moment: both are answered, in words, and nothing stays.

MINI_DOCKER_SOAK=1000 (`make soak`) plays each pair thirty times, MINI_DOCKER_SEED begins elsewhere.
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.daemons import Daemon
from tests.system import until
from tests.test_daemon_oracle import SOAK
from tests.test_words import PYTHON

pytestmark = [pytest.mark.root, pytest.mark.anywhere]
ROUNDS = 30 if SOAK else 2
DELAYS = (0, 0, 0.002, 0.01, 0.03)  # seconds before a request is sent
CALLS: dict[str, tuple[Any, ...]] = {
    "start": ("POST", "/containers/box/start"),
    "stop": ("POST", "/containers/box/stop?t=0"),
    "kill": ("POST", "/containers/box/kill"),
    "restart": ("POST", "/containers/box/restart?t=0"),
    "pause": ("POST", "/containers/box/pause"),
    "remove": ("DELETE", "/containers/box?force=1"),
    "prune": ("POST", "/containers/prune"),
    "rename": ("POST", "/containers/box/rename?name=cab"),
    "update": ("POST", "/containers/box/update", {"Memory": 64 << 20, "MemorySwap": -1}),
    "connect": ("POST", "/networks/side/connect", {"Container": "box"}),
    "disconnect": ("POST", "/networks/side/disconnect", {"Container": "box", "Force": True}),
    "commit": ("POST", "/commit?container=box&repo=made"),
    "changes": ("GET", "/containers/box/changes"),
    "sizes": ("GET", "/containers/json?all=1&size=1"),
    "inspect": ("GET", "/containers/box/json"),
    "create": ("POST", "/containers/create?name=box", {"Image": "busybox", "Cmd": ["true"]}),
    "wait": ("POST", "/containers/box/wait?condition=removed"),
}
PAIRS = [
    ("start", "remove"), ("stop", "start"), ("restart", "kill"), ("restart", "remove"),
    ("rename", "remove"), ("update", "remove"), ("update", "restart"), ("connect", "remove"),
    ("connect", "stop"), ("disconnect", "stop"), ("commit", "remove"), ("changes", "remove"),
    ("sizes", "remove"), ("inspect", "remove"), ("remove", "remove"), ("prune", "start"),
    ("create", "remove"), ("exec", "stop"), ("exec", "remove"), ("remove", "wait"),
    ("pause", "stop"),
]  # fmt: skip
# What is answered with 500, as by Docker: it came too late.
TOO_LATE = ("cannot exec in a stopped container", "is not connected to")


def call(daemon: Daemon, name: str, delay: float) -> tuple[int, Any]:
    """Send one request after a while; return the answer to it."""
    time.sleep(delay)
    if name != "exec":
        return daemon.ask(*CALLS[name])
    wanted = {"Cmd": ["true"], "AttachStdout": True}
    status, answer = daemon.ask("POST", "/containers/box/exec", wanted)
    if status != 201:
        return status, answer
    return daemon.ask("POST", f"/exec/{answer['Id']}/start", {"Detach": True})


def left_of(daemon: Daemon) -> list[str]:
    """Return the files of containers that are there."""
    places = ("containers", "running", "names")
    return [f"{place}/{name}" for place in places for name in os.listdir(daemon.root / place)]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_at_once_are_both_answered_and_nothing_stays(
    daemon: Daemon, pair: tuple[str, str], leak_free: None
) -> None:
    dice = random.Random(f"{os.environ.get('MINI_DOCKER_SEED', '1')} {pair}")
    assert daemon.ask("POST", "/networks/create", {"Name": "side"})[0] == 201
    for turn in range(ROUNDS):
        host: dict[str, Any] = {"NetworkMode": "default" if turn % 2 else "none"}
        host |= dice.choice(({}, {"AutoRemove": True}, {"RestartPolicy": {"Name": "always"}}))
        if "wait" not in pair and "remove" in pair:
            host.pop("AutoRemove", None)
        daemon.create("box", "sleep", "1000", HostConfig=host)
        if "start" not in pair or dice.random() < 0.3:
            assert daemon.ask("POST", "/containers/box/start")[0] == 204
        with ThreadPoolExecutor(2) as pool:
            sent = [pool.submit(call, daemon, name, dice.choice(DELAYS)) for name in pair]
            answers = [one.result(240) for one in sent]
        for status, answer in answers:
            words = answer.get("message", "") if isinstance(answer, dict) else ""
            assert status < 500 or any(part in words for part in TOO_LATE), (host, answers)
            assert not PYTHON.search(words), words
        for one in daemon.ask("GET", "/containers/json?all=1")[1]:
            daemon.ask("DELETE", f"/containers/{one['Id']}?force=1")
        until(lambda: not left_of(daemon))
