"""labs/registry: a registry for a room, started by one command, and nothing left of it after another."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from mini_docker.lab.registry import TeachingRegistry, free_port, listens
from tests.conftest import ROOT, cannot_run_here

pytestmark = [pytest.mark.root, pytest.mark.anywhere]
COMMAND = str(ROOT / "labs" / "registry")


def call(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run labs/registry with a state directory of the test's own."""
    environment = {**os.environ, "MINI_DOCKER_ROOM": str(state)}
    return subprocess.run(
        [COMMAND, *words], capture_output=True, text=True, timeout=240, env=environment
    )


def pull(data_root: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Pull as a student would; the daemon that comes up for it ends again."""
    command = [str(ROOT / "labs" / "bin" / "mini_docker"), "--data-root", str(data_root)]
    environment = {**os.environ, "DOCKER_CONFIG": str(data_root / "docker")}
    try:
        return subprocess.run(
            [*command, "pull", name], capture_output=True, text=True, timeout=240, env=environment
        )
    finally:
        subprocess.run([*command, "reset"], capture_output=True, env=environment)


@pytest.mark.parametrize("careful", [False, True])
def test_a_room(careful: bool, tmp_path: Path) -> None:
    if not Path("/usr/bin/docker-registry").exists():
        cannot_run_here("there is no docker-registry (remedy: apt-get install docker-registry)")
    state = tmp_path / "room"
    words = ["--images", "busybox", *(["--tls", "--user", "ada"] if careful else [])]
    for _ in range(5):  # somebody else may take the port in between
        port = free_port()
        started = call(state, "start", "--port", str(port), *words)
        if "is taken" not in started.stderr:
            break
    try:
        assert started.returncode == 0, started.stderr
        assert f"127.0.0.1:{port}/busybox echo hello from the room" in started.stdout
        assert f"images: 127.0.0.1:{port}/busybox\n" in started.stdout
        done = pull(tmp_path / "data", f"127.0.0.1:{port}/library/busybox")
        assert (done.returncode == 0) is not careful, done.stderr
        if careful:
            assert "mini_docker login" in done.stderr
            assert re.search(r"login -u ada 127\.0\.0\.1:\d+ +# password: \S{12}", started.stdout)
    finally:
        stopped = call(state, "stop")
    assert stopped.stdout == "no registry runs; start one: labs/registry start\n"
    assert not state.exists() and not listens(port)
    assert not Path("/etc/mini_docker/certs.d", f"127.0.0.1:{port}").exists()


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    other = TeachingRegistry().start()
    port = other.host.partition(":")[2]
    try:
        for words, text in (
            (("--port", port), f"port {port} is taken; remedy: --port"),
            (
                ("--images", "windows"),
                "no image 'windows' can be made here; there are: busybox, debian",
            ),
        ):
            done = call(tmp_path / "room", "start", *words)
            assert done.returncode == 1 and text in done.stderr and not done.stdout, done
    finally:
        other.stop()
    assert call(tmp_path / "room", "stop").returncode == 0
