"""Checks of chapter 13c: challenges, how long to wait, and tokens that end."""

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


class TokenLab:
    """A registry whose tokens are good for `life` requests, and the server that makes them."""

    def __init__(self, life: int) -> None:
        """Begin without a token."""
        self.life, self.made, self.sent, self.left = life, 0, 0, 0

    def fresh(self) -> str:
        """Make a token; the one before is of no use any more."""
        self.made, self.left = self.made + 1, self.life
        return f"token {self.made}"

    def send(self, blob: str, token: str) -> int:
        """Answer a request. Raises RecursionError for one who asks without end."""
        self.sent += 1
        if self.sent > 50:
            raise RecursionError("asked fifty times")
        self.left -= 1
        return 200 if token == f"token {self.made}" and self.left >= 0 else 401


@check
def check_tokens(
    answer: Callable[[list[str], Callable[[str, str], int], Callable[[], str]], list[int]],
) -> Verdict:
    """Check a download of seven blobs with tokens that live for three requests, and with none that is good."""
    blobs = [f"blob {number}" for number in range(7)]
    short, closed = TokenLab(3), TokenLab(0)
    try:
        if answer(blobs, short.send, short.fresh) != [200] * 7:
            return failed(
                "a blob was refused (401): the token had ended in the middle, and no other was fetched"
            )
        refused = answer(blobs[:1], closed.send, closed.fresh)
    except RecursionError:
        return failed(
            "a registry that refuses every token is asked for ever: one new token is enough"
        )
    if short.made > 3:
        return failed(
            f"{short.made} tokens for 7 blobs, where 3 do: a token is good until it is refused, and token "
            "servers have rate limits too"
        )
    if refused != [401]:
        return failed(
            f"a registry that refuses every token became {refused}: the caller must see the 401"
        )
    return passed("a token that ends is replaced, once, and a refusal stays one")
