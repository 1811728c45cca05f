# Exported from notebooks/14d_shims.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14d_shims.ipynb#watch-module
"""One thread that waits for the ends of all shims."""

from __future__ import annotations

import os
import select
import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# %% notebooks/14d_shims.ipynb#watch
LAST_WORD = b'{"ExitCode":'


class Watch:
    """Calls a function when a lifeline ends or has had its last word."""

    def __init__(self) -> None:
        """Start the waiting thread."""
        self.poll = select.poll()
        self.lines: dict[int, tuple[socket.socket, Callable[[bytes], None], bool]] = {}
        self.wake_fd, self.waker_fd = os.pipe2(os.O_CLOEXEC)
        self.poll.register(self.wake_fd, select.POLLIN)
        self.lock = threading.Lock()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def add(
        self, line: socket.socket, call: Callable[[bytes], None], at_once: bool = False
    ) -> None:
        """Call `call(last word)`, or `call(b"")`, once `line`, the watch's from now on, has ended.

        It gets a thread of its own; `at_once` is for a call that waits for nobody and does not fail.
        """
        line.setblocking(False)
        with self.lock:
            self.lines[line.fileno()] = line, call, at_once
            self.poll.register(line.fileno(), select.POLLIN)
        os.write(self.waker_fd, b"+")  # poll(2) looks at the descriptors it was given when it began

    def is_silent(self, line: socket.socket) -> bool:
        """Return whether a line that brings nothing but its last word has not brought it yet."""
        with self.lock:
            return line.fileno() >= 0 and _read(line, socket.MSG_PEEK) is None

    def _run(self) -> None:
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.wake_fd:
                    os.read(fd, 4096)
                else:
                    self._look(fd)

    def _look(self, fd: int) -> None:
        """Read a lifeline: news of the log is nothing to us, its end is."""
        with self.lock:
            line, call, at_once = self.lines[fd]
            word = _read(line)
            if word is None or (word and not word.startswith(LAST_WORD)):
                return
            self.poll.unregister(fd)
            del self.lines[fd]
            line.close()
        if at_once:
            call(word)
        else:
            threading.Thread(target=call, args=(word,), name="ended", daemon=True).start()


def _read(line: socket.socket, flags: int = 0) -> bytes | None:
    """Return what a line brings: None for nothing yet, b"" for its end."""
    try:
        return line.recv(1 << 16, flags)
    except BlockingIOError:
        return None
    except OSError:
        return b""
