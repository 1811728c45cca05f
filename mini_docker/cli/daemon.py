# Exported from notebooks/H_the_command_itself.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/H_the_command_itself.ipynb#daemon-module
"""Our daemon's process: run in the foreground by a command, or started by the first that needs it."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.command import Command
from mini_docker.cli.context import DEFAULT_CONTEXT, Endpoint, connect, data_root, host_of
from mini_docker.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/H_the_command_itself.ipynb#daemon-words
DAEMON_FLAGS = """
-H, --host list         Where to listen: unix://PATH, tcp://ADDRESS:PORT (with --tlsverify), fd://
    --data-root string  Where images and containers are kept
    --idle seconds      End after so long without a client or a living container
-p, --pidfile string    Write the process's number to a file
-s, --storage-driver string  overlay2, btrfs or vfs (default: the data root's own)
    --userns-remap string  Whose subordinate ids stand for containers' ids: default, user[:group], uid:gid
    --tlsverify         Let in only clients with a certificate of the same authority
    --tlscacert string  The authority's certificate
    --tlscert string    The daemon's certificate
    --tlskey string     The daemon's key
"""
LAUNCHER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from {} import main; sys.exit(main(sys.argv[1:]))"
)


def program(launcher: str) -> list[str]:
    """Return the start of a command line that runs a program of ours, which is no module of the client.

    Isolated (-I): no module of the working directory, nor of the environment, gets into a root program.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-I", "-c", launcher, root]


def daemon_words() -> list[str]:
    """Return the start of the daemon's command line."""
    return program(LAUNCHER.format("mini_docker.api.daemon"))


def daemon(call: Call, parsed: Parsed) -> int:
    """Become the daemon."""
    words = daemon_words()
    root = parsed.one("data-root") or data_root(call.settings.values)
    if not parsed.given("data-root"):
        words += ["--data-root", root]
    if not parsed.given("host"):
        words += ["--host", host_of(os.path.abspath(root))]
    for name, values in parsed.values.items():
        for value in values:
            words += [f"--{name}"] if name == "tlsverify" else [f"--{name}", value]
    sys.stdout.flush()
    return os.execv(words[0], words)


# %% notebooks/H_the_command_itself.ipynb#daemon-start
PATIENCE = 60.0  # seconds for a daemon to come up on a slow machine
STEP = 0.01
IDLE = (
    600  # seconds without a client or a container, after which a daemon that a command started ends
)


def start_daemon(host: str, root: str) -> None:
    """Start the daemon of a data root, say so in one line, and wait until it answers.

    Of several commands that miss it at once, one starts it and the others wait. Raises CommandError, with
    the daemon's last words when it ended.
    """
    if os.geteuid() != 0:
        problem = f"Cannot connect to the Docker daemon at {host}. Is the docker daemon running?"
        raise CommandError(f"{problem} (only root can start it: sudo mini_docker ...)")
    import fcntl

    path = host.removeprefix("unix://")
    log = f"{path.removesuffix('.sock')}.log"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}"
        raise CommandError(f"mini_docker: the daemon cannot be started: {text}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(host):
            _start(host, root, log)
    finally:
        os.close(lock)


def _start(host: str, root: str, log: str) -> None:
    """Start a daemon and wait, PATIENCE seconds at most, until it answers. Raises CommandError."""
    import time

    more = ["--host", host, "--data-root", root, "--idle", str(IDLE)]
    pid = _spawn([*daemon_words(), *more], log)
    print(f"mini_docker: no daemon was running; started one (its log: {log})", file=sys.stderr)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if _answers(host):
            return
        time.sleep(STEP)
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise CommandError(f"mini_docker: the daemon ended at once: {_last_line(log)}")
    raise CommandError(f"mini_docker: the daemon does not answer; its log: {log}")


def _answers(host: str) -> bool:
    """Say whether somebody listens."""
    try:
        connect(Endpoint(host, (), False, DEFAULT_CONTEXT)).close()
        return True
    except OSError:
        return False


def _spawn(words: list[str], log: str) -> int:
    """Run a command in a session of its own, its output in a file; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir("/")
        os.closerange(3, 1024)  # whatever our caller left open: a lock, a pipe of make's
        null = os.open(os.devnull, os.O_RDONLY)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.execv(words[0], words)
    finally:
        os._exit(127)


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return (file.read().strip().splitlines() or ["without a word"])[-1]


# %% notebooks/H_the_command_itself.ipynb#daemon-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "daemon",
        "[OPTIONS]",
        "Run the engine and its HTTP API in the foreground",
        DAEMON_FLAGS,
        daemon,
        0,
        0,
        ("daemon", "daemon -H unix:///tmp/other.sock --data-root /tmp/other"),
    ),
)
