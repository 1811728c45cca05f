"""The words of states: signals."""

from __future__ import annotations

import pytest

from mini_docker.engine.document import InvalidRequest
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
