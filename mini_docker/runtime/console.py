# Exported from notebooks/11_runtime.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11_runtime.ipynb#console-module
"""The console: a pseudoterminal of the container's own devpts, whose master goes to the supervisor."""

from __future__ import annotations

import _socket  # the C half of socket: see netlink
import fcntl
import os
import struct
from collections import namedtuple

from mini_docker.linux.mount import RESOLVE_IN_ROOT, openat2
from mini_docker.namespaces.devices import bind_console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Console(NamedTuple):
        """Where the master goes (one end of a Unix socket pair), and the terminal's size at the start."""

        socket_fd: int
        rows: int
        columns: int

else:
    Console = namedtuple("Console", ("socket_fd", "rows", "columns"))


# %% notebooks/11_runtime.ipynb#open-console
# asm/ioctls.h; Python's termios is a shared library of its own
TIOCSCTTY, TIOCSWINSZ = 0x540E, 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441


def open_console(root: str, socket_fd: int, rows: int, columns: int, first: bool = True) -> None:
    """Open a terminal in the container's devpts, make it the controlling one and all three streams.

    The `first` process of a container has its slave bound on /dev/console as well; the master leaves
    through `socket_fd` in one message. Source: OCI config.md `terminal`, pty(7), ioctl_tty(2). Raises
    OSError.
    """
    root_fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
    master_fd = openat2(root_fd, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, RESOLVE_IN_ROOT)
    fcntl.ioctl(master_fd, TIOCSPTLCK, struct.pack("i", 0))
    slave_fd = fcntl.ioctl(master_fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    resize(master_fd, rows, columns)
    if first:
        bind_console(root, slave_fd)
    _send_fd(socket_fd, master_fd)
    fcntl.ioctl(slave_fd, TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave_fd, number)
    for fd in (root_fd, master_fd, slave_fd):
        os.close(fd)


# %% notebooks/11_runtime.ipynb#pass-console
def resize(terminal_fd: int, rows: int, columns: int) -> None:
    """Set the size of a terminal in characters, TIOCSWINSZ of ioctl_tty(2); 0 by 0 is left alone."""
    if rows and columns:
        fcntl.ioctl(terminal_fd, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _send_fd(socket_fd: int, fd: int) -> None:
    """Send one descriptor in one message, SCM_RIGHTS of unix(7), and close the socket: that is all of it."""
    end = _socket.socket(fileno=socket_fd)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))
        end.sendmsg([b"/dev/ptmx"], [rights])
    finally:
        end.close()


def receive_console(socket_fd: int) -> int:
    """Return the master that `open_console` sent. Raises EOFError if the sender died before."""
    end = _socket.socket(fileno=os.dup(socket_fd))
    try:
        _, rights, _, _ = end.recvmsg(64, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    finally:
        end.close()
    if not rights:
        raise EOFError("the container ended before it had a console")
    fd: int = struct.unpack("i", rights[0][2][:4])[0]
    return fd
