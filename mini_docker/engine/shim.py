# Exported from notebooks/14d_shims.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14d_shims.ipynb#shim-module
"""The shim: one small process for each container, which keeps its streams, its log and its exit code."""

from __future__ import annotations

import _socket
import functools
import json
import os
import select
import socket
import time

from mini_docker.engine.attached import (
    CHUNK,
    MOST_WAITING,
    NOTICE,
    PATIENCE,
    STDERR,
    STDOUT,
    Client,
    Loop,
    Past,
)
from mini_docker.engine.logs import LogWriter, read_log
from mini_docker.engine.starter import Streams, start_on_streams
from mini_docker.engine.store import write_whole
from mini_docker.linux.process import exit_code, pidfd_send_signal, set_process_name
from mini_docker.runtime.console import resize
from mini_docker.runtime.init import Process, StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


# %% notebooks/14d_shims.ipynb#shim
class Shim:
    """What a shim has in hand: the process, its streams, its log, and those who are connected."""

    def __init__(self, order: dict[str, Any], process: Process, streams: Streams) -> None:
        """Begin to look after a process that has just been started."""
        self.order, self.process, self.streams = order, process, streams
        self.loop = Loop()
        self.clients: list[Client] = []
        self.pasts: list[Past] = []
        self.watchers: list[socket.socket] = []
        self.typed = b""
        self.input_open = streams.stdin is not None
        self.ended = self.closing = False
        self.log = _open_log(order.get("log"))
        self.outputs = {STDOUT: streams.stdout, STDERR: streams.stderr}
        for fd in streams[:3]:
            if fd is not None:
                os.set_blocking(fd, False)
        self.loop.watch(process.pidfd, select.POLLIN, self._process_ended)
        self.rewatch_outputs()

    # --- output

    def rewatch_outputs(self) -> None:
        """Read the process's output, unless a client has too much to read already; write its input."""
        full = any(len(client.waiting) > MOST_WAITING for client in self.clients)
        full = full or any(past.joins for past in self.pasts)
        for stream, fd in self.outputs.items():
            if fd is None:
                continue
            events = 0 if full else select.POLLIN
            if fd == self.streams.stdin and self.typed:
                events |= select.POLLOUT
            if events:
                self.loop.watch(fd, events, functools.partial(self._output, stream))
            else:
                self.loop.forget(fd)

    def _output(self, stream: str, happened: int) -> None:
        if happened & select.POLLOUT:
            self._write_input()
        if happened & ~select.POLLOUT:
            self._copy(stream)

    def _copy(self, stream: str) -> bool:
        """Copy a piece of output to the log and to all who are attached; False when there is none now."""
        fd = self.outputs[stream]
        assert fd is not None
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process has closed the terminal
            data = b""
        if not data:
            self._output_ended(stream)
            return False
        if self.log:
            self._keep(stream, data)
        for client in list(self.clients):
            client.send(stream, data)
        return True

    def _keep(self, stream: str, data: bytes) -> None:
        """Write to the log. A full disk loses lines, not the container."""
        try:
            assert self.log is not None
            self.log.write(stream, data, time.time_ns())
        except OSError:
            pass
        for watcher in list(self.watchers):
            self._wake(watcher)

    def _wake(self, watcher: socket.socket) -> None:
        """Tell a reader of the log that there is more; one that has not read the last news knows it."""
        try:
            watcher.send(b"+")
        except BlockingIOError:
            pass
        except OSError:
            self._drop_watcher(watcher)

    def _output_ended(self, stream: str) -> None:
        fd = self.outputs[stream]
        self.outputs[stream] = None
        if fd is not None:
            self.loop.forget(fd)
            if fd != self.streams.stdin:
                os.close(fd)

    # --- input

    def type(self, data: bytes) -> None:
        """Write to the process's input, as much as it takes now; the rest waits."""
        if self.input_open:
            self.typed += data
            self._write_input()

    def _write_input(self) -> None:
        fd = self.streams.stdin
        assert fd is not None
        try:
            self.typed = self.typed[os.write(fd, self.typed) :] if self.typed else b""
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: it has closed its input
            self.typed = b""
        if not self.typed and self.closing:
            self._close_input()
        elif fd not in self.outputs.values():
            events = select.POLLOUT if self.typed else 0
            self.loop.watch(fd, events, self._input_writable)
        else:
            self.rewatch_outputs()
        for client in self.clients:
            client.rewatch()

    def _input_writable(self, happened: int) -> None:
        if happened & (select.POLLERR | select.POLLHUP) and not happened & select.POLLOUT:
            self.typed = b""
            self.loop.forget(self.streams.stdin or 0)
            return
        self._write_input()

    def input_ended(self) -> None:
        """End the process's input with its client's, if it was made for one client (StdinOnce)."""
        if self.input_open and self.order.get("once") and not self.streams.terminal:
            self.closing = True
            self._write_input()

    def _close_input(self) -> None:
        if self.input_open and self.streams.stdin is not None:
            self.input_open = False
            self.loop.forget(self.streams.stdin)
            os.close(self.streams.stdin)

    # --- the end

    def _process_ended(self, happened: int) -> None:
        self.ended = True
        self.loop.forget(self.process.pidfd)

    def run(self) -> int:
        """Look after the process to its end and that of its output; return how it ended."""
        while not self.ended:
            self.loop.turn(0 if self._tell_pasts() else None)
        code = exit_code(os.waitpid(self.process.pid, 0)[1])
        for stream, fd in list(self.outputs.items()):
            while fd is not None and self._copy(stream):
                self._make_room()
        self.close_log()
        return code

    def close_log(self) -> None:
        """Write the lines that have no end. A full disk loses lines."""
        try:
            if self.log:
                self.log.close(time.time_ns())
        except OSError:
            pass

    def _make_room(self) -> None:
        """Wait for the slowest client, so that the last output of a container is not held in memory."""
        self._wait_for_clients(self.clients, MOST_WAITING)

    def say_goodbye(self) -> None:
        """Tell the readers of the log, and send the clients what they have not read: most have it at once."""
        for watcher in list(self.watchers):
            self._drop_watcher(watcher)
        for client in self.clients:
            client.listening = False
            client.rewatch()
        end = time.monotonic() + NOTICE
        while self._unread() and (left := end - time.monotonic()) > 0:
            self._send_more(left)

    def let_go(self) -> None:
        """Give those who are slow time to read what they were sent, then close; nobody waits for that."""
        while self._unread() and self._send_more(PATIENCE):
            pass
        for client in [*self.clients, *(past.client for past in self.pasts)]:
            client.close()

    def _send_more(self, seconds: float) -> bool:
        """Send what can be sent now, or wait until somebody reads; False when nobody does in time."""
        if self._tell_pasts():
            self.loop.turn(0)
            return True
        return not self._unread() or self.loop.turn(seconds)

    def _unread(self) -> bool:
        """Say whether there is something that a client has not taken yet."""
        return bool(self.pasts) or any(client.waiting for client in self.clients)

    def _wait_for_clients(self, clients: list[Client], most: int) -> None:
        """Write to clients until none has more than `most` waiting; drop those who do not read."""
        while slow := [client for client in clients if len(client.waiting) > most]:
            if not self.loop.turn(PATIENCE):
                for client in slow:
                    client.close()

    # --- requests

    def listen(self, listener: _socket.socket) -> None:
        """Answer requests on a socket: one message, one answer."""
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), select.POLLIN, lambda happened: self._accept(listener))

    def _accept(self, listener: _socket.socket) -> None:
        try:
            with socket.socket(fileno=os.dup(listener.fileno())) as whole:
                connection = whole.accept()[0]
        except OSError:
            return
        connection.setblocking(False)
        fd = connection.fileno()
        self.loop.watch(fd, select.POLLIN, lambda happened: self._request(connection))

    def _request(self, connection: socket.socket) -> None:
        """Read a request and do it; a connection that asks nothing, or nonsense, is closed."""
        self.loop.forget(connection.fileno())
        fds: list[int] = []
        try:
            data, fds, _, _ = socket.recv_fds(connection, CHUNK, 1)
            request = json.loads(data)
            answer = getattr(self, f"ask_{request['ask']}")(connection, request, fds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            answer = {"error": str(error)}
            for fd in fds:
                os.close(fd)
        try:
            connection.send(json.dumps(answer or {}).encode())
        except OSError:
            pass
        if connection not in self.watchers:
            connection.close()

    def obey(self, lifeline: _socket.socket) -> None:
        """Do what the daemon asks on a lifeline, which has no answers: an exec's `kill` and `resize`."""
        self.loop.watch(lifeline.fileno(), select.POLLIN, lambda happened: self._told(lifeline))

    def _told(self, lifeline: _socket.socket) -> None:
        """Read what the daemon asks; its own end is nothing to the process."""
        try:
            data = lifeline.recv(CHUNK)
            if not data:
                self.loop.forget(lifeline.fileno())
                return
            request = json.loads(data)
            getattr(self, f"ask_{request['ask']}")(None, request, [])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass

    def ask_attach(
        self, connection: socket.socket, request: dict[str, Any], fds: list[int]
    ) -> None:
        """Attach the connection whose descriptor came with the request; first what the log has, if asked."""
        client = Client(self, socket.socket(fileno=fds[0]), request)
        if not (request.get("logs") and self.log):
            self._past_told(client, request)
            return
        self.pasts.append(Past(client, read_log(self.log.path), request))
        self.rewatch_outputs()

    def _tell_pasts(self) -> bool:
        """Send a piece of the log to each client that waits for it; say whether there is more to send now."""
        more = [past.tell() for past in list(self.pasts)]
        for past in [past for past in self.pasts if past.told]:
            self.pasts.remove(past)
            self._past_told(past.client, past.wanted)
        return any(more)

    def _past_told(self, client: Client, wanted: dict[str, Any]) -> None:
        """Give the output from now on to a client, or let it go, if it wanted the past alone or is gone."""
        if client.connection.fileno() >= 0 and wanted.get("stream", True):
            self._join(client, wanted)
        else:
            client.close()
        self.rewatch_outputs()

    def attach(self, connection: socket.socket, wanted: dict[str, Any]) -> None:
        """Give the output from now on to a connection, and take its input."""
        self._join(Client(self, connection, wanted), wanted)

    def _join(self, client: Client, wanted: dict[str, Any]) -> None:
        self.clients.append(client)
        if typed := wanted.get("typed"):  # what came with the request's head
            self.type(typed.encode("latin-1"))

    def ask_watch(self, connection: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        """Keep the connection: a byte whenever the log has grown, its end when all is over."""
        self.watchers.append(connection)
        self.loop.watch(connection.fileno(), 0, lambda happened: self._drop_watcher(connection))

    def _drop_watcher(self, watcher: socket.socket) -> None:
        self.watchers.remove(watcher)
        self.loop.forget(watcher.fileno())
        watcher.close()

    def ask_kill(
        self, connection: socket.socket | None, request: dict[str, Any], fds: list[int]
    ) -> None:
        """Send a signal to the process, which this shim has not reaped: it is nobody else's number."""
        pidfd_send_signal(self.process.pidfd, request["signal"])

    def ask_resize(
        self, connection: socket.socket | None, request: dict[str, Any], fds: list[int]
    ) -> None:
        """Set the size of the terminal."""
        if self.streams.terminal and self.streams.stdout is not None:
            resize(self.streams.stdout, request["rows"], request["columns"])


LIFE_SIZE = 128  # bytes


def open_life(path: str) -> int:
    """Return a descriptor of a file that has its block of the disk already: it may be full in the end."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    write_whole(fd, b" " * LIFE_SIZE)
    return fd


def write_life(fd: int, life: bytes) -> None:
    """Write down what has become of a process, whole or not at all: `open_life` has made room."""
    os.pwrite(fd, life.ljust(LIFE_SIZE), 0)


def life_of(pid: int, code: int, lived: float) -> bytes:
    """Return what is to be known of a process that has ended, as JSON.

    `lived` is in seconds of a clock that nobody sets: back-off and health do not follow the calendar.
    """
    ended = b'{"Pid": %d, "ExitCode": %d, "At": %d, "Lived": %f}'
    return ended % (pid, code, time.time_ns(), lived)


def _open_log(options: dict[str, Any] | None) -> LogWriter | None:
    if not options:
        return None
    more = options.get("attrs", ""), options.get("compress", False)
    return LogWriter(options["path"], options["max_size"], options["max_file"], *more)


# %% notebooks/14d_shims.ipynb#start
LONGEST_WORDS = 4000  # of an error that quotes a command of any length: one message is all there is


def shim(order: dict[str, Any], directory: str, names: list[str], fds: list[int]) -> NoReturn:
    """Be a shim: obey an order in a container's directory, with descriptors that have `names`. Never returns.

    The first word to the lifeline is {"pid": ...} or {"error": ..., "step": ..., "errno": ...}.
    """
    given = list(zip(names, fds, strict=True))
    lifeline = _socket.socket(fileno=dict(given)["lifeline"])
    try:
        set_process_name(b"md-shim")
        os.setsid()
        os.dup2(0, 2)  # the daemon's standard error is not ours to keep open
        os.chdir(directory)
        look_after = _run_exec if "enter" in order else _run
        look_after(order, lifeline, given)
    except StartError as error:
        word = {"error": str(error)[:LONGEST_WORDS], "step": error.step, "errno": error.errno}
        _say(lifeline, json.dumps({**word, "about_command": error.about_command}).encode())
    except (OSError, ValueError, KeyError, EOFError) as error:
        number = error.errno if isinstance(error, OSError) else 0
        words = (isinstance(error, OSError) and error.strerror) or str(error)
        word = {"error": words[:LONGEST_WORDS], "step": "shim", "errno": number}
        _say(lifeline, json.dumps(word).encode())
    finally:
        os._exit(0)


def _run(order: dict[str, Any], lifeline: _socket.socket, given: list[tuple[str, int]]) -> None:
    """Start the container's process, and look after it."""
    listener = listen_at(order["socket"])
    life_fd = open_life(order["life"])
    one = _begin(order, given)
    pid = one.process.pid
    one.listen(listener)
    write_life(life_fd, b'{"Pid": %d}' % pid)
    _say(lifeline, b'{"pid": %d}' % pid)
    began = time.monotonic()
    code = one.run()
    write_life(life_fd, life_of(pid, code, time.monotonic() - began))
    os.close(dict(given)["claim"])
    one.say_goodbye()
    _remove(order["socket"])  # before the end is known: the next shim's has the same name
    lifeline.close()
    one.let_go()


def _run_exec(
    order: dict[str, Any], lifeline: _socket.socket, given: list[tuple[str, int]]
) -> None:
    """Start one more process, and look after it. It is forgotten with its daemon: it leaves no file.

    Its clients see their end only after the daemon was told of it: they ask how it ended at once.
    """
    one = _begin(order, given)
    one.obey(lifeline)
    _say(lifeline, b'{"pid": %d}' % one.process.pid)
    code = one.run()
    _say(lifeline, b'{"ExitCode": %d}' % code)
    one.loop.forget(lifeline.fileno())
    one.say_goodbye()
    one.let_go()


def _begin(order: dict[str, Any], given: list[tuple[str, int]]) -> Shim:
    """Start the process on new streams, with the clients that wait for it. Raises as `start_on_streams`."""
    fds = dict(given)
    one = Shim(order, *start_on_streams(order, fds))
    clients = [fd for name, fd in given if name == "client"]
    for fd, wanted in zip(clients, order["clients"], strict=True):
        one.attach(socket.socket(fileno=fd), wanted)
    for name in ("rootfs", "cgroup", "netns", "userns", "shm"):
        if name in fds:
            os.close(fds[name])
    return one


def listen_at(path: str) -> _socket.socket:
    """Return a socket that listens at `path`. The C half of the class: the other half costs 0.2 MB."""
    _remove(path)
    listener = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(128)
    return listener


def _say(lifeline: _socket.socket, word: bytes) -> None:
    """Tell the daemon; one that has died meanwhile will ask the files."""
    try:
        lifeline.send(word)
    except OSError:
        pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


# %% notebooks/14d_shims.ipynb#rehearse
REHEARSALS = 20


def rehearse(directory: str) -> None:
    """Live the quiet part of a shim's life again and again, in an empty directory and without a process.

    The interpreter writes into code that it runs for the first times, to make it faster. What the zygote
    has had written, its shims share.
    """
    log = {"path": f"{directory}/log", "max_size": 0, "max_file": 1}
    for _ in range(REHEARSALS):
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        streams = Streams(None, ends[0][0], ends[1][0], False)
        one = Shim({"log": log}, Process(0, ends[2][0], ()), streams)
        listener = listen_at(f"{directory}/socket")
        one.listen(listener)
        life_fd = open_life(f"{directory}/life")
        write_life(life_fd, b'{"Pid": %d}' % os.getpid())
        for _, write_fd in ends:
            os.close(write_fd)
        while not one.ended:
            one.loop.turn(0)
        one.loop.forget(listener.fileno())
        listener.close()
        write_life(life_fd, life_of(os.getpid(), 0, 0.0))
        one.close_log()
        os.close(life_fd)
        os.close(ends[2][0])
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
