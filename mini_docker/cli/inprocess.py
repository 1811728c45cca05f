# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#inprocess-module
"""The way without a daemon: the engine in the same process, for `run`, `ps`, `rm` and `images`."""

from __future__ import annotations

import os
import signal
import sys
import time

from mini_docker.cli.errors import FAILED, NOT_EXECUTABLE, NOT_FOUND, CommandError
from mini_docker.cli.flags import Flag, UsageError, parse, parse_size, switch_help, usage
from mini_docker.cli.terminal import Raw, size
from mini_docker.cli.text import age, columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.cli.flags import Parsed
    from mini_docker.engine.direct import Container, Direct


# %% notebooks/G_object_commands.ipynb#inprocess
ABOUT = {
    "run": "Create and run a new container from an image",
    "ps": "List containers",
    "rm": "Remove one or more containers",
    "images": "List images",
    "pull": "Download an image from a registry",
    "push": "Upload an image to a registry",
    "tag": "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    "login": "Log in to a registry",
    "logout": "Log out from a registry",
    "search": "Search a registry for images",
}


def option(name: str, value: str, help: str, letter: str = "", many: bool = False) -> Flag:
    """Return a flag with a value, or with several if it may be given many times."""
    return Flag(name, letter, value, help, many)


def switch(name: str, help: str, letter: str = "") -> Flag:
    """Return a flag without a value."""
    return Flag(name, letter, "", help, False)


def read(
    name: str, words: str, flags: Sequence[Flag], arguments: list[str], interspersed: bool = True
) -> Parsed | None:
    """Parse a command's arguments; None once its help was printed. Raises UsageError."""
    parsed = parse((*flags, switch_help()), arguments, interspersed)
    if parsed.on("help"):
        print(usage(f"mini_docker {name}", words, ABOUT[name], flags), end="")
        return None
    if parsed.words and words in ("", "[OPTIONS]"):
        raise UsageError(f"'mini_docker {name}' accepts no arguments")
    return parsed


def open_engine(data_root: str) -> Direct:
    """Return the engine of a data root. Raises CommandError with the remedy when not root."""
    if os.geteuid() != 0:
        raise CommandError(
            "containers need root on this machine; remedy: sudo mini_docker ...", FAILED
        )
    os.umask(0o022)
    from mini_docker.engine.direct import Direct
    from mini_docker.engine.store import DEFAULT_ROOT

    return Direct(data_root or DEFAULT_ROOT)


# %% notebooks/G_object_commands.ipynb#inprocess-flags
NETWORKS = ("bridge", "none", "host")
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


# %% notebooks/G_object_commands.ipynb#inprocess-request
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


# %% notebooks/G_object_commands.ipynb#inprocess-run
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


# %% notebooks/G_object_commands.ipynb#inprocess-lists
def command_ps(data_root: str, arguments: list[str]) -> int:
    """List containers: the running ones, or all with -a."""
    flags = (
        switch("all", "Show all containers (default shows just running)", "a"),
        switch("quiet", "Only display container IDs", "q"),
        switch("no-trunc", "Don't truncate output"),
    )
    parsed = read("ps", "[OPTIONS]", flags, arguments)
    if parsed is None:
        return 0
    store = open_engine(data_root).store
    alive = store.running()
    records = sorted(store.records(), key=lambda record: -float(record["Created"]))
    shown = [record for record in records if parsed.on("all") or record["Id"] in alive]
    width = 64 if parsed.on("no-trunc") else 12
    if parsed.on("quiet"):
        print("".join(f"{record['Id'][:width]}\n" for record in shown), end="")
        return 0
    rows = [_container_row(record, width, record["Id"] in alive) for record in shown]
    head = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
    print(columns(["\t".join(row) for row in (head, *rows)]), end="")
    return 0


def _container_row(record: dict[str, Any], width: int, alive: bool) -> tuple[str, ...]:
    now = time.time()
    words = " ".join(record["Command"])
    command = words if width == 64 or len(words) <= 20 else words[:19] + "…"
    state = record["State"]
    if alive:
        status = f"Up {age(now - state.get('At', record['Created']))}"
    elif state["Status"] == "created":
        status = "Created"
    else:
        status = f"Exited ({state['ExitCode']}) {age(now - state['At'])} ago"
    created = f"{age(now - record['Created'])} ago"
    image = record["Image"].removesuffix(":latest")
    return (record["Id"][:width], image, f'"{command}"', created, status, "", record["Name"])


# %% notebooks/G_object_commands.ipynb#inprocess-rest
def command_rm(data_root: str, arguments: list[str]) -> int:
    """Remove containers; each that cannot be removed is an error line, and the status is 1."""
    from mini_docker.engine.store import Conflict, NoSuchContainer

    flags = (switch("force", "Force the removal of a running container (uses SIGKILL)", "f"),)
    parsed = read("rm", "[OPTIONS] CONTAINER [CONTAINER...]", flags, arguments)
    if parsed is None:
        return 0
    if not parsed.words:
        raise UsageError("'mini_docker rm' requires at least 1 argument")
    engine = open_engine(data_root)
    status = 0
    for reference in parsed.words:
        try:
            engine.remove(reference, parsed.on("force"))
            print(reference)
        except NoSuchContainer as error:
            status = status if parsed.on("force") else 1
            print(f"Error response from daemon: {error}", file=sys.stderr)
        except Conflict as error:
            status = 1
            print(f"Error response from daemon: {error}", file=sys.stderr)
    return status


def command_images(data_root: str, arguments: list[str]) -> int:
    """List the images of the store."""
    from mini_docker.images.layout import ImageError

    parsed = read("images", "", (switch("quiet", "Only show image IDs", "q"),), arguments)
    if parsed is None:
        return 0
    layout = open_engine(data_root).store.layout
    rows = []
    try:
        for name in layout.names():
            image = layout.image(name)
            repository, _, tag = name.rpartition(":")
            size = sum(layer.size for layer in image.layers)
            rows.append(
                (repository, tag, image.digest.partition(":")[2][:12], f"{size / 1e6:.3g}MB")
            )
    except ImageError as error:
        raise CommandError(str(error)) from None
    if parsed.on("quiet"):
        print("".join(f"{row[2]}\n" for row in rows), end="")
    else:
        head = ("REPOSITORY", "TAG", "IMAGE ID", "SIZE")
        print(columns(["\t".join(row) for row in (head, *rows)]), end="")
    return 0
