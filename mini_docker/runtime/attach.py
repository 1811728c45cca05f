# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#attach-module
"""In the foreground: wait for a process, pass signals on, lend it our terminal."""

from __future__ import annotations

import _socket
import os
import select

from mini_docker.linux.process import exit_code, pidfd_send_signal
from mini_docker.runtime.console import Console, receive_console, resize

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

else:
    import _signal as signal  # the C half: the Python half imports enum


NOT_FORWARDED = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGWINCH,
    signal.SIGURG,
    signal.SIGPIPE,
}


# %% notebooks/11e_mini_runc.ipynb#wait
def pass_signals_on(pidfd: int) -> None:
    """Pass on every signal that we get from now on, but those that are about ourselves."""

    def forward(number: int, frame: object) -> None:
        try:
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass

    for number in range(1, 32):
        if number not in NOT_FORWARDED:
            signal.signal(number, forward)


def wait(pid: int, pidfd: int) -> int:
    """Wait for a child, passing on every signal that we get; return its code, 128 + n for a signal."""
    pass_signals_on(pidfd)
    return exit_code(os.waitpid(pid, 0)[1])


# %% notebooks/11e_mini_runc.ipynb#terminal
class Terminal:
    """A terminal of the container's that is shown on ours, for a command without --console-socket."""

    def __init__(self) -> None:
        """Make the socket pair on which the master will come."""
        self.ours, theirs = _socket.socketpair()
        rows, columns = os.get_terminal_size(0)[::-1] if os.isatty(0) else (0, 0)
        self.console = Console(theirs.detach(), rows, columns)

    def relay(self, pid: int, pidfd: int) -> int:
        """Copy bytes both ways, in raw mode, until the process has ended; return its code."""
        master = receive_console(self.ours.fileno())
        saved = _make_raw(0)
        signal.signal(signal.SIGWINCH, lambda *_: resize(master, *os.get_terminal_size(0)[::-1]))
        try:
            _copy_until_end(master)
            return wait(pid, pidfd)
        finally:
            if saved:
                import termios

                termios.tcsetattr(0, termios.TCSADRAIN, saved)
            os.close(master)


def _copy_until_end(master: int) -> None:
    """Copy until the last program has closed the terminal, which reads as EIO."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if not data and fd == master:
                return
            if not data:
                poll.unregister(0)
            while data:
                data = data[os.write(1 if fd == master else master, data) :]


def _make_raw(fd: int) -> list[Any] | None:
    """Pass every key on at once: no echo, no lines, no signals; return the mode before, termios(3)."""
    if not os.isatty(fd):
        return None
    import termios

    saved = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    return saved
