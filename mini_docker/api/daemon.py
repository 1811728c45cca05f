# Exported from notebooks/18b_streams.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18b_streams.ipynb#daemon-module
"""`mini_docker daemon`: the engine and its server in one process, until a signal ends it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections import namedtuple

from mini_docker.engine.remap import choose_remap, remapped_root
from mini_docker.engine.roots import choose_roots
from mini_docker.engine.store import DEFAULT_ROOT
from mini_docker.engine.upkeep import NAME, serve
from mini_docker.engine.zygote import start_zygote
from mini_docker.linux.process import set_process_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    from mini_docker.api.server import Server
    from mini_docker.engine.engine import Engine

    class Options(NamedTuple):
        """What the command line of the daemon says."""

        hosts: tuple[str, ...]
        data_root: str
        pidfile: str
        storage_driver: str
        userns_remap: str
        tls: tuple[str, str, str] | None  # authority, certificate, key
        idle: float  # seconds without a client or a container after which it ends; 0: never

else:
    Options = namedtuple(
        "Options",
        ("hosts", "data_root", "pidfile", "storage_driver", "userns_remap", "tls", "idle"),
    )


# %% notebooks/18b_streams.ipynb#options
DEFAULT_HOST = "unix:///run/mini_docker.sock"
USAGE = f"""
Usage:  mini_docker daemon [OPTIONS]

Run the engine and its HTTP API in the foreground. SIGTERM ends it; its containers run on.

Options:
  -H, --host list        Where to listen: unix://PATH, tcp://ADDRESS:PORT (with --tlsverify), fd://
                         (default {DEFAULT_HOST})
      --data-root path   Where images and containers are kept (default {DEFAULT_ROOT})
      --idle seconds     End after so long without a client or a living container (default 0, never)
  -p, --pidfile path     Write the process's number to a file
  -s, --storage-driver string  overlay2, btrfs or vfs (default: the data root's, else the first that works)
      --userns-remap string  Whose subordinate ids stand for containers' ids: default, user[:group], uid:gid
      --tlsverify        Let in only clients with a certificate of the same authority
      --tlscacert path   The authority's certificate
      --tlscert path     The daemon's certificate
      --tlskey path      The daemon's key
      --help             Print usage
"""


class Wrong(Exception):
    """An option that makes no sense; the text names it and the remedy."""


FILES = ("--tlscacert", "--tlscert", "--tlskey")
WITH_VALUE = (
    "--host",
    "--data-root",
    "--pidfile",
    "--storage-driver",
    "--userns-remap",
    "--idle",
    *FILES,
)


def parse(words: Sequence[str]) -> Options | None:
    """Return what the words of the command line ask for, None for help. Raises Wrong."""
    values: dict[str, list[str]] = {}
    names = {"-H": "--host", "-p": "--pidfile", "-s": "--storage-driver"}
    rest = list(words)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        name = names.get(word, word)
        if name == "--help":
            return None
        if name == "--tlsverify":
            values["--tls"] = []
            continue
        if name not in WITH_VALUE:
            raise Wrong(f"unknown option {word}; remedy: mini_docker daemon --help")
        if not equals and not rest:
            raise Wrong(f"{word} needs a value")
        values.setdefault(name, []).append(value if equals else rest.pop(0))
    hosts = tuple(values.get("--host", (DEFAULT_HOST,)))
    for host in hosts:
        check_host(host)
    files = [values.get(name, [""])[-1] for name in FILES]
    if "--tls" in values and not all(files):
        raise Wrong("--tlsverify needs --tlscacert, --tlscert and --tlskey")
    if any(host.startswith("tcp://") for host in hosts) and "--tls" not in values:
        raise Wrong(
            "whoever reaches a tcp:// address would be root here; remedy: --tlsverify with certificates"
        )
    tls = (files[0], files[1], files[2]) if "--tls" in values else None
    root, pidfile, driver, remap = (values.get(name, [""])[-1] for name in WITH_VALUE[1:5])
    root = root or os.environ.get("MINI_DOCKER_ROOT") or DEFAULT_ROOT
    idle = check_idle(values.get("--idle", ["0"])[-1])
    return Options(hosts, root, pidfile, driver, remap, tls, idle)


def check_idle(text: str) -> float:
    """Return a number of seconds. Raises Wrong."""
    if not text.isdigit():
        raise Wrong(f"--idle {text}: a number of seconds is wanted")
    return float(text)


def check_host(host: str) -> None:
    """Raise Wrong for an address that cannot be listened at."""
    scheme, separator, rest = host.partition("://")
    if (
        not separator
        or scheme not in ("unix", "tcp", "fd")
        or (scheme == "unix" and rest[:1] != "/")
    ):
        raise Wrong(f"{host} is no unix://PATH, tcp://ADDRESS:PORT or fd://")
    if scheme == "tcp" and not rest.rpartition(":")[2].isdigit():
        raise Wrong(f"{host}: a port is missing, as in tcp://127.0.0.1:2376")


# %% notebooks/18b_streams.ipynb#run-daemon
def main(words: Sequence[str]) -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status."""
    try:
        options = parse(words)
        if options is None:
            print(USAGE.strip())
            return 0
        if os.geteuid() != 0:
            raise Wrong("the daemon needs root; remedy: sudo mini_docker daemon")
        return run(options)
    except Wrong as error:
        print(f"mini_docker daemon: {error}", file=sys.stderr)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(f"mini_docker daemon: {error.strerror or error}{where}", file=sys.stderr)
    return 1


PATIENCE = 5.0  # seconds that a daemon which is about to end may keep the next one waiting
STEP = 0.2


def run(options: Options) -> int:
    """Take the data root, fork the zygote, listen, and wait for the end. Raises OSError, Wrong."""
    os.umask(0o022)
    os.makedirs(options.data_root, exist_ok=True)
    set_process_name(NAME)
    lock_fd, data_root = -1, options.data_root
    try:
        remap = choose_remap(options.userns_remap) if options.userns_remap else None
        if remap:
            data_root = remapped_root(data_root, remap)
        lock_fd = take(data_root, options.idle)
        choose_roots(data_root, options.storage_driver)
    except ValueError as error:
        raise Wrong(str(error)) from None
    ends = ends_by_signal()
    zygote = start_zygote()  # before the first thread, see chapter 14d
    raise_descriptors()  # after it: containers keep the limit that we were given
    try:
        from mini_docker.api.server import Server
        from mini_docker.api.table import TABLE
    except ModuleNotFoundError as error:
        zygote.close()
        raise Wrong(f"{error}; remedy: apt-get install python3-{error.name}") from None
    from mini_docker.engine.accidents import log, log_thread
    from mini_docker.engine.engine import Engine

    threading.excepthook = log_thread
    warnings.simplefilter("ignore")  # of the patterns of strangers
    try:
        engine = Engine(data_root, zygote, remap)
    except ValueError as error:
        zygote.close()
        raise Wrong(str(error)) from None
    for words in engine.resume():
        log(f"lost while no daemon ran: {words}")
    server = Server(engine, TABLE)
    paths = open_listeners(server, options)
    if options.pidfile:
        with open(options.pidfile, "w") as file:
            file.write(f"{os.getpid()}\n")
    log(f"ready: {', '.join(options.hosts)}, data root {data_root}")
    notify_ready()
    wait_for_the_end(ends, server, engine, options.idle, paths)
    engine.stopping = True
    server.close()
    remove_files([*paths, *([options.pidfile] if options.pidfile else [])])
    zygote.close()
    try:
        engine.wiring.networks.leave()
    except OSError as error:  # of the kernel or the disk: the next start mends it
        log(f"networks stay as they are: {error}")
    os.close(lock_fd)
    log("ended; containers run on")
    sys.stderr.flush()
    os._exit(0)  # threads that wait for clients must not keep it


def raise_descriptors() -> None:
    """Allow as many open files as the hard limit does, getrlimit(2): each client has one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def take(data_root: str, idle: float) -> int:
    """Return a descriptor that holds the data root. Raises Wrong where another daemon does."""
    try:
        return serve(data_root, PATIENCE if idle else 0)
    except BlockingIOError:
        raise Wrong(f"another daemon serves the data root {data_root}") from None


def wait_for_the_end(
    ends: ends_by_signal, server: Server, engine: Engine, idle: float, paths: Sequence[str]
) -> None:
    """Return after a signal, or when nobody has needed the daemon for `idle` seconds.

    The socket's name goes first: who comes now starts another daemon; who has come is served to the end.
    """
    while not ends.wait(min(idle / 4, 10) if idle else 3600):
        used = server.busy() or engine.containers.busy()
        if not idle or used or time.monotonic() - server.used < idle:
            continue
        remove_files(paths)
        while not ends.wait(STEP):
            if not server.busy() and time.monotonic() - server.used > STEP:
                return
        return


def remove_files(paths: Sequence[str]) -> None:
    """Remove files; one that is gone is fine."""
    for path in paths:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass


class ends_by_signal:  # noqa: N801 (reads as what it is)
    """Waits for SIGTERM or SIGINT in a way that works beside threads."""

    def __init__(self) -> None:
        """Catch the two."""
        self.event = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.event.set())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def wait(self, seconds: float) -> bool:
        """Wait for the signal at most so long; return whether it has come."""
        return self.event.wait(seconds)


# %% notebooks/18b_streams.ipynb#listeners
FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def open_listeners(server: Server, options: Options) -> list[str]:
    """Listen where the options say; return the paths to remove at the end. Raises OSError, Wrong."""
    from mini_docker.api.server import tcp_listener, tls_context, unix_listener

    paths = []
    for host in options.hosts:
        scheme, _, rest = host.partition("://")
        if scheme == "unix" and rest.startswith("/"):
            server.listen(unix_listener(rest))
            paths.append(rest)
        elif scheme == "tcp" and options.tls:
            address, _, port = rest.rpartition(":")
            context = tls_context(*options.tls)
            server.listen(tcp_listener(address.strip("[]") or "0.0.0.0", int(port)), context)
        elif scheme == "fd":
            for listener in passed_listeners():
                server.listen(listener)
    return paths


def passed_listeners() -> list[socket.socket]:
    """Return the sockets that systemd has opened for us, sd_listen_fds(3). Raises Wrong for none."""
    count = int(os.environ.get("LISTEN_FDS", "0"))
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count:
        raise Wrong("fd:// is for systemd's socket activation, and no socket was passed")
    return [socket.socket(fileno=FIRST_PASSED_FD + number) for number in range(count)]


def notify_ready() -> None:
    """Tell systemd, if it asked for it, that the daemon answers now, sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notes:
            notes.sendto(b"READY=1", path.replace("@", "\0", 1))
