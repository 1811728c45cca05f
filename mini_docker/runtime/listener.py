# Exported from notebooks/11g_listener.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11g_listener.ipynb#listener-module
"""A listener of seccomp's: somebody outside who decides about system calls, and how he gets to hear them."""

from __future__ import annotations

import errno
import os
import struct

from mini_docker.linux.process import clone3, pidfd_getfd, pidfd_open, seccomp_set_filter
from mini_docker.runtime.jsontext import dumps, loads
from mini_docker.runtime.talk import Talk, listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any, NoReturn

    Take = Callable[[int, int, bytes], None]  # report_fd, pid, state: see take_listener

#   init    OFFERED number              the filter holds; its listener is that descriptor of mine
#   parent  WORD                        taken and passed on
OFFERED = b"L"


# %% notebooks/11g_listener.ipynb#offer-listener
def offer_listener(talk: Talk, program: bytes, flags: int) -> Talk:
    """Install a filter that asks a listener; offer it to the parent and wait until it is passed on.

    It must be gone from here before execve: a container that holds it would answer its own questions.
    """
    listener_fd = seccomp_set_filter(program, flags)
    os.write(talk.report_fd, OFFERED + struct.pack("=i", listener_fd))
    listen(talk.word_fd)
    os.close(listener_fd)
    return talk


def take_listener(report_fd: int, pid: int, seccomp: dict[str, Any], state: bytes) -> None:
    """Read the rest of what `offer_listener` of process `pid` wrote, and pass the listener on.

    `seccomp` is the document's linux.seccomp. Raises OSError.
    """
    (number,) = struct.unpack("=i", os.read(report_fd, 4))
    _pass_on(pid, number, seccomp, state)


def _pass_on(pid: int, number: int, seccomp: dict[str, Any], state: bytes) -> None:
    """Fetch the listener from init, pidfd_getfd(2), and send it where the document says. Raises OSError."""
    pidfd = pidfd_open(pid)
    try:
        listener_fd = pidfd_getfd(pidfd, number)
    finally:
        os.close(pidfd)
    try:
        _send(seccomp["listenerPath"], process_state(pid, seccomp, state), listener_fd)
    finally:
        os.close(listener_fd)


def process_state(pid: int, seccomp: dict[str, Any], state: bytes) -> bytes:
    """Return the container process state as JSON. Source: OCI config-linux.md "Container Process State"."""
    found: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.get("listenerMetadata") or "",
        "state": loads(state.decode()) if state else {},
    }
    return dumps(found).encode()


def _send(path: str, message: bytes, fd: int) -> None:
    """Connect, send one message with one descriptor, and close, SCM_RIGHTS of unix(7)."""
    import _socket

    end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))
    try:
        end.connect(path)
        sent = end.sendmsg([message], [rights], _socket.MSG_NOSIGNAL)
        if sent < len(message):  # else the other side may have closed by now, as it should
            end.sendall(message[sent:], _socket.MSG_NOSIGNAL)
    except OSError as error:
        raise OSError(error.errno, f"linux.seccomp.listenerPath {path}: {error.strerror}") from None
    finally:
        end.close()


# %% notebooks/11g_listener.ipynb#stay-outside
def stay_outside(seccomp: dict[str, Any]) -> Take:
    """Leave a process behind that does `take_listener` where the caller is now; return how to ask it.

    Whoever has joined a container finds another file system at listenerPath, and in a user namespace has
    no right any more to reach into a hidden process. It takes one, and ends with its caller. Raises OSError.
    """
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    helper, pidfd = clone3(0)
    if helper == 0:
        ours.close()
        _take_once(theirs, seccomp)
    os.close(pidfd)
    theirs.close()

    def take(report_fd: int, pid: int, state: bytes) -> None:
        ours.send(struct.pack("=i", pid) + os.read(report_fd, 4) + state)
        answer = ours.recv(1 << 16)
        os.waitpid(helper, 0)
        if len(answer) < 4:
            raise OSError(errno.EINTR, "who was to take the listener was killed")
        if text := answer[4:].decode():
            raise OSError(*struct.unpack_from("=i", answer), text)

    return take


def _take_once(asked: _socket.socket, seccomp: dict[str, Any]) -> NoReturn:
    """Be the process that stays outside: take one listener, and answer with errno and sentence."""
    answer = struct.pack("=i", 0)
    try:
        if question := asked.recv(1 << 16):
            pid, number = struct.unpack_from("=ii", question)
            _pass_on(pid, number, seccomp, question[8:])
    except OSError as error:
        answer = struct.pack("=i", error.errno or errno.EIO) + str(error.strerror).encode()
    finally:
        asked.send(answer)
        os._exit(0)
