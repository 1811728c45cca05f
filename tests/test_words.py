"""Whatever is wrong in a request or a flag, no answer speaks of Python, nor writes as it does.

Of the values each field meets one by default; MINI_DOCKER_SOAK=1000 (`make soak`) has it meet all.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import mini_docker.engine.shim as shim_module
from mini_docker.engine.accidents import SENTENCE
from mini_docker.engine.views import CONFIG_DEFAULTS, HOST_DEFAULTS
from tests.daemons import CLIENT, Daemon, UnixConnection
from tests.system import COMMAND
from tests.test_daemon_oracle import SOAK

pytestmark = [pytest.mark.root, pytest.mark.anywhere]
PYTHON = re.compile(
    r"\b\w*(Error|Exception|Warning)\b:|\[Errno|Traceback|<class|NoneType|codec can't|invalid literal"
    r"|'(str|int|dict|list)'|has no attribute|unpack|(?<![\w=])b'|\bNone\b" + f"|{SENTENCE}"
)
MORE = (
    "Mounts",
    "Tmpfs",
    "Sysctls",
    "StorageOpt",
    "Init",
    "Annotations",
    "MaskedPaths",
    "ReadonlyPaths",
)
OF_CONFIG = ("Healthcheck", "StopSignal", "StopTimeout", "Shell", "MacAddress", "ExposedPorts")
FIELDS = [
    *(("HostConfig", key) for key in (*HOST_DEFAULTS, *MORE)),
    *(("", key) for key in (*CONFIG_DEFAULTS, *OF_CONFIG) if key not in ("Image", "Cmd")),
]
VALUES: tuple[Any, ...] = (
    "x", "\\ud800", "é", -1, 2**40, 2**63 - 1, 1.5, None, ["x"], [""], [None], {"x": "y"}, {"": ""},
    {"x": None}, [{}], ["a\0b"], "a\0b", "a" * 70000, ["a=b"], {"80/tcp": [{"HostPort": "x"}]},
    [{"Name": "nofile", "Hard": 2**62, "Soft": 5}], [{"Name": "nproc", "Hard": 1, "Soft": 5}],
    [{"Name": "x"}], {"Name": "always", "MaximumRetryCount": -1}, [{"Path": "/dev/null", "Weight": 5}],
    [{"Type": "bind"}],
)  # fmt: skip


def answer(daemon: Daemon, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Return the status and the text; fields that nobody has described may come back."""
    connection = UnixConnection(daemon.path)
    try:
        text = json.dumps(body).replace("\\\\ud800", "\\ud800") if body else None
        connection.request(method, path, text, {"Content-Type": "application/json"})
        found = connection.getresponse()
        return found.status, found.read().decode()
    finally:
        connection.close()


def walk(daemon: Daemon, number: int, where: str, key: str, value: Any) -> list[str]:
    """Create, start, show, list and remove a container with one wrong value; return what speaks of Python."""
    body: dict[str, Any] = {
        "Image": "busybox",
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none"},
    }
    (body[where] if where else body)[key] = value
    name = f"walk{number}"
    said = [answer(daemon, "POST", f"/containers/create?name={name}", body)]
    if said[0][0] == 201:
        said.append(answer(daemon, "POST", f"/containers/{name}/start"))
        status, text = answer(daemon, "GET", f"/containers/{name}/json")
        error = json.loads(text)["State"]["Error"] if status == 200 else text
        said += [(status, error), answer(daemon, "DELETE", f"/containers/{name}?force=1&v=1")]
    wrong = [text for _, text in said if PYTHON.search(text)]
    return [f"{where}.{key} = {str(value)[:60]}: {text[:300]}" for text in wrong]


def test_what_is_very_long_can_be_refused_and_removed(daemon: Daemon) -> None:
    """A message of the shim, a group's path: each has an end."""
    long = "a" * 70000
    found = walk(daemon, 0, "", "Entrypoint", long) + walk(
        daemon, 1, "HostConfig", "CgroupParent", long
    )
    assert not found
    assert answer(daemon, "GET", "/containers/json?all=1")[1].strip() == "[]"


def test_no_answer_speaks_of_python(daemon: Daemon) -> None:
    picked = [
        (index, where, key, value)
        for index, (where, key) in enumerate(FIELDS)
        for value in (VALUES if SOAK else [VALUES[index % len(VALUES)]])
    ]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(walk, daemon, n, *job[1:]) for n, job in enumerate(picked)]
        found = [text for job in jobs for text in job.result()]
    assert not found, "\n".join(found)
    status, text = answer(daemon, "GET", "/containers/json?all=1")
    assert (status, text.strip()) == (200, "[]")


def test_an_exec_that_comes_too_late_is_told_without_a_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Its container ends at that moment: the shim's first word is the kernel's."""
    said: list[bytes] = []

    def end(*_: object) -> None:
        raise SystemExit

    def too_late(*_: object) -> None:
        raise ProcessLookupError(3, "setns: No such process")

    for name, stand_in in (("_say", lambda line, word: said.append(word)), ("_run", too_late)):
        monkeypatch.setattr(shim_module, name, stand_in)
    for name in ("setsid", "dup2", "chdir"):
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(shim_module, "set_process_name", lambda name: None)
    monkeypatch.setattr(os, "_exit", end)
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(SystemExit):
        shim_module.shim({}, str(tmp_path), ["lifeline"], [theirs.detach()])
    assert json.loads(said[0])["error"] == "setns: No such process"


FLAGS = (
    "--ulimit=nofile=-1", "--ulimit=nproc=99999999999999999999", "--ulimit=core=²", "--shm-size=a=b",
    "--sysctl=kernel.msgmax=x", "--user=a:b:c", "--tmpfs=/x:size=nan", "--log-opt=max-file=²",
    "--restart=on-failure:x",
)  # fmt: skip


@pytest.mark.parametrize("client", [CLIENT, COMMAND], ids=["docker", "ours"])
def test_no_flag_makes_a_client_speak_of_python(daemon: Daemon, client: str) -> None:
    def run(flag: str) -> str:
        words = [client, "-H", f"unix://{daemon.path}", "run", "--rm", "--network=none", flag]
        done = subprocess.run(
            [*words, "busybox", "true"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 125, (flag, done)
        return done.stdout + done.stderr

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(run, FLAGS))
    assert not [text for text in said if PYTHON.search(text)]
    assert "limit RLIMIT_NOFILE: operation not permitted" in said[0]
    assert not [line for line in daemon.words().splitlines() if "unexpected" in line]
