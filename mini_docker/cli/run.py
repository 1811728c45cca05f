# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#run-module
"""`mini_docker run`: words to a create request, a container on the user's streams, its exit status."""

from __future__ import annotations

import os
import signal
import sys

from mini_docker.cli.flags import UsageError, option, parse_size, switch
from mini_docker.cli.main import FAILED, CommandError, open_engine, read
from mini_docker.cli.terminal import Raw, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.flags import Parsed
    from mini_docker.engine.direct import Container, Direct


# %% notebooks/19_command_line.ipynb#run-flags
NETWORKS = ("bridge", "none", "host")
NOT_FOUND, NOT_EXECUTABLE = 127, 126
FLAGS = (
    switch("rm", "Automatically remove the container when it exits"),
    switch("interactive", "Keep STDIN open even if not attached", "i"),
    switch("tty", "Allocate a pseudo-TTY", "t"),
    option("env", "list", "Set environment variables", "e", many=True),
    option("workdir", "string", "Working directory inside the container", "w"),
    option("user", "string", "Username or UID (format: <name|uid>[:<group|gid>])", "u"),
    option("volume", "list", "Bind mount a volume", "v", many=True),
    option("memory", "bytes", "Memory limit", "m"),
    option("pids-limit", "int", "Tune container pids limit"),
    option("cpus", "decimal", "Number of CPUs"),
    option("hostname", "string", "Container host name", "h"),
    option("name", "string", "Assign a name to the container"),
    option("network", "network", "Connect a container to a network: bridge, none or host"),
    option("net", "network", "The same as --network"),
    option("entrypoint", "string", "Overwrite the default ENTRYPOINT of the image"),
    switch("read-only", "Mount the container's root filesystem as read only"),
    switch("explain", "Print the plan: each step with its chapter, man page and time"),
)


def command_run(data_root: str, arguments: list[str]) -> int:
    """Run `mini_docker run ARGUMENTS...` and return the exit status."""
    parsed = read("run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", FLAGS, arguments, interspersed=False)
    if parsed is None:
        return 0
    if not parsed.words:
        raise UsageError("'mini_docker run' requires at least 1 argument")
    request = create_request(parsed)
    if parsed.on("tty") and parsed.on("interactive") and not os.isatty(0):
        raise CommandError("the input device is not a TTY", 1)
    _interruptible()
    return _run(open_engine(data_root), request, parsed)


# %% notebooks/19_command_line.ipynb#create-request
def create_request(parsed: Parsed) -> dict[str, Any]:
    """Return the body of Docker's POST /containers/create that the flags ask for. Raises UsageError."""
    image, *words = parsed.words
    network = parsed.one("network") or parsed.one("net") or "bridge"
    if network not in NETWORKS:
        raise CommandError(f"network {network} not found; there are: {', '.join(NETWORKS)}", FAILED)
    return {
        "Image": image,
        "Cmd": words,
        "Entrypoint": _entrypoint(parsed),
        "Env": [_variable(text) for text in parsed.all("env")],
        "WorkingDir": parsed.one("workdir"),
        "User": parsed.one("user"),
        "Hostname": parsed.one("hostname"),
        "Tty": parsed.on("tty"),
        "OpenStdin": parsed.on("interactive"),
        "HostConfig": {
            "AutoRemove": parsed.on("rm"),
            "Binds": parsed.all("volume"),
            "Memory": parse_size(parsed.one("memory", "0")),
            "PidsLimit": _number(parsed.one("pids-limit", "0"), "pids-limit", int),
            "NanoCpus": _nano_cpus(parsed.one("cpus", "0")),
            "NetworkMode": network,
            "ReadonlyRootfs": parsed.on("read-only"),
        },
    }


def _entrypoint(parsed: Parsed) -> list[str] | None:
    if not parsed.all("entrypoint"):
        return None
    return [parsed.one("entrypoint")] if parsed.one("entrypoint") else []


def _variable(text: str) -> str:
    """Return NAME=value; a NAME alone takes its value from our own environment, as Docker's -e does."""
    name, separator, _ = text.partition("=")
    if not name:
        raise UsageError(
            f'invalid argument "{text}" for "-e, --env" flag: invalid environment variable: {text}'
        )
    if separator:
        return text
    return f"{name}={os.environ[name]}" if name in os.environ else name


def _number(text: str, flag: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--{flag}" flag: not a number') from None


def _nano_cpus(text: str) -> int:
    cpus: float = _number(text, "cpus", float)
    if not abs(cpus) < 1e6:  # nan and inf are numbers to Python
        raise UsageError(f'invalid argument "{text}" for "--cpus" flag: not a number')
    return int(cpus * 1e9)


# %% notebooks/19_command_line.ipynb#run-attached
def _interruptible() -> None:
    """Let SIGTERM and SIGHUP unwind the stack as SIGINT does, so that set-up is undone."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, end)


def _run(engine: Direct, request: dict[str, Any], parsed: Parsed) -> int:
    from mini_docker.engine.document import InvalidRequest
    from mini_docker.engine.store import Conflict
    from mini_docker.images.layout import ImageError, NoSuchImage

    try:
        try:
            container = engine.create(request, parsed.one("name"))
        except NoSuchImage:
            _pull(engine, request["Image"])
            container = engine.create(request, parsed.one("name"))
        return _attached(container, request, parsed.on("explain"))
    except (Conflict, InvalidRequest, ImageError, ValueError) as error:
        raise CommandError(str(error), FAILED) from None


def _pull(engine: Direct, name: str) -> None:
    """Fetch the image that is not here; its progress goes to stderr. Raises CommandError."""
    from mini_docker.cli.registry import pull_image, reference_of

    reference = reference_of(name)
    print(f"Unable to find image '{reference.familiar()}' locally", file=sys.stderr)
    try:
        pull_image(engine.store, reference, None, sys.stderr)
    except CommandError as error:
        have = ", ".join(engine.store.layout.names()) or "none yet: mini_docker setup"
        raise CommandError(f"{error}; images here: {have}", FAILED) from None


def _attached(container: Container, request: dict[str, Any], explain: bool) -> int:
    """Start the container on pipes or a terminal, look after it until it ends, clean up."""
    from mini_docker.runtime.init import StartError

    keep = False
    status = FAILED
    try:
        start = _start_on_terminal if request["Tty"] else _start_on_pipes
        status = start(container, request, explain)
        keep = not request["HostConfig"]["AutoRemove"]
        return status
    except StartError as error:
        status = _status_of(error.errno) if error.about_command else FAILED
        raise CommandError(str(error), status) from None
    finally:
        container.finish(status, keep)


def _status_of(errno: int | None) -> int:
    """Return Docker's exit status for a command that could not be executed."""
    return NOT_FOUND if errno in (2, 20) else NOT_EXECUTABLE


def _start_on_pipes(container: Container, request: dict[str, Any], explain: bool) -> int:
    from mini_docker.engine.direct import Streams
    from mini_docker.engine.supervise import Relay, supervise

    interactive = request["OpenStdin"]
    if interactive:
        child_in, to_stdin = os.pipe2(os.O_CLOEXEC)
    else:
        child_in, to_stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
    from_stdout, child_out = os.pipe2(os.O_CLOEXEC)
    from_stderr, child_err = os.pipe2(os.O_CLOEXEC)
    container.start(Streams(child_in, child_out, child_err, None))
    for fd in (child_in, child_out, child_err):
        os.close(fd)
    _explain(container, explain)
    stdin = 0 if interactive else None
    relay = Relay(stdin, to_stdin, from_stdout, from_stderr, None)
    return supervise(container.pid, container.pidfd, relay)


def _start_on_terminal(container: Container, request: dict[str, Any], explain: bool) -> int:
    import socket

    from mini_docker.engine.direct import Streams
    from mini_docker.engine.supervise import Relay, supervise
    from mini_docker.runtime.console import Console, receive_console, resize

    ours, theirs = socket.socketpair()
    rows, columns = size(1) if os.isatty(1) else size(0)
    container.start(Streams(-1, -1, -1, Console(theirs.fileno(), rows, columns)))
    master = receive_console(ours.fileno())
    ours.close()
    theirs.close()
    _explain(container, explain)
    interactive = request["OpenStdin"]
    relay = Relay(
        0 if interactive else None, master, master, None, lambda: resize(master, *size(0))
    )
    if not interactive:
        return supervise(container.pid, container.pidfd, relay)
    with Raw(0):
        return supervise(container.pid, container.pidfd, relay)


def _explain(container: Container, wanted: bool) -> None:
    if wanted:
        from mini_docker.cli.explain import table

        sys.stderr.write(table(container.done))
        sys.stderr.flush()
