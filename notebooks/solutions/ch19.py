"""Solutions of chapter 19, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import errno

from exercises.ch19 import (
    check_again,
    check_chunks,
    check_column,
    check_duration,
    check_exit_status,
    check_frames,
    check_pairs,
)
from mini_docker.lab import Exercise


def exit_status_blank(error: int | None) -> int:
    """The untouched exercise."""
    return 1


def exit_status(error: int | None) -> int:
    """Return 125, 126 or 127 for what went wrong."""
    if error is None:
        return 125
    return 127 if error in (errno.ENOENT, errno.ENOTDIR) else 126


def exit_status_shell(error: int | None) -> int:
    """Wrong: as a shell, which has no 125."""
    return 127 if error in (None, errno.ENOENT, errno.ENOTDIR) else 126


def exit_status_rough(error: int | None) -> int:
    """Wrong: everything but ENOENT is the tool's fault."""
    return {errno.ENOENT: 127, errno.EACCES: 126}.get(error or 0, 125)


def duration_blank(seconds: float) -> str:
    """The untouched exercise."""
    return ""


def duration(seconds: float) -> str:
    """Return a length of time in Docker's words."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return f"{whole} second{'s' * (whole != 1)}"
    if whole < 120:
        return "About a minute"
    if whole < 3600:
        return f"{whole // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"


def duration_exact(seconds: float) -> str:
    """Wrong: it counts one minute."""
    return "1 minute" if 60 <= seconds < 120 else duration(seconds)


def duration_day(seconds: float) -> str:
    """Wrong: days from the first one on."""
    return f"{int(seconds) // 86400} days" if seconds >= 86400 else duration(seconds)


def column_width_blank(cells: list[str]) -> int:
    """The untouched exercise."""
    return 0


def column_width(cells: list[str]) -> int:
    """Return how wide a column is, its padding included."""
    return max(10, max(map(len, cells)) + 3)


def column_width_narrow(cells: list[str]) -> int:
    """Wrong: no least width."""
    return max(map(len, cells)) + 3


def column_width_tight(cells: list[str]) -> int:
    """Wrong: no padding."""
    return max(10, *map(len, cells))


def filter_object_blank(words: list[str]) -> dict[str, dict[str, bool]]:
    """The untouched exercise."""
    return {}


def filter_object(words: list[str]) -> dict[str, dict[str, bool]]:
    """Return the filters of a query from the command line's words."""
    found: dict[str, dict[str, bool]] = {}
    for word in words:
        name, _, value = word.partition("=")
        found.setdefault(name, {})[value] = True
    return found


def filter_object_split(words: list[str]) -> dict[str, dict[str, bool]]:
    """Wrong: every = separates."""
    found: dict[str, dict[str, bool]] = {}
    for word in words:
        found.setdefault(word.split("=")[0], {})[word.split("=")[1]] = True
    return found


def filter_object_last(words: list[str]) -> dict[str, dict[str, bool]]:
    """Wrong: the last one wins."""
    return {name: {value: True} for name, _, value in (word.partition("=") for word in words)}


def unchunk_blank(body: bytes) -> bytes:
    """The untouched exercise."""
    return body


def unchunk(body: bytes) -> bytes:
    """Return the bytes of a chunked body."""
    found = b""
    while True:
        length, _, body = body.partition(b"\r\n")
        size = int(length, 16)
        if not size:
            return found
        found, body = found + body[:size], body[size + 2 :]


def unchunk_decimal(body: bytes) -> bytes:
    """Wrong: lengths are read as decimal."""
    length, _, rest = body.partition(b"\r\n")
    return rest[: int(length.decode().rstrip("a") or 0)]


def unchunk_lines(body: bytes) -> bytes:
    """Wrong: every other line is taken for a chunk."""
    return b"".join(body.split(b"\r\n")[1::2])


def apart_blank(data: bytes) -> tuple[bytes, bytes]:
    """The untouched exercise."""
    return data, b""


def apart(data: bytes) -> tuple[bytes, bytes]:
    """Return (stdout, stderr) of a multiplexed stream."""
    found = {1: b"", 2: b""}
    while data:
        length = int.from_bytes(data[4:8], "big")
        found[data[0]] += data[8 : 8 + length]
        data = data[8 + length :]
    return found[1], found[2]


def apart_first(data: bytes) -> tuple[bytes, bytes]:
    """Wrong: everything belongs to the first frame's stream."""
    return (data[8:], b"") if data[0] == 1 else (b"", data[8:])


def apart_short(data: bytes) -> tuple[bytes, bytes]:
    """Wrong: the length is one byte."""
    found = {1: b"", 2: b""}
    while data:
        found[data[0]] += data[8 : 8 + data[7]]
        data = data[8 + data[7] :] if data[4:7] == b"\0\0\0" else b""
    return found[1], found[2]


def again_blank(method: str, fresh: bool, sent: bool) -> bool:
    """The untouched exercise; and what our own client did, until it was read for this exercise."""
    return not fresh


def again(method: str, fresh: bool, sent: bool) -> bool:
    """Say whether a request without an answer is sent once more."""
    return not fresh and (not sent or method in ("GET", "HEAD"))


def again_idempotent(method: str, fresh: bool, sent: bool) -> bool:
    """Wrong: HTTP calls DELETE and PUT idempotent, and means the state, not the answer."""
    return not fresh and (not sent or method != "POST")


def again_questions(method: str, fresh: bool, sent: bool) -> bool:
    """Wrong: what was never sent is not sent either."""
    return not fresh and method in ("GET", "HEAD")


def again_for_ever(method: str, fresh: bool, sent: bool) -> bool:
    """Wrong: a daemon that always hangs up is asked for ever."""
    return not sent or method in ("GET", "HEAD")


EXERCISES = [
    Exercise(
        "column_width",
        check_column,
        blank=column_width_blank,
        solution=column_width,
        wrong=[(column_width_narrow, "never narrower"), (column_width_tight, "three spaces")],
    ),
    Exercise(
        "filter_object",
        check_pairs,
        blank=filter_object_blank,
        solution=filter_object,
        wrong=[(filter_object_split, "only the first ="), (filter_object_last, "both values stay")],
    ),
    Exercise(
        "unchunk",
        check_chunks,
        blank=unchunk_blank,
        solution=unchunk,
        wrong=[(unchunk_decimal, "hexadecimal"), (unchunk_lines, "count them")],
    ),
    Exercise(
        "apart",
        check_frames,
        blank=apart_blank,
        solution=apart,
        wrong=[(apart_first, "several frames"), (apart_short, "four bytes")],
    ),
    Exercise(
        "exit_status",
        check_exit_status,
        blank=exit_status_blank,
        solution=exit_status,
        wrong=[(exit_status_shell, "that is 125"), (exit_status_rough, "no program")],
    ),
    Exercise(
        "duration",
        check_duration,
        blank=duration_blank,
        solution=duration,
        wrong=[(duration_exact, "'About a minute' to Docker"), (duration_day, "'47 hours'")],
    ),
    Exercise(
        "again",
        check_again,
        blank=again_blank,
        solution=again,
        wrong=[
            (again_idempotent, "a 404 for a success"),
            (again_questions, "nobody can have obeyed"),
            (again_for_ever, "will do it again"),
        ],
    ),
]
