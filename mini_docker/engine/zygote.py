# Exported from notebooks/14d_shims.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14d_shims.ipynb#zygote-module
"""The zygote: a process with one thread, kept from the daemon's first moment, that forks the shims."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading

from mini_docker.engine.shim import shim
from mini_docker.linux.process import set_process_name
from mini_docker.namespaces.net import new_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


# %% notebooks/14d_shims.ipynb#zygote
MOST_FDS = 64


class Zygote:
    """The daemon's end of the line to its zygote. Any thread may ask."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        """Hold the line; `start_zygote` makes both."""
        self.line = line
        self.pid = pid
        self.lock = threading.Lock()

    def fork_shim(self, order_path: str, fds: Sequence[tuple[str, int]]) -> socket.socket:
        """Have a shim forked that obeys the order in a file, with named descriptors; return its lifeline.

        The shim's first word comes over the lifeline; its end is the lifeline's end. Raises OSError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            named = [("lifeline", theirs.fileno()), *fds]
            self._ask({"order": order_path, "names": [name for name, _ in named]}, named)
        return ours

    def new_netns(self) -> int:
        """Return a descriptor of a fresh network namespace, which a thread must not make. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._ask({"netns": True}, [("answer", theirs.fileno())])
            words, fds, _, _ = socket.recv_fds(ours, 4096, 1)
        if not fds:
            raise OSError(
                5, f"no network namespace was made: {words.decode() or 'the zygote died'}"
            )
        return fds[0]

    def _ask(self, request: dict[str, Any], fds: Sequence[tuple[str, int]]) -> None:
        with self.lock:
            numbers = [fd for _, fd in fds]
            socket.send_fds(self.line, [json.dumps(request).encode()], numbers)

    def close(self) -> None:
        """Let the zygote end; its shims stay."""
        self.line.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass


def start_zygote() -> Zygote:
    """Fork the zygote. Raises RuntimeError in a process that has threads already."""
    if threading.active_count() > 1:
        raise RuntimeError("the zygote must be forked before the first thread is started")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_zygote(theirs)
    theirs.close()
    return Zygote(ours, pid)


def _be_zygote(line: socket.socket) -> NoReturn:
    """Fork what is asked for until the daemon has closed its end, in whatever way it died."""
    try:
        set_process_name(b"md-zygote")
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the shims
        _close_all_but(line.fileno())
        while True:
            words, fds, _, _ = socket.recv_fds(line, 1 << 16, MOST_FDS)
            if not words:
                break
            _obey(json.loads(words), fds, line)
            for fd in fds:
                os.close(fd)
    finally:
        os._exit(0)


def _close_all_but(kept: int) -> None:
    """Close what the daemon had open: a listening socket held by a shim would outlive the daemon."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(2):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:  # the listing's own
                pass


def _obey(request: dict[str, Any], fds: list[int], line: socket.socket) -> None:
    """Fork a shim, or make a network namespace."""
    if "netns" in request:
        _give_netns(fds[0])
        return
    if os.fork() == 0:
        line.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        shim(request["order"], request["names"], fds)


def _give_netns(answer_fd: int) -> None:
    with socket.socket(fileno=os.dup(answer_fd)) as answer:
        try:
            netns_fd = new_netns()
        except OSError as error:
            answer.send(str(error).encode())
            return
        socket.send_fds(answer, [b"netns"], [netns_fd])
        os.close(netns_fd)
