# Exported from notebooks/14d_shims.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14d_shims.ipynb#zygote-module
"""The zygote: a process with one thread, kept from the daemon's first moment, that forks the shims."""

from __future__ import annotations

import gc
import marshal
import os
import resource
import select
import signal
import socket
import sys
import threading

from mini_docker.engine.shim import rehearse, shim
from mini_docker.linux.process import clone3, set_process_name
from mini_docker.namespaces.net import new_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn


# %% notebooks/14d_shims.ipynb#zygote
MOST_FDS = 253  # SCM_MAX_FD, unix(7)
MOST_BYTES = 1 << 22  # of an order: a client may have typed a lot before the start
SO_SNDBUFFORCE = 32  # asm-generic/socket.h
START_SECONDS = 120  # for a shim's first word
SUCCESSOR = (
    "import socket, sys; sys.path.insert(0, sys.argv[1]); "
    "from mini_docker.engine.zygote import be_zygote; be_zygote(socket.socket(fileno=int(sys.argv[2])))"
)


class Zygote:
    """The daemon's end of the line to its zygote. Any thread may ask."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        """Hold the line; `start_zygote` makes both."""
        self.line = line
        self.pid = pid
        self.lock = threading.Lock()
        self.open_files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def fork_shim(
        self, order: dict[str, Any], directory: str, fds: Sequence[tuple[str, int]]
    ) -> socket.socket:
        """Have a shim forked that obeys an order in a container's directory, with named descriptors.

        Returns its lifeline: the shim's first word waits there, to be read, and its end is the shim's.
        Raises OSError.
        """
        ours = self._try_to_fork(order, directory, fds)
        if not has_word(ours) and not self.lives():  # it died with the order in its hand
            ours.close()
            ours = self._try_to_fork(order, directory, fds)
            has_word(ours)
        return ours

    def _try_to_fork(
        self, order: dict[str, Any], directory: str, fds: Sequence[tuple[str, int]]
    ) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            named = [("lifeline", theirs.fileno()), *fds]
            names = [name for name, _ in named]
            self._ask({"order": order, "directory": directory, "names": names}, named)
        return ours

    def new_netns(self) -> int:
        """Return a descriptor of a fresh network namespace, which a thread must not make. Raises OSError."""
        return self._fetch({"netns": True}, [])

    def errand(self, name: str, arguments: dict[str, Any], *fds: int) -> int:
        """Return the descriptor that an errand (see errands.py) of that name brings. Raises OSError."""
        return self._fetch({"errand": name, "arguments": arguments}, [("", fd) for fd in fds])

    def _fetch(self, request: dict[str, Any], fds: Sequence[tuple[str, int]]) -> int:
        """Return the descriptor that is asked for, from a new zygote if need be. Raises OSError."""
        words, found = self._try_to_fetch(request, fds)
        if not words and not self.lives():
            words, found = self._try_to_fetch(request, fds)
        if not found:
            number, _, text = words.decode().partition(" ")
            raise OSError(int(number or 5), text or "the zygote died")
        return found[0]

    def _try_to_fetch(
        self, request: dict[str, Any], given: Sequence[tuple[str, int]]
    ) -> tuple[bytes, list[int]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._ask(request, [("answer", theirs.fileno()), *given])
            words, fds, _, _ = socket.recv_fds(ours, 4096, 1)
        return words, fds

    def _ask(self, request: dict[str, Any], fds: Sequence[tuple[str, int]]) -> None:
        """Send a request; a zygote that has died is replaced first."""
        message, numbers = marshal.dumps(request), [fd for _, fd in fds]
        with self.lock:
            try:
                socket.send_fds(self.line, [message], numbers)
            except (BrokenPipeError, ConnectionResetError):
                self._replace()
                socket.send_fds(self.line, [message], numbers)

    def lives(self) -> bool:
        """Return whether the zygote still holds its end of the line."""
        poll = select.poll()
        with self.lock:
            poll.register(self.line, 0)
            return not poll.poll(0)

    def _replace(self) -> None:
        """Start another zygote, by an interpreter of its own: this process has threads by now."""
        import subprocess

        self._reap()
        ours, theirs = new_line()
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        words = [sys.executable, "-I", "-c", SUCCESSOR, root, str(theirs.fileno())]
        with theirs:
            self.successor = subprocess.Popen(words, pass_fds=(theirs.fileno(),))
        resource.prlimit(self.successor.pid, resource.RLIMIT_NOFILE, self.open_files)
        self.line.close()
        self.line, self.pid = ours, self.successor.pid

    def _reap(self) -> None:
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass

    def close(self) -> None:
        """Let the zygote end; its shims stay."""
        self.line.close()
        self._reap()


def has_word(lifeline: socket.socket) -> bool:
    """Wait for a shim's first word; return False where its end, or too much time, came before."""
    lifeline.settimeout(START_SECONDS)
    try:
        return bool(lifeline.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
    finally:
        lifeline.settimeout(None)


def new_line() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a line to a zygote, which takes orders of MOST_BYTES."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * MOST_BYTES)
    return ours, theirs


def start_zygote() -> Zygote:
    """Fork the zygote. Raises RuntimeError in a process that has threads already."""
    if threading.active_count() > 1:
        raise RuntimeError("the zygote must be forked before the first thread is started")
    ours, theirs = new_line()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        be_zygote(theirs)
    theirs.close()
    return Zygote(ours, pid)


def be_zygote(line: socket.socket) -> NoReturn:
    """Fork what is asked for until the daemon has closed its end, in whatever way it died."""
    try:
        set_process_name(b"md-zygote")
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the shims
        _close_all_but(line.fileno())
        _rehearse()
        gc.collect()
        kept = _fill_holes()  # noqa: F841 (it has only to be there)
        gc.freeze()  # a collection in a shim would write to every page that it shares with us
        while True:
            words, fds, _, _ = socket.recv_fds(line, MOST_BYTES, MOST_FDS)
            if not words:
                break
            _obey(marshal.loads(words), fds, line)
            for fd in fds:
                os.close(fd)
    finally:
        os._exit(0)


def _rehearse() -> None:
    """Warm up, if there is room for a few small files; without it all works, in a little more memory."""
    directory = f"/dev/shm/mini_docker-zygote-{os.getpid()}"
    try:
        os.mkdir(directory, 0o700)
        rehearse(directory)
        os.rmdir(directory)
    except OSError:
        pass


def _fill_holes() -> list[object]:
    """Return small objects of every size, to be kept: what a shim allocates shall not fall in the holes
    between ours, each in another page that it shares with us, but together in new ones."""
    sizes = range(48, 513, 16)  # as the interpreter rounds up what it allocates
    return [bytes(size - sys.getsizeof(b"") - 1) for size in sizes for _ in range(50)]


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
    """Fork a shim, make a network namespace, or have a child do an errand."""
    if "netns" in request:
        _give(fds[0], new_netns)
        return
    if "errand" in request:
        if os.fork() == 0:
            line.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run_errand(request, fds)
        return
    pid, pidfd = clone3(0)  # not os.fork(): its hooks for threads write to half a megabyte
    if pid:
        os.close(pidfd)
    else:
        line.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        shim(request["order"], request["directory"], request["names"], fds)


def run_errand(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Do an errand, and end. Only who needs one pays for the import."""
    try:
        from mini_docker.engine.errands import ERRANDS

        _give(fds[0], ERRANDS[request["errand"]], request["arguments"], fds[1:])
    finally:
        os._exit(0)


def _give(answer_fd: int, make: Callable[..., int], *arguments: Any) -> None:
    """Answer with the descriptor that `make(*arguments)` returns, or with its error."""
    with socket.socket(fileno=os.dup(answer_fd)) as answer:
        try:
            found_fd = make(*arguments)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else 22
            text = error.strerror if isinstance(error, OSError) else str(error)
            answer.send(f"{number or 5} {text}".encode())
            return
        socket.send_fds(answer, [b"here"], [found_fd])
        os.close(found_fd)
