"""commands.txt beside dockerd: files, logs, networks, health, policies, limits, and their exit codes."""

from __future__ import annotations

import difflib
import pathlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.test_daemon import Daemon
from tests.test_daemon_oracle import CLIENT, dockerd, play  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.root, pytest.mark.peers]

MORE = pathlib.Path(__file__).with_name("commands.txt").read_text(encoding="utf-8")


def test_the_second_transcript_is_the_same(dockerd: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ours").mkdir()
    daemon = Daemon(tmp_path / "ours")
    try:
        ours = f"unix://{daemon.path}"
        archive = str(tmp_path / "busybox.tar")
        subprocess.run([CLIENT, "-H", ours, "save", "-o", archive, "busybox"], check=True)
        subprocess.run(
            [CLIENT, "-H", dockerd, "load", "-qi", archive], check=True, capture_output=True
        )
        with ThreadPoolExecutor(2) as pool:
            found, wanted = pool.map(play, (ours, dockerd), (MORE, MORE))
    finally:
        daemon.close()
    assert found == wanted, "\n".join(difflib.unified_diff(wanted, found, "dockerd", "ours", n=1))
