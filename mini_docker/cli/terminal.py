# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#terminal-module
"""The user's terminal: raw while a container has it, its size, and always put back."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/19_command_line.ipynb#terminal
class Raw:
    """A terminal in raw mode inside a `with` statement; what is no terminal is left alone, termios(3)."""

    def __init__(self, fd: int) -> None:
        """Name the terminal."""
        self.fd = fd
        self.saved: list[Any] | None = None

    def __enter__(self) -> None:
        """Pass every key on at once: no echo, no lines, no signals."""
        if not os.isatty(self.fd):
            return
        self.saved = termios.tcgetattr(self.fd)
        mode = termios.tcgetattr(self.fd)
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
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)

    def __exit__(self, *_: object) -> None:
        """Put the terminal back as it was."""
        if self.saved is not None:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self.saved)


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal, (0, 0) for anything else, TIOCGWINSZ of ioctl_tty(2)."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return 0, 0
    return rows, columns
