# Exported from notebooks/19d_streams_and_terminals.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19d_streams_and_terminals.ipynb#terminal-module
"""The user's terminal: raw while a container has it, its size, and always put back."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/19d_streams_and_terminals.ipynb#terminal
class Raw:
    """Terminals in raw mode inside a `with` statement; what is no terminal is left alone, termios(3).

    The first is typed at: no echo, no lines, no signals. The others are only written to.
    """

    def __init__(self, *fds: int) -> None:
        """Name the terminals."""
        self.fds = fds
        self.saved: list[tuple[int, list[Any]]] = []

    def __enter__(self) -> None:
        """Pass every key on at once."""
        for fd in self.fds:
            if os.isatty(fd):
                self.saved.append((fd, termios.tcgetattr(fd)))
                termios.tcsetattr(fd, termios.TCSADRAIN, raw_mode(termios.tcgetattr(fd)))

    def __exit__(self, *_: object) -> None:
        """Put the terminals back as they were, the last first."""
        for fd, mode in reversed(self.saved):
            termios.tcsetattr(fd, termios.TCSADRAIN, mode)


def raw_mode(mode: list[Any]) -> list[Any]:
    """Return a terminal's mode made raw, as cfmakeraw of termios(3) does."""
    mode[0] &= ~(
        termios.BRKINT
        | termios.ICRNL
        | termios.INPCK
        | termios.ISTRIP
        | termios.IXON
        | termios.INLCR
    )
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    return mode


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal, (0, 0) for anything else, TIOCGWINSZ of ioctl_tty(2)."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return rows, columns
