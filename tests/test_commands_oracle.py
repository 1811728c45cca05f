"""commands.txt beside dockerd: files, logs, networks, health, policies, limits, and their exit codes."""

from __future__ import annotations

import difflib
import pathlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.test_daemon_oracle import play

pytestmark = [pytest.mark.root, pytest.mark.peers]

MORE = pathlib.Path(__file__).with_name("commands.txt").read_text(encoding="utf-8")


def test_the_second_transcript_is_the_same(both: tuple[str, str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        found, wanted = pool.map(play, both, (MORE, MORE))
    assert found == wanted, "\n".join(difflib.unified_diff(wanted, found, "dockerd", "ours", n=1))
