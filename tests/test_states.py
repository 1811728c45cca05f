"""Words: of signals, and of shims that have none."""

from __future__ import annotations

import socket

import pytest

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.moments import duration
from mini_docker.engine.orders import StartFailed, first_word
from mini_docker.engine.states import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("sigterm", 15),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmax-14", 50),
        ("SIGRTMAX", 64),
    ],
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-9", "NONSENSE", "RTMIN+16", "RTMIN-1", "RTMAX+1", "KILL+1", "_DFL"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^Invalid signal: {text.replace('+', '.')}$"):
        parse_signal(text)


@pytest.mark.parametrize("what", ["create failed", "exec failed"])
def test_a_shim_that_was_killed_before_its_first_word_failed_to_start(what: str) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    its.close()
    with pytest.raises(StartFailed, match="the shim died in set-up: unknown$") as failure:
        first_word(ours, what)
    assert (failure.value.code, failure.value.about_command) == (128, False)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (7_200_000_000_000, "2h0m0s"),
    ],
)
def test_durations_are_written_as_go_does(length: int, text: str) -> None:
    assert duration(length) == text
