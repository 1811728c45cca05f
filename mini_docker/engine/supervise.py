# Exported from notebooks/14c_streams.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14c_streams.ipynb#supervise-module
"""The loop of the process that looks after a container: bytes and signals in, bytes and an exit out."""

from __future__ import annotations

import os
import select
import signal
from collections import namedtuple

from mini_docker.linux.process import exit_code, pidfd_send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple

    class Relay(NamedTuple):
        """Our ends of the container's streams beside the client's descriptors; None where there is none.

        With a terminal `to_stdin` and `from_stdout` are both its master and `from_stderr` is None.
        """

        stdin: int | None
        to_stdin: int | None
        from_stdout: int | None
        from_stderr: int | None
        resized: Callable[[], None] | None

else:
    Relay = namedtuple("Relay", ("stdin", "to_stdin", "from_stdout", "from_stderr", "resized"))


# %% notebooks/14c_streams.ipynb#supervise
CHUNK = 65536
# what docker's --sig-proxy leaves out: news of children, of closed pipes, and the runtime's own
NOT_FORWARDED = {
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCONT,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
}


def supervise(pid: int, pidfd: int, relay: Relay) -> int:
    """Copy bytes and forward signals until the container ends and its output is drained; return its code.

    Killed by a signal it is 128 + n, as a shell would say. The third SIGINT or SIGTERM that does not end
    the container kills it, as the docker client gives up then.
    """
    signals_fd = _catch_signals()
    loop = _Loop(pidfd, relay, signals_fd)
    try:
        while not loop.finished():
            loop.turn()
        return exit_code(os.waitpid(pid, 0)[1])
    finally:
        signal.set_wakeup_fd(-1)
        loop.close()


def _catch_signals() -> int:
    """Have every signal that can be forwarded write its number into a pipe; return the pipe's end."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for number in signal.valid_signals():
        if number == signal.SIGWINCH or number not in NOT_FORWARDED and number < signal.SIGRTMIN:
            signal.signal(number, _noted)
    return read_fd


def _noted(number: int, frame: object) -> None:
    """Do nothing: the wake-up pipe has the number."""


# %% notebooks/14c_streams.ipynb#loop
class _Loop:
    """One poll(2) over signals, the container's end, and up to three streams."""

    def __init__(self, pidfd: int, relay: Relay, signals_fd: int) -> None:
        self.pidfd, self.relay, self.signals_fd = pidfd, relay, signals_fd
        self.outputs = {}
        if relay.from_stdout is not None:
            self.outputs[relay.from_stdout] = 1
        if relay.from_stderr is not None:
            self.outputs[relay.from_stderr] = 2
        self.pending = b""
        self.ended = False
        self.stdin_open = relay.stdin is not None and relay.to_stdin is not None
        self.interrupts = 0
        if relay.to_stdin is not None:
            os.set_blocking(relay.to_stdin, False)

    def finished(self) -> bool:
        return self.ended and not self.outputs

    def turn(self) -> None:
        """Wait for something to happen and deal with all that has."""
        poll = select.poll()
        poll.register(self.signals_fd, select.POLLIN)
        if not self.ended:
            poll.register(self.pidfd, select.POLLIN)
        for fd in self.outputs:
            poll.register(fd, select.POLLIN | self._writable(fd))
        if self.stdin_open and not self.pending:
            poll.register(self.relay.stdin or 0, select.POLLIN)
        if self.pending and self.relay.to_stdin not in self.outputs:
            poll.register(self.relay.to_stdin or 0, select.POLLOUT)
        for fd, event in poll.poll():
            self._happened(fd, event)

    def _writable(self, fd: int) -> int:
        return select.POLLOUT if self.pending and fd == self.relay.to_stdin else 0

    def _happened(self, fd: int, event: int) -> None:
        if fd == self.signals_fd:
            self._forward_signals()
        elif fd == self.pidfd:
            self.ended = True
            self._end_input()
        elif fd == self.relay.stdin and self.stdin_open:
            self._read_input()
        else:
            if event & select.POLLOUT and self.pending:
                self._write_input()
            if fd in self.outputs and event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._copy_output(fd)

    def _forward_signals(self) -> None:
        for number in os.read(self.signals_fd, 512):
            if number == signal.SIGWINCH:
                if self.relay.resized:
                    self.relay.resized()
                continue
            self.interrupts += number in (signal.SIGINT, signal.SIGTERM)
            deadly = signal.SIGKILL if self.interrupts >= 3 else number
            try:
                pidfd_send_signal(self.pidfd, deadly)
            except ProcessLookupError:
                pass

    def _read_input(self) -> None:
        """Take what the client typed; its end becomes the container's end of input."""
        try:
            self.pending = os.read(self.relay.stdin or 0, CHUNK)
        except OSError:
            self.pending = b""
        if not self.pending:
            self._end_input()
        else:
            self._write_input()

    def _write_input(self) -> None:
        assert self.relay.to_stdin is not None
        try:
            written = os.write(self.relay.to_stdin, self.pending)
            self.pending = self.pending[written:]
        except BlockingIOError:
            pass
        except OSError:
            self.pending = b""
            self._end_input()

    def _end_input(self) -> None:
        """Close the container's stdin once; a terminal stays open, its master carries the output too."""
        if self.stdin_open and self.relay.to_stdin not in (None, self.relay.from_stdout):
            os.close(self.relay.to_stdin or 0)
        self.stdin_open = False
        self.pending = b""

    def _copy_output(self, fd: int) -> None:
        """Copy a piece of output; at its end, or when our reader has gone, close the container's stream."""
        try:
            data = os.read(fd, CHUNK)
            if data:
                write_all(self.outputs[fd], data)
                return
        except BlockingIOError:
            return
        except OSError:  # EIO: the last slave of the terminal closed; EPIPE: nobody reads us
            pass
        del self.outputs[fd]
        os.close(fd)

    def close(self) -> None:
        """Close what is still open."""
        self._end_input()
        os.close(self.signals_fd)
        for fd in self.outputs:
            os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, waiting where the reader is slow. Raises OSError."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])
