# Exported from notebooks/E_registry_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/E_registry_tools.ipynb#progress-module
"""Docker's progress messages on a terminal, one line a layer, or as plain lines anywhere else."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


# %% notebooks/E_registry_tools.ipynb#progress-bar
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
BAR, WIDE = 50, 110  # characters of a bar; columns of a terminal that has room for one
REDRAW = 0.1  # seconds between two drawings of a bar


def human_size(size: float) -> str:
    """Return bytes with four digits and a unit of 1000, as go-units' HumanSize: "1.088MB"."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.4g}{UNITS[unit]}"


def progress_bar(current: int, total: int, columns: int) -> str:
    """Return "[=====>   ]  1.5MB/3MB", as docker draws it; without the bar on a narrow terminal."""
    if not current and not total:
        return ""
    if total <= 0 or current > total:
        return f"{human_size(current):>8}"
    done = min(current * BAR // total, BAR)
    bar = f"[{'=' * done}>{' ' * (BAR - done)}] " if columns > WIDE else ""
    return f"{bar}{human_size(current):>8}/{human_size(total)}"


# %% notebooks/E_registry_tools.ipynb#display
class Display:
    """Shows messages as they come; on a terminal, lines with an id are redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        """Look whether `stream` is a terminal, and how wide."""
        self.stream = stream
        self.columns = _columns(stream) if stream.isatty() else 0
        self.lines: dict[str, int] = {}
        self.drawn: dict[str, tuple[str, float]] = {}

    def __call__(self, message: dict[str, Any]) -> None:
        """Show one message."""
        name, status = message.get("id", ""), message.get("status", "")
        detail = message.get("progressDetail") or {}
        current, total = detail.get("current", 0), detail.get("total", 0)
        if not status or (not self.columns and current):
            return  # bars are for terminals
        text = f"{name}: {status}" if name else status
        if self.columns:
            bar = progress_bar(current, total, self.columns)
            if "progressDetail" in message and name:
                self._redraw(name, status, f"{text} {bar}".rstrip(), 0 < current < total)
                return
            self.lines.clear()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def _redraw(self, name: str, status: str, text: str, bar: bool) -> None:
        """Write `text` into the line of `name`, some lines up; a bar that was drawn just now waits."""
        before, when = self.drawn.get(name, ("", 0.0))
        now = time.monotonic()
        if bar and before == status and now - when < REDRAW:
            return
        self.drawn[name] = (status, now)
        if name not in self.lines:
            self.lines[name] = len(self.lines)
            self.stream.write("\n")
        up = len(self.lines) - self.lines[name]
        self.stream.write(f"\x1b[{up}A\x1b[2K\r{text[: self.columns - 1]}\r\x1b[{up}B")
        self.stream.flush()


def _columns(stream: TextIO) -> int:
    """Return the width of a terminal; one that does not say is taken for an ordinary one."""
    return os.get_terminal_size(stream.fileno()).columns or 80
