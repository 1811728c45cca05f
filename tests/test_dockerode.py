"""dockerode, Node's client, drives our daemon: tests/dockerode/talk.js, step by step."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from mini_docker.namespaces.net import in_netns
from tests.conftest import ROOT, cannot_run_here
from tests.daemons import Daemon
from tests.registries import real

pytestmark = [pytest.mark.root, pytest.mark.peers, pytest.mark.usefixtures("leak_free")]
FOLDER = ROOT / "tests" / "dockerode"


def test_dockerode_says_all_it_can(daemon: Daemon) -> None:
    node = shutil.which("node")
    if node is None or not (FOLDER / "node_modules" / "dockerode").is_dir():
        cannot_run_here(
            "there is no dockerode (remedy: labs/provision.sh --peers, or npm ci --prefix tests/dockerode)"
        )
    registry = in_netns(daemon.netns_fd, real, daemon.root / "registry")
    try:
        done = subprocess.run(
            [node, str(FOLDER / "talk.js")], capture_output=True, text=True, timeout=600,
            env={**os.environ, "DOCKER_HOST": f"unix://{daemon.path}", "REGISTRY": registry.host},
        )  # fmt: skip
    finally:
        registry.stop()
    steps = re.findall(r"^  async (\w+) \(\)", (FOLDER / "talk.js").read_text(), re.M)
    assert done.stdout.splitlines() == [*steps, "create attach start die destroy"], done


def test_the_lock_file_names_no_host() -> None:
    lock = (FOLDER / "package-lock.json").read_text()
    assert "resolved" not in lock and "://" not in lock
    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/')
