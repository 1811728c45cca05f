# Exported from notebooks/15c_names.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15c_names.ipynb#dns-server-module
"""The embedded name server: containers find each other by name at 127.0.0.11, the rest is forwarded."""

from __future__ import annotations

import errno
import os
import random
import selectors
import signal
import socket
import struct
import threading
import time

from mini_docker.engine.dns_messages import (
    REFUSED,
    SERVFAIL,
    Question,
    answer,
    header,
    parse_query,
    truncated,
    udp_limit,
)
from mini_docker.engine.dns_names import Names, resolve
from mini_docker.linux import nft
from mini_docker.linux.process import PR_SET_PDEATHSIG, close_range, prctl
from mini_docker.namespaces.net import in_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


# %% notebooks/15c_names.ipynb#dns-doors
LISTEN = "127.0.0.11"
DOOR_TABLE = "mini_docker_names"


def open_doors(netns_fd: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket inside a network namespace to which its 127.0.0.11:53 leads.

    They have ports of their own, so that the container may run a name server itself; nft inside the
    namespace translates. Opening them again, after a restart, replaces the old ones. Raises OSError,
    ValueError.
    """
    return in_netns(netns_fd, _open_doors)


def _open_doors() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        udp.bind((LISTEN, 0))
        tcp.bind((LISTEN, 0))
        tcp.listen(16)
        udp.setblocking(False)
        tcp.setblocking(False)
        nft.run(door_rules(udp.getsockname()[1], tcp.getsockname()[1]))
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def door_rules(udp_port: int, tcp_port: int) -> str:
    """Return the nft commands that lead 127.0.0.11:53 to our sockets, inside a container."""
    lead = f"ip daddr {LISTEN}"
    return f"""
table ip {DOOR_TABLE}
delete table ip {DOOR_TABLE}
table ip {DOOR_TABLE} {{
    chain output {{
        type nat hook output priority -100; policy accept;
        {lead} udp dport 53 dnat to {LISTEN}:{udp_port}
        {lead} tcp dport 53 dnat to {LISTEN}:{tcp_port}
    }}
}}
"""


# %% notebooks/15c_names.ipynb#dns-server
LIMIT_PENDING = 100  # of one container: forwarded queries, and TCP connections, at once
LIMIT_TCP = 16
FORWARD_SECONDS = 4.0
TCP_SECONDS = 10.0


class Client:
    """A container as the server sees it: its sockets, its servers in the world, what it has pending."""

    def __init__(
        self, container_id: str, doors: tuple[socket.socket, socket.socket], servers: Sequence[str]
    ) -> None:
        """Keep what belongs to one container."""
        self.container_id = container_id
        self.udp, self.tcp = doors
        self.servers = list(servers)
        self.pending = 0
        self.connections = 0


class Forward:
    """A query on its way to a server in the world, by the protocol by which it came.

    Its own socket has a random port: one guess more for a forger.
    """

    def __init__(
        self,
        client: Client,
        data: bytes,
        question: Question,
        reply: Callable[[bytes], None],
        by_udp: bool,
    ) -> None:
        """Keep the query and the way back; nothing is sent yet."""
        self.client, self.data, self.question = client, data, question
        self.reply, self.by_udp = reply, by_udp
        self.ident = random.SystemRandom().randrange(1 << 16)
        self.servers = client.servers[:3]
        self.socket: socket.socket | None = None
        self.received = bytearray()
        self.deadline = 0.0

    def message(self) -> bytes:
        """Return the query under its new id; by TCP its length stands in front."""
        query = struct.pack("!H", self.ident) + self.data[2:]
        return query if self.by_udp else len(query).to_bytes(2, "big") + query

    def matches(self, response: bytes) -> bool:
        """Say whether a response is one to this query: id, and the question word for word."""
        end = self.question.end
        asked = self.data[header.size : end]
        return (
            len(response) >= end
            and response[:2] == struct.pack("!H", self.ident)
            and bool(response[2] & 0x80)
            and response[header.size : end].lower() == asked.lower()
        )


class Server:
    """All containers' name server: one thread, one selector, and a limit on everything."""

    def __init__(self, directory: str) -> None:
        """Name the network directory. `start` runs it in a thread, `run` in the caller's."""
        self.names = Names(directory)
        self.selector = selectors.DefaultSelector()
        self.clients: dict[str, Client] = {}
        self.forwards: set[Forward] = set()
        self.connections: dict[socket.socket, tuple[Client, bytearray, float]] = {}
        self.lock = threading.Lock()
        self.wake_read, self.wake_write = socket.socketpair()
        self.wake_read.setblocking(False)
        self.wake_write.setblocking(False)
        self.selector.register(self.wake_read, selectors.EVENT_READ, self._woken)
        self.todo: list[Callable[[], None]] = []
        self.stopped = False

    # --- from other threads

    def start(self) -> threading.Thread:
        """Serve in a thread of its own."""
        thread = threading.Thread(target=self.run, name="names", daemon=True)
        thread.start()
        return thread

    def add(self, container_id: str, netns_fd: int, servers: Sequence[str]) -> None:
        """Serve a container, by sockets inside its network namespace. Raises OSError, ValueError."""
        self.add_client(Client(container_id, open_doors(netns_fd), servers))

    def add_client(self, client: Client) -> None:
        """Serve a container whose sockets are open."""
        self._later(lambda: self._add(client))

    def remove(self, container_id: str) -> None:
        """Serve a container no more; one that never was is fine."""
        self._later(lambda: self._remove(container_id))

    def stop(self) -> None:
        """End `run`."""
        self._later(lambda: setattr(self, "stopped", True))

    def _later(self, work: Callable[[], None]) -> None:
        with self.lock:
            self.todo.append(work)
        try:
            self.wake_write.send(b"!")
        except BlockingIOError:  # full of wake-ups already
            pass

    # --- in the serving thread

    def run(self) -> None:
        """Serve until `stop`."""
        while not self.stopped:
            for key, _ in self.selector.select(0.5 if self.forwards or self.connections else None):
                key.data()
            self._expire(time.monotonic())
        for container_id in list(self.clients):
            self._remove(container_id)
        self.selector.close()
        self.wake_read.close()
        self.wake_write.close()

    def _woken(self) -> None:
        try:
            self.wake_read.recv(4096)
        except BlockingIOError:
            pass
        with self.lock:
            todo, self.todo = self.todo, []
        for work in todo:
            work()

    def _add(self, client: Client) -> None:
        self._remove(client.container_id)
        self.clients[client.container_id] = client
        self.selector.register(client.udp, selectors.EVENT_READ, lambda: self._datagram(client))
        self.selector.register(client.tcp, selectors.EVENT_READ, lambda: self._accept(client))

    def _remove(self, container_id: str) -> None:
        client = self.clients.pop(container_id, None)
        if client is None:
            return
        for door in (client.udp, client.tcp):
            self.selector.unregister(door)
            door.close()
        for connection, (owner, _, _) in list(self.connections.items()):
            if owner is client:
                self._hang_up(connection)
        for forward in [f for f in self.forwards if f.client is client]:
            self._end(forward)

    def _datagram(self, client: Client) -> None:
        """Answer one datagram. What is no query gets no answer, as an answer to a forged sender would be
        an attack on it."""
        try:
            data, sender = client.udp.recvfrom(4096)
        except OSError:
            return

        def reply(response: bytes) -> None:
            try:
                client.udp.sendto(response, sender)
            except OSError:  # its buffer is full, or the container is gone
                pass

        self._query(client, data, reply, by_udp=True)

    def _query(
        self, client: Client, data: bytes, reply: Callable[[bytes], None], by_udp: bool
    ) -> None:
        try:
            question = parse_query(data)
        except ValueError:
            return
        response = resolve(self.names, client.container_id, data, question)
        if response is not None:
            reply(truncated(response, udp_limit(data, question)) if by_udp else response)
        elif not self.names.has_way_out(client.container_id) or not client.servers:
            reply(answer(data, question, SERVFAIL))
        elif client.pending >= LIMIT_PENDING:
            reply(answer(data, question, REFUSED))
        else:
            forward = Forward(client, data, question, reply, by_udp)
            client.pending += 1
            self.forwards.add(forward)
            self._send(forward)

    # --- to the world and back

    def _send(self, forward: Forward) -> None:
        """Send a query to its next server; with none left it has failed."""
        self._close(forward)
        while forward.servers:
            ip = forward.servers.pop(0)
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            kind = socket.SOCK_DGRAM if forward.by_udp else socket.SOCK_STREAM
            made = socket.socket(family, kind)
            made.setblocking(False)
            # the kernel drops what comes from anybody else
            error = made.connect_ex((ip, 53))
            if error not in (0, errno.EINPROGRESS):
                made.close()
                continue
            forward.socket, forward.deadline = made, time.monotonic() + FORWARD_SECONDS
            forward.received.clear()
            self.selector.register(made, selectors.EVENT_WRITE, lambda: self._connected(forward))
            return
        forward.reply(answer(forward.data, forward.question, SERVFAIL))
        self._end(forward)

    def _connected(self, forward: Forward) -> None:
        assert forward.socket is not None
        try:
            forward.socket.send(forward.message())
        except OSError:
            self._send(forward)
            return
        self.selector.modify(forward.socket, selectors.EVENT_READ, lambda: self._response(forward))

    def _response(self, forward: Forward) -> None:
        assert forward.socket is not None
        try:
            received = forward.socket.recv(65535)
        except OSError:  # nobody listens there
            received = b""
        if not received:
            self._send(forward)
            return
        if not forward.by_udp:
            forward.received += received
            size = int.from_bytes(forward.received[:2], "big")
            if len(forward.received) < 2 + size or len(forward.received) < 2:
                return
            received = bytes(forward.received[2 : 2 + size])
        if forward.matches(received):
            forward.reply(forward.data[:2] + received[2:])
            self._end(forward)

    def _close(self, forward: Forward) -> None:
        if forward.socket is not None:
            self.selector.unregister(forward.socket)
            forward.socket.close()
            forward.socket = None

    def _end(self, forward: Forward) -> None:
        self._close(forward)
        if forward in self.forwards:
            self.forwards.discard(forward)
            forward.client.pending -= 1

    def _expire(self, now: float) -> None:
        for forward in [f for f in self.forwards if f.deadline < now]:
            self._send(forward)
        for connection, (_, _, deadline) in list(self.connections.items()):
            if deadline < now:
                self._hang_up(connection)

    # --- TCP

    def _accept(self, client: Client) -> None:
        try:
            connection, _ = client.tcp.accept()
        except OSError:
            return
        if client.connections >= LIMIT_TCP:
            connection.close()
            return
        connection.setblocking(False)
        client.connections += 1
        deadline = time.monotonic() + TCP_SECONDS
        self.connections[connection] = (client, bytearray(), deadline)
        self.selector.register(connection, selectors.EVENT_READ, lambda: self._bytes(connection))

    def _bytes(self, connection: socket.socket) -> None:
        """Take what came; each query has its length in front, RFC 7766."""
        client, buffer, _ = self.connections[connection]
        try:
            received = connection.recv(4096)
        except OSError:
            received = b""
        buffer += received
        if not received or len(buffer) > 8192:
            self._hang_up(connection)
            return
        while len(buffer) >= 2 and len(buffer) >= 2 + int.from_bytes(buffer[:2], "big"):
            length = int.from_bytes(buffer[:2], "big")
            data = bytes(buffer[2 : 2 + length])
            del buffer[: 2 + length]
            self._query(client, data, lambda r: self._write(connection, r), by_udp=False)
            if connection not in self.connections:
                return

    def _write(self, connection: socket.socket, response: bytes) -> None:
        """Send a response; who does not read loses the connection."""
        if connection not in self.connections:
            return
        try:
            message = len(response).to_bytes(2, "big") + response
            if connection.send(message) < len(message):
                self._hang_up(connection)
        except OSError:
            self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        client, _, _ = self.connections.pop(connection)
        client.connections -= 1
        self.selector.unregister(connection)
        connection.close()


# %% notebooks/15c_names.ipynb#dns-alone
def serve_alone(directory: str, container_id: str, netns_fd: int, servers: Sequence[str]) -> int:
    """Fork a process that serves one container and ends with its parent; return its pid.

    For a program that looks after one container and has no threads. The child keeps nothing of its
    parent's but the sockets: a lock or a pipe that it held would outlive its owner. Raises OSError.
    """
    doors = open_doors(netns_fd)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        for door in doors:
            door.close()
        return pid
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        keep = sorted(door.fileno() for door in doors)
        first = 0
        for fd in keep:
            if fd > first:
                close_range(first, fd - 1)
            first = fd + 1
        close_range(first)
        for _ in range(3):  # what writes to stdout or stderr by mistake must not write to a socket
            os.open(os.devnull, os.O_RDWR)
        server = Server(directory)
        server.add_client(Client(container_id, doors, servers))
        server.run()
    finally:
        os._exit(1)
