"""Solutions of chapter 13c, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import re
from collections.abc import Callable

from exercises.ch13c import check_challenge, check_delay, check_tokens
from mini_docker.lab import Exercise


def challenge_blank(header: str) -> dict[str, str]:
    """The untouched exercise."""
    words = header.removeprefix("Bearer ").split(",")
    return dict(word.split("=") for word in words)  # type: ignore[misc]


def challenge_of(header: str) -> dict[str, str]:
    """Return {"realm": ..., "service": ..., "scope": ...} of a WWW-Authenticate header."""
    _, _, rest = header.partition(" ")
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', rest)
    return {name.lower(): quoted or bare for name, quoted, bare in pairs}


def challenge_quotes_only(header: str) -> dict[str, str]:
    """Wrong: it knows quoted values only."""
    return {name.lower(): value for name, value in re.findall(r'(\w+)="([^"]*)"', header)}


def challenge_case(header: str) -> dict[str, str]:
    """Wrong: names are taken as they are written."""
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', header.partition(" ")[2])
    return {name: quoted or bare for name, quoted, bare in pairs}


def delay_blank(status: int, retry_after: str | None, attempt: int) -> float | None:
    """The untouched exercise."""
    return 1.0


def delay(status: int, retry_after: str | None, attempt: int) -> float | None:
    """Return seconds, or None. `attempt` is 1 after the first try."""
    if attempt > 5 or (status != 429 and status < 500):
        return None
    seconds = float(retry_after) if retry_after else min(2.0 ** (attempt - 1), 30)
    return seconds if seconds <= 60 else None


def delay_constant(status: int, retry_after: str | None, attempt: int) -> float | None:
    """Wrong: always the same wait."""
    found = delay(status, retry_after, attempt)
    return found if retry_after or found is None else 1.0


def delay_obedient(status: int, retry_after: str | None, attempt: int) -> float | None:
    """Wrong: it waits for as long as it is told."""
    return float(retry_after) if retry_after else delay(status, None, attempt)


def delay_endless(status: int, retry_after: str | None, attempt: int) -> float | None:
    """Wrong: it never gives up."""
    return delay(status, retry_after, 1) if attempt > 5 else delay(status, retry_after, attempt)


Send = Callable[[str, str], int]


def tokens_blank(blobs: list[str], send: Send, fresh: Callable[[], str]) -> list[int]:
    """The untouched exercise."""
    token = fresh()
    return [send(blob, token) for blob in blobs]


def fetch_all(blobs: list[str], send: Send, fresh: Callable[[], str]) -> list[int]:
    """Return the status of each blob."""
    token, statuses = fresh(), []
    for blob in blobs:
        status = send(blob, token)
        if status == 401:
            token = fresh()
            status = send(blob, token)
        statuses.append(status)
    return statuses


def tokens_for_each(blobs: list[str], send: Send, fresh: Callable[[], str]) -> list[int]:
    """Wrong: a token for each blob."""
    return [send(blob, fresh()) for blob in blobs]


def tokens_endless(blobs: list[str], send: Send, fresh: Callable[[], str]) -> list[int]:
    """Wrong: it asks until it gets its way."""
    token, statuses = fresh(), []
    for blob in blobs:
        while (status := send(blob, token)) == 401:
            token = fresh()
        statuses.append(status)
    return statuses


EXERCISES = [
    Exercise(
        "challenge",
        check_challenge,
        blank=challenge_blank,
        solution=challenge_of,
        wrong=[
            (challenge_quotes_only, "a value without quotes"),
            (challenge_case, "in capitals or not"),
        ],
    ),
    Exercise(
        "delay",
        check_delay,
        blank=delay_blank,
        solution=delay,
        wrong=[
            (delay_constant, "not 1, 2, 4"),
            (delay_obedient, "an hour is waited for"),
            (delay_endless, "the sixth try"),
        ],
    ),
    Exercise(
        "tokens",
        check_tokens,
        blank=tokens_blank,
        solution=fetch_all,
        wrong=[
            (tokens_blank, "no other was fetched"),
            (tokens_for_each, "7 tokens for 7 blobs"),
            (tokens_endless, "asked for ever"),
        ],
    ),
]
