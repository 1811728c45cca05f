"""commands.txt beside dockerd: files, logs, networks, health, policies, limits, and their exit codes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from tests.daemons import CLIENT
from tests.test_daemon_oracle import SOAK, differences, newer_client

pytestmark = [pytest.mark.root, pytest.mark.peers]

MORE = pathlib.Path(__file__).with_name("commands.txt").read_text(encoding="utf-8")


CLIENTS = [lambda: CLIENT, newer_client][: 2 if SOAK else 1]  # `make soak` has the minute for both


@pytest.mark.parametrize("client", CLIENTS, ids=["older", "newer"][: len(CLIENTS)])
def test_the_second_transcript_is_the_same(
    both: tuple[str, str], client: Callable[[], str]
) -> None:
    assert not (found := differences(both, MORE, client())), found
