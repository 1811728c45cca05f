# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#progress-module
"""The daemon's messages while it pulls, pushes, loads or builds: lines in a file, bars on a terminal."""

from __future__ import annotations

import os

from mini_docker.cli.errors import CommandError
from mini_docker.cli.text import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Message = dict[str, Any]


# %% notebooks/G_object_commands.ipynb#progress
UP, DOWN, CLEAR = "\x1b[{}A", "\x1b[{}B", "\x1b[2K\r"
BAR = 50  # signs of a bar, drawn where the terminal is wide enough for it
WIDE = 110


def show_progress(messages: Iterable[Message], fd: int = 1) -> list[Message]:
    """Write messages as they come, and return their `aux` parts. Raises CommandError for one that failed."""
    from mini_docker.cli.streams import write_all
    from mini_docker.cli.terminal import size

    terminal = os.isatty(fd)
    columns = size(fd)[1]
    lines: dict[str, int] = {}
    found = []
    for message in messages:
        if message.get("aux") is not None:
            found.append(message["aux"])
            continue
        failed = message.get("errorDetail") or (
            {"message": message["error"]} if message.get("error") else {}
        )
        if failed:
            raise CommandError(str(failed.get("message", "")), int(failed.get("code") or 1))
        text = _placed(message, lines, columns) if terminal else plain_message(message)
        write_all(fd, text.encode("utf-8", "replace"))
    return found


def plain_message(message: Message) -> str:
    """Return a message as a line for a file; "" for a step of a bar."""
    if bar(message.get("progressDetail") or {}, 0):
        return ""
    if message.get("stream"):
        return str(message["stream"])
    name = f"{message['id']}: " if message.get("id") else ""
    return f"{name}{message.get('status', '')}\n"


def _placed(message: Message, lines: dict[str, int], columns: int) -> str:
    """Return a message with the moves of the cursor that put it on the line of its id."""
    name = str(message.get("id") or "")
    moving = name and ("progressDetail" in message or "progress" in message)
    if not moving:
        lines.clear()
        return plain_message(message)
    if name not in lines:
        lines[name] = len(lines)
        above, begin = 0, "\n"
    else:
        above, begin = len(lines) - lines[name], ""
    text = (
        f"{name}: {message.get('status', '')} {bar(message.get('progressDetail') or {}, columns)}"
    )
    if not above:
        return f"{CLEAR}{text}{begin}"
    return f"{UP.format(above)}{CLEAR}{text}\r{DOWN.format(above)}"


def bar(detail: Message, columns: int) -> str:
    """Return "[=====>    ]  1.2MB/3.4MB" for {"current", "total"} in bytes; "" when nothing is known."""
    current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{decimal_size(current):>8}"
    done = min(int(current / total * 100) // 2, BAR)
    drawn = f"[{'=' * done}>{' ' * (BAR - done)}] " if columns > WIDE else ""
    numbers = f"{decimal_size(current):>8}"
    return f"{drawn}{numbers}" if current > total else f"{drawn}{numbers}/{decimal_size(total)}"
