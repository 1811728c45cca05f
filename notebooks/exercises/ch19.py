"""Checks of chapter 19: what scripts and people read."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_exit_status(answer: Callable[[int | None], int]) -> Verdict:
    """Check the choice of Docker's exit status."""
    if answer(2) != 127:
        return failed("ENOENT: there is no such command, and scripts know that as 127")
    if answer(13) != 126:
        return failed("EACCES: the file is there and may not be executed, which is 126")
    if answer(8) != 126:
        return failed(
            "ENOEXEC: the file is there, but no program: it cannot be executed, which is 126"
        )
    if answer(20) != 127:
        return failed(
            "ENOTDIR: a part of the path is no directory, so there is no such command: 127"
        )
    if answer(None) != 125:
        return failed("nothing was executed because the tool itself failed: that is 125")
    return passed("a script can tell whose fault it was")


@check
def check_duration(answer: Callable[[float], str]) -> Verdict:
    """Check Docker's words for a length of time."""
    cases = (
        (0.4, "Less than a second"),
        (1, "1 second"),
        (5400, "2 hours"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
    )
    for seconds, words in cases:
        found = answer(seconds)
        if found != words:
            return failed(f"{seconds:g} seconds are {words!r} to Docker, {found!r} to you")
    return passed("ten lengths, ten answers")


@check
def check_column(answer: Callable[[list[str]], int]) -> Verdict:
    """Check the width of a table's column."""
    if answer(["NAMES", "web"]) == 8:
        return failed(
            "Docker's columns are never narrower than ten: NAMES over web is 10 wide, not 8"
        )
    if answer(["CONTAINER ID", "16ea7a47028b"]) == 12:
        return failed("between two columns there are three spaces, which belong to the left one")
    for cells in (
        ["NAMES", "web"],
        ["CONTAINER ID", "16ea7a47028b"],
        ["", ""],
        ["CREATED", "2 hours ago"],
    ):
        wanted = max(10, max(map(len, cells)) + 3)
        if answer(cells) != wanted:
            return failed(f"the column of {cells} is {wanted} wide, to you {answer(cells)}")
    return passed("heads and rows stand in line")


@check
def check_pairs(answer: Callable[[list[str]], dict[str, dict[str, bool]]]) -> Verdict:
    """Check the filters of a query."""
    found = answer(["label=a=b"])
    if found == {"label": {"a": True}}:
        return failed("the value of label=a=b is a=b: only the first = separates")
    if answer(["label=a", "label=b"]) in ({"label": {"b": True}}, {"label": {"a": True}}):
        return failed("the same filter twice: both values stay, side by side")
    cases: dict[tuple[str, ...], dict[str, dict[str, bool]]] = {
        (): {},
        ("label=a=b", "label=c", "status=exited"): {
            "label": {"a=b": True, "c": True},
            "status": {"exited": True},
        },
    }
    for words, wanted in cases.items():
        if answer(list(words)) != wanted:
            return failed(f"{list(words)} becomes {wanted}, to you {answer(list(words))}")
    return passed("the daemon can read it")


@check
def check_chunks(answer: Callable[[bytes], bytes]) -> Verdict:
    """Check that the framing comes off a chunked body."""
    if answer(b"3\r\nabc\r\n0\r\n\r\n") != b"abc":
        return failed("one chunk of three bytes should become b'abc'")
    if answer(b"1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n") != b"x" * 26:
        return failed("1a is 26: lengths are hexadecimal")
    if answer(b"6\r\na\r\nb\r\n\r\n0\r\n\r\n") != b"a\r\nb\r\n":
        return failed("the bytes of a chunk may hold line ends: count them, do not look for them")
    if answer(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n") != b"abc":
        return failed("two chunks make one body")
    return passed("what was sent is what you have")


@check
def check_frames(answer: Callable[[bytes], tuple[bytes, bytes]]) -> Verdict:
    """Check that two streams come apart."""

    def frame(stream: int, data: bytes) -> bytes:
        return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data

    if answer(frame(1, b"out")) != (b"out", b""):
        return failed("stream 1 is standard output, without the eight bytes before it")
    if answer(frame(2, b"err")) != (b"", b"err"):
        return failed("stream 2 is standard error")
    if answer(frame(1, b"x" * 300)) != (b"x" * 300, b""):
        return failed("300 bytes: the length has four bytes, the first is the greatest")
    if answer(frame(1, b"a") + frame(2, b"e") + frame(1, b"b")) != (b"ab", b"e"):
        return failed("several frames follow each other, and each stream keeps its order")
    return passed("both streams are whole")


@check
def check_again(answer: Callable[[str, bool, bool], bool]) -> Verdict:
    """Check when a request that got no answer is sent once more (chapter 19c)."""
    for method, fresh, sent, wanted, why in (
        ("GET", False, True, True, "the idle connection was closed, and a question does no harm"),
        ("HEAD", False, True, True, "HEAD asks, as GET does"),
        (
            "POST",
            False,
            True,
            False,
            "the daemon may have created it before it died: now there are two",
        ),
        (
            "DELETE",
            False,
            True,
            False,
            "if it was obeyed, the second answer is a 404 for a success",
        ),
        ("PUT", False, True, False, "the files may be there already, and changed since"),
        ("POST", False, False, True, "not a byte was sent, so nobody can have obeyed"),
        ("GET", True, True, False, "whoever hangs up on a fresh connection will do it again"),
        ("POST", True, False, False, "whoever hangs up on a fresh connection will do it again"),
    ):
        if bool(answer(method, fresh, sent)) != wanted:
            which = "a fresh" if fresh else "an idle"
            how = "some of it sent" if sent else "nothing sent"
            said = "is" if wanted else "is not"
            return failed(f"{method} on {which} connection, {how}: it {said} sent again, for {why}")
    return passed("asked again where it does no harm, and nowhere else")
