"""Real clients, changed in nothing but DOCKER_HOST: docker 20.10 and newer, the Python SDK."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import cannot_run_here
from tests.daemons import Daemon

pytestmark = [pytest.mark.root, pytest.mark.peers, pytest.mark.usefixtures("leak_free")]
DOCKERS = sorted(
    {path for path in ("/usr/bin/docker", shutil.which("docker")) if path and os.path.exists(path)}
)


def script(daemon: Daemon, text: str, *names: str) -> str:
    """Return what a shell script prints, stdout and stderr together, with DOCKER_HOST set."""
    for name in names:
        if shutil.which(name) is None:
            cannot_run_here(f"there is no {name} (remedy: labs/provision.sh --peers)")
    host = {"DOCKER_HOST": f"unix://{daemon.path}", "DOCKER_CONFIG": str(daemon.root / "config")}
    done = subprocess.run(
        ["bash", "-c", text], env={**os.environ, **host}, cwd=daemon.root,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    return done.stdout


LIFE = """
set -x
D=%s
$D run --rm --network none busybox echo hello; echo rc $?
$D run --network none --name one busybox sh -c 'echo out; echo err >&2; exit 3'; echo rc $?
echo typed | $D run -i --rm --network none busybox cat; echo rc $?
$D run --rm --network none busybox nosuch 2>/dev/null; echo rc $?
$D run --rm --network none busybox /etc/passwd 2>/dev/null; echo rc $?
$D logs one 2>/dev/null
$D ps -a --filter name=one --format '{{.Names}} {{.State}}'
$D run -d --network none --name two busybox sleep 1000 >/dev/null
$D exec two sh -c 'echo inside; exit 9'; echo rc $?
echo piped | $D exec -i two cat
$D cp two:/etc/passwd - | tar t
echo mine >mine; $D cp mine two:/tmp/; $D exec two cat /tmp/mine
$D diff two
$D commit two made >/dev/null; $D run --rm --network none made cat /tmp/mine
$D pause two; $D unpause two; $D rename two three
$D update -m 64m --memory-swap 128m three; $D inspect -f '{{.HostConfig.Memory}}' three
$D top three -o pid,comm | tail -1 | awk '{print $2}'
$D export three | tar t | grep -c bin/busybox
$D save made | $D load
$D stop -t 0 three; $D wait three; $D start three; $D kill three
$D rm one three; $D rmi made
$D volume create vol; $D volume rm vol
$D swarm ca; echo rc $?
$D nosuch 2>/dev/null; echo rc $?
"""


@pytest.mark.parametrize("docker", DOCKERS or ["docker"])
def test_the_docker_command(daemon: Daemon, docker: str) -> None:
    said = script(daemon, LIFE % docker, docker)
    shown = [line for line in said.splitlines() if not line.startswith("+")]
    expected = [
        "hello", "rc 0", "out", "err", "rc 3", "typed", "rc 0", "rc 127", "rc 126", "out", "one exited",
        "inside", "rc 9", "piped", "passwd", "mine", "C /tmp", "A /tmp/mine", "mine",
    ]  # fmt: skip
    assert [line for line in expected if line not in shown] == [], said
    for line in (
        "two",
        "three",
        "67108864",
        "sleep",
        "1",
        "Loaded image: made:latest",
        "Untagged: made:latest",
    ):
        assert line in shown, (line, said)
    assert "This node is not a swarm manager" in said
    assert shown.count("137") == 1, said


SDK = """
import time
import docker
client = docker.from_env()
assert client.ping()
assert client.containers.run("busybox", "echo sdk", network_mode="none") == b"sdk\\n"
more = {"detach": True, "name": "kept", "network_mode": "none", "labels": {"a": "b"}}
box = client.containers.run("busybox", "sleep 1000", **more)
# this SDK loses what comes together with an answer's head: it asks again
while (said := box.exec_run("echo ex")) != (0, b"ex\\n"):
    assert said == (0, b""), said
assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["kept"]
assert box.stats(stream=False)["pids_stats"]["current"] >= 1
assert "CMD" in box.top()["Titles"]
bits, stat = box.get_archive("/etc/passwd")
assert stat["name"] == "passwd" and sum(map(len, bits)) > 512
box.pause(); box.unpause(); box.rename("other"); box.reload()
assert box.name == "other"
while (out := box.exec_run("sh -c 'echo o; echo e >&2'", demux=True).output) != (b"o\\n", b"e\\n"):
    assert None in out, out
box.stop(timeout=0)
assert box.wait()["StatusCode"] == 137
box.remove()
try:
    client.containers.run("busybox", ["sh", "-c", "exit 3"], network_mode="none")
except docker.errors.ContainerError as error:
    assert error.exit_status == 3
try:
    client.containers.get("nosuch")
except docker.errors.NotFound as error:
    assert "No such container: nosuch" in str(error)
image = client.images.get("busybox")
image.tag("mine", "1"); client.images.remove("mine:1")
client.volumes.create("vol").remove()
events = client.events(since=1, until=int(time.time()) + 1, decode=True)
actions = [event["Action"] for event in events]
assert {"create", "start", "die", "destroy"} <= set(actions), actions
print("done", len(client.containers.prune()["ContainersDeleted"] or []))
"""


def test_the_python_sdk(daemon: Daemon) -> None:
    python = (
        "/usr/bin/python3"
        if os.path.exists("/usr/lib/python3/dist-packages/docker")
        else sys.executable
    )
    (daemon.root / "sdk.py").write_text(SDK)
    said = script(daemon, f"{python} sdk.py")
    if "No module named 'docker'" in said:
        cannot_run_here("there is no SDK (remedy: labs/provision.sh --peers)")
    assert said == "done 2\n", said
