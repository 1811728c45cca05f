# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#server-module
"""The server: sockets to listen at, a thread for each connection, an answer for every error."""

from __future__ import annotations

import errno
import grp
import os
import socket
import ssl
import threading
import time
from urllib.parse import quote

import h11

from mini_docker import __version__
from mini_docker.api.http import Connection, Gone, HttpError, Request, Slow
from mini_docker.api.routes import NEWEST, Call, Table, clean_path, split_version, text
from mini_docker.api.strict import NoHttp
from mini_docker.engine.accidents import log, sentence, told
from mini_docker.engine.container import EngineError, NotModified
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import (
    Forbidden,
    NameTaken,
    NetworkFailure,
    NoSuchNetwork,
    NoSuchPlugin,
    NoSuchVolume,
    VolumeInUse,
)
from mini_docker.engine.execs import NoSuchExec
from mini_docker.engine.orders import StartFailed
from mini_docker.engine.store import Conflict, NoSuchContainer
from mini_docker.images.layout import ImageError, NoSuchImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.engine.engine import Engine


# %% notebooks/18_http_api.ipynb#errors
COMMON = [
    ("Api-Version", text(NEWEST)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"Docker/{__version__} (linux)"),
]
STATUS: list[tuple[type[Exception], int]] = [
    (NotModified, 304),
    (NoSuchContainer, 404),
    (NoSuchExec, 404),
    (NoSuchImage, 404),
    (NoSuchNetwork, 404),
    (NoSuchVolume, 404),
    (NoSuchPlugin, 404),
    (Forbidden, 403),
    (Conflict, 409),
    (NameTaken, 409),
    (VolumeInUse, 409),
    (NetworkFailure, 500),
    (InvalidRequest, 400),
    (EngineError, 500),
    (ImageError, 500),
    (OSError, 500),
]


def status_of(error: Exception) -> int:
    """Return the HTTP status of an engine's error: the one place that knows both."""
    if isinstance(error, HttpError):
        return error.status
    if isinstance(error, StartFailed):
        if error.about_command:
            return 400
        return status_of(error.__cause__) if isinstance(error.__cause__, Exception) else 500
    if isinstance(error, ImageError) and str(error).startswith("invalid reference format"):
        return 400
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


# %% notebooks/18_http_api.ipynb#serve
HANDSHAKE_SECONDS = 10.0
PLAIN_STARTS = (b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO")
NO_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
SHORT_SECONDS = 0.1  # before the next try, where there is nothing to accept a client with
CLOSED = (errno.EBADF, errno.EINVAL)  # what accept(2) says of a listener that is one no more


class Server:
    """Answers requests with an engine and a table of routes."""

    def __init__(self, engine: Engine, table: Table) -> None:
        """Listen nowhere yet."""
        self.engine, self.table = engine, table
        self.listeners: list[socket.socket] = []
        # threads that serve one; each changes its own entry alone
        self.connections: set[int] = set()
        self.used = time.monotonic()

    def busy(self) -> bool:
        """Say whether a client is connected."""
        return bool(self.connections)

    def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections on a listening socket, in a thread."""
        self.listeners.append(listener)
        threading.Thread(
            target=self._accept, args=(listener, tls), name="accept", daemon=True
        ).start()

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        short = False
        while True:
            try:
                stream = listener.accept()[0]
            except OSError as error:
                if error.errno in CLOSED:
                    return  # the daemon ends
                if not short:  # of descriptors or memory: once those who have some go, it goes on
                    log(f"no client can connect now: {error.strerror}")
                short = True
                time.sleep(SHORT_SECONDS)
                continue
            short = False
            try:
                threading.Thread(target=self._connection, args=(stream, tls), daemon=True).start()
            except RuntimeError as error:  # no more threads
                log(f"a connection was refused: {error}")
                stream.close()

    def _connection(self, stream: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve one connection to its end. Whatever it brings, the daemon lives."""
        connection = Connection(stream, COMMON)
        me = threading.get_ident()
        self.connections.add(me)
        try:
            if tls is not None:
                stream.settimeout(HANDSHAKE_SECONDS)  # for all of it, however slowly it comes
                if stream.recv(5, socket.MSG_PEEK) in PLAIN_STARTS:
                    log("a client speaks HTTP where TLS is spoken")
                    stream.sendall(NO_TLS)
                    drain(stream)
                    return
                connection.stream = stream = tls.wrap_socket(stream, server_side=True)
            while not connection.hijacked and (request := connection.next_request()):
                self.answer(connection, request)
            if connection.unread():
                drain(stream)
        except Slow as error:
            log(f"a client was too slow: {error}")
        except (Gone, ssl.SSLError, OSError):
            pass
        except NoHttp as error:
            log(f"a request was no HTTP: {error.__cause__ or error}")
            refuse(stream, error)
            drain(stream)
        except h11.ProtocolError as error:
            log(f"an answer was no HTTP: {error}")
        finally:
            if not connection.hijacked:
                stream.close()
            self.used = time.monotonic()
            self.connections.discard(me)

    def answer(self, connection: Connection, request: Request) -> None:
        """Find the route and call it; every exception becomes an answer, and a line in the log."""
        try:
            clean = clean_path(request.path)
            if request.method == "OPTIONS":
                connection.empty(200)
            elif clean != request.path:
                query = f"?{request.query_text}" if request.query_text else ""
                connection.empty(301, [("Location", quote(clean, "/$&+,:;=@") + query)])
            else:
                request.version, request.path = split_version(request.path)
                route, holes = self.table.find(request.method, request.path)
                route.handler(Call(self.engine, request, connection, holes))
        except (Gone, h11.ProtocolError):
            raise
        except Exception as error:
            if status_of(error) >= 500:
                log(f"{request.method} {request.path}: {told(error)}")
            if connection.hijacked:
                connection.stream.close()
            elif connection.answered:
                raise Gone(str(error)) from None
            else:
                send_error(connection, error, request.method == "HEAD")

    def close(self) -> None:
        """Stop listening."""
        for listener in self.listeners:
            listener.close()


def refuse(stream: socket.socket, error: NoHttp) -> None:
    """Answer what is no HTTP, if there is still a way to."""
    try:
        stream.settimeout(HANDSHAKE_SECONDS)
        stream.sendall(error.answer())
    except OSError:
        pass


def drain(stream: socket.socket) -> None:
    """Read on for a moment: a close with unread data would take the answer away from the client."""
    try:
        stream.shutdown(socket.SHUT_WR)
        stream.settimeout(0.5)
        for _ in range(64):
            if not stream.recv(1 << 16):
                break
    except OSError:
        pass


def send_error(connection: Connection, error: Exception, head_only: bool = False) -> None:
    """Answer with Docker's error body: {"message": ...}, or plain text for a client that is too old."""
    status = status_of(error)
    if status == 304 or head_only:
        connection.empty(status, [("Content-Type", "application/json")] if head_only else [])
    elif isinstance(error, HttpError) and error.plain:
        connection.send_bytes(status, "text/plain; charset=utf-8", f"{error}\n".encode())
    else:
        words = error.strerror if isinstance(error, OSError) and error.strerror else sentence(error)
        connection.send_json(status, {"message": words or "an error without words"})


# %% notebooks/18_http_api.ipynb#sockets
GROUPS = ("mini_docker", "docker")


def unix_listener(path: str) -> socket.socket:
    """Return a socket that listens at `path`, for root and the group (if there is one) alone.

    Raises OSError(EADDRINUSE) where somebody answers there; what a dead daemon left is replaced.
    """
    listener = socket.socket(socket.AF_UNIX)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        else:
            raise OSError(98, f"a daemon is already listening at {path}")
    if os.path.exists(path):
        os.unlink(path)
    mask = os.umask(0o117)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    os.chown(path, 0, group_id())
    listener.listen(512)
    return listener


def group_id() -> int:
    """Return the group that may use the socket: mini_docker or docker, or root's where neither exists."""
    for name in GROUPS:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            continue
    return 0


KEEP_ALIVE = (
    ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 15),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 15),
)  # seconds, as Go's net package; accepted sockets inherit them, tcp(7)


def tcp_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for option, value in KEEP_ALIVE:  # a peer that vanished without a word is noticed
        listener.setsockopt(*option, value)
    listener.bind((host, port))
    listener.listen(512)
    return listener


def tls_context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return what lets in only clients with a certificate of the same authority. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
