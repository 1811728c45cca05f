"""Checks of chapter 13c: challenges, and how long to wait."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

FULL = 'Bearer realm="https://auth.example/token",service="lab",scope="repository:a:pull,push"'


@check
def check_challenge(answer: Callable[[str], dict[str, str]]) -> Verdict:
    """Check the reading of a challenge."""
    wanted = {
        "realm": "https://auth.example/token",
        "service": "lab",
        "scope": "repository:a:pull,push",
    }
    cases = (
        (FULL, wanted, "a comma inside quotes belongs to the value: 'pull,push' is one scope"),
        (
            'Bearer realm="https://a/t?x=1",service="s"',
            {"realm": "https://a/t?x=1", "service": "s"},
            "an '=' inside quotes belongs to the value",
        ),
        (
            'Bearer realm="r", service=lab',
            {"realm": "r", "service": "lab"},
            "there may be a space after the comma, and a value without quotes",
        ),
        ('bearer Realm="r"', {"realm": "r"}, "scheme and names may be written in capitals or not"),
    )
    for header, found, words in cases:
        try:
            result = answer(header)
        except (ValueError, IndexError, KeyError) as error:
            return failed(f"{header}: {type(error).__name__}; {words}")
        if result != found:
            return failed(f"{header}: became {result}; {words}")
    return passed("as the RFC has it")


@check
def check_delay(answer: Callable[[int, str | None, int], float | None]) -> Verdict:
    """Check when to try again."""
    for status in (401, 403, 404, 400):
        if answer(status, None, 1) is not None:
            return failed(f"{status} is tried again: the same question will get the same answer")
    for status in (429, 503, 502, 500):
        if answer(status, None, 1) is None:
            return failed(f"{status} is not tried again: it may pass")
    if answer(429, "7", 1) != 7:
        return failed("Retry-After says 7 seconds, and you do not wait 7 seconds")
    if [answer(503, None, attempt) for attempt in (1, 2, 3)] != [1, 2, 4]:
        return failed(
            "without Retry-After the waits are not 1, 2, 4: all clients would come back at once, and again"
        )
    if answer(429, "3600", 1) is not None:
        return failed("an hour is waited for: the user should hear of it instead")
    if answer(503, None, 6) is not None or answer(429, "1", 6) is not None:
        return failed("the sixth try is made as well: somewhere there must be an end")
    return passed("polite, and not for ever")
