# Exported from notebooks/19d_streams_and_terminals.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19d_streams_and_terminals.ipynb#attach-module
"""run, create, start, attach, exec, wait on the user's own streams: the commands that stay."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.client import quote
from mini_docker.cli.command import Command, bad_flag
from mini_docker.cli.create import CREATE_FLAGS, create_body, environment
from mini_docker.cli.errors import (
    FAILED,
    NOT_EXECUTABLE,
    NOT_FOUND,
    CommandError,
    DaemonError,
    StatusError,
)
from mini_docker.cli.streams import (
    DETACH_KEYS,
    FATAL,
    PASSED_ON,
    Detached,
    Keys,
    Screen,
    Session,
    Signals,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed
    from mini_docker.cli.http import Connection, Response
else:
    import _signal as signal  # the C half: the Python half imports enum


# %% notebooks/19d_streams_and_terminals.ipynb#stay
STREAMS = ("stdin", "stdout", "stderr")
MOST_INTERRUPTS = 3  # a container may ignore them, its user's patience ends


def signal_name(number: int) -> str:
    """Return "TERM" for 15, as the kill request wants it."""
    from signal import Signals as Named

    try:
        return Named(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)


def _console_size() -> list[int]:
    """Return the rows and columns of the user's terminal; [] where there is none."""
    from mini_docker.cli.terminal import size

    console = list(size(1) if os.isatty(1) else size(0))
    return console if any(console) else []


class Stay:
    """A user who stays with a container or an exec: the connection, and where signals and sizes go."""

    def __init__(self, client: Client, path: str, tty: bool, proxy: bool) -> None:
        """Name what is stayed with: "/containers/ID" or "/exec/ID"; `proxy`: signals are passed on."""
        self.client = client
        self.path = path
        self.tty = tty
        self.proxy = proxy and not tty
        self.interrupts = 0

    def obey(self, number: int) -> None:
        """Pass a signal on, or the terminal's new size; what ends us ends us with 128 + its number."""
        if self.tty and number == signal.SIGWINCH:
            self.resize()
        elif self.proxy:
            self.interrupts += number in (signal.SIGINT, signal.SIGTERM)
            if self.interrupts == MOST_INTERRUPTS:
                raise CommandError(f"got {MOST_INTERRUPTS} SIGTERM/SIGINTs, forcefully exiting")
            try:
                self.client.call("POST", f"{self.path}/kill", {"signal": signal_name(number)})
            except DaemonError:
                pass  # it has ended meanwhile
        elif number in FATAL or number == signal.SIGINT:
            raise StatusError(128 + number)

    def resize(self) -> None:
        """Tell the daemon how large the user's terminal is."""
        if console := _console_size():
            try:
                self.client.call(
                    "POST", f"{self.path}/resize", dict(zip("hw", console, strict=True))
                )
            except DaemonError:
                pass  # not started yet, or over: the size is no reason to fail

    def signals(self) -> Signals:
        """Return the signals that matter here."""
        if self.proxy:
            return Signals(PASSED_ON)
        return Signals((*FATAL, signal.SIGINT, *([signal.SIGWINCH] if self.tty else [])))

    def follow(self, signals: Signals, connection: Connection, stdin: bool, keys: str) -> None:
        """Carry bytes until the container's side ends. Raises Detached."""
        typed = stdin and self.tty and os.isatty(0)
        watched = Keys(keys) if typed else None
        session = Session(connection, Screen(self.tty), signals, 0 if stdin else None, watched)
        if self.tty:
            from mini_docker.cli.terminal import Raw

            with Raw(0, 1) if typed else Raw():
                self.resize()
                session.run(self.obey)
        else:
            session.run(self.obey)

    def wait(self, signals: Signals, response: Response) -> int:
        """Return the exit status that the daemon sends at the end, signals passed on meanwhile."""
        import select

        poll = select.poll()
        poll.register(response.reader.sock, select.POLLIN)
        poll.register(signals.fd, select.POLLIN)
        while not response.reader.data:
            ready = [fd for fd, _ in poll.poll()]
            for number in signals.take() if signals.fd in ready else ():
                self.obey(number)
            if response.reader.sock.fileno() in ready:
                break
        return exit_status(self.client, response)


def exit_status(client: Client, response: Response) -> int:
    """Return the status of a wait's answer. Raises CommandError for the daemon's own error."""
    from mini_docker.cli.client import parse_json

    found = parse_json(response.read())
    if (found.get("Error") or {}).get("Message"):
        raise CommandError(found["Error"]["Message"], FAILED)
    return int(found["StatusCode"])


# %% notebooks/19d_streams_and_terminals.ipynb#run
RUN_FLAGS = (
    CREATE_FLAGS
    + """
-d, --detach              Run container in background and print container ID
    --detach-keys string  Override the key sequence for detaching a container
    --explain             Print the plan: each step with its chapter, man page and time
    --sig-proxy           Proxy received signals to the process (default true)
"""
)


def run(call: Call, parsed: Parsed) -> int:
    """Create a container, attach, start it, and return its exit status."""
    try:
        body, query = create_body(parsed)
        wanted = [] if parsed.on("detach") else _attached(parsed, body)
        check_terminal(bool(body["Tty"]), "stdin" in wanted)
        if body["Tty"] and (console := _console_size()):
            body["HostConfig"]["ConsoleSize"] = console
        for stream in STREAMS:
            body[f"Attach{stream.capitalize()}"] = stream in wanted
        body["StdinOnce"] = body["OpenStdin"] and "stdin" in wanted
        identity = create(call.client, parsed, body, query)
        stay = Stay(
            call.client, f"/containers/{identity}", bool(body["Tty"]), parsed.on("sig-proxy", True)
        )
        if parsed.on("detach"):
            print(identity, flush=True)
            begin(stay, parsed.on("explain"))
            return 0
        with stay.signals() as signals:
            return _run_attached(stay, signals, parsed, wanted)
    except DaemonError as error:
        raise pointed(call, error, start_status(error.message)) from None
    except CommandError as error:
        raise (pointed(call, error, FAILED) if error.status == FAILED else error) from None


def begin(stay: Stay, explain: bool) -> None:
    """Start a container; `explain` prints each step that our daemon took for it."""
    if not explain:
        stay.client.call("POST", f"{stay.path}/start")
        return
    from mini_docker.cli.explain import table

    sys.stderr.write(table(stay.client.json("POST", f"{stay.path}/explain")))
    sys.stderr.flush()


def _run_attached(stay: Stay, signals: Signals, parsed: Parsed, wanted: list[str]) -> int:
    connection = attach(stay, wanted, parsed.one("detach-keys"))
    condition = "removed" if parsed.on("rm") else "next-exit"
    waiting = stay.client.call("POST", f"{stay.path}/wait", {"condition": condition})
    try:
        begin(stay, parsed.on("explain"))
    except DaemonError:
        connection.close()
        if parsed.on("rm"):
            waiting.read()
        raise
    try:
        stay.follow(signals, connection, "stdin" in wanted, parsed.one("detach-keys"))
    except Detached:
        return 0
    return stay.wait(signals, waiting)


def attach(stay: Stay, wanted: list[str], keys: str) -> Connection:
    """Return the connection that carries the wanted streams of a container."""
    query = {"stream": True, **dict.fromkeys(wanted, True), "detachKeys": keys}
    return stay.client.hijack(f"{stay.path}/attach", query)


def _attached(parsed: Parsed, body: dict[str, Any]) -> list[str]:
    """Return the streams to attach: those of -a, or output and, with -i, input."""
    named = [name.lower() for name in parsed.all("attach")]
    for name in named:
        if name not in STREAMS:
            raise bad_flag("-a, --attach", name, "valid streams are STDIN, STDOUT and STDERR")
    if not named:
        return [*(["stdin"] if body["OpenStdin"] else []), "stdout", "stderr"]
    return named


def check_terminal(tty: bool, stdin: bool) -> None:
    """Refuse -it where no terminal is typed at, as Docker does."""
    if tty and stdin and not os.isatty(0):
        raise CommandError("the input device is not a TTY")


def start_status(message: str) -> int:
    """Return the exit status for a start that failed: the daemon's sentence says why."""
    gone = ("executable file not found", "no such file or directory", "system cannot find the file")
    if any(words in message for words in gone):
        return NOT_FOUND
    refused = ("permission denied", "is a directory")
    return NOT_EXECUTABLE if any(words in message for words in refused) else FAILED


def pointed(call: Call, error: CommandError, status: int) -> CommandError:
    """Return an error of run or create with its pointer to the help."""
    program = f"mini_docker {call.path}"
    return CommandError(
        f"mini_docker: {error}\n\nRun '{program} --help' for more information", status
    )


# %% notebooks/19d_streams_and_terminals.ipynb#create
def create_command(call: Call, parsed: Parsed) -> int:
    """Create a container and print its id."""
    try:
        body, query = create_body(parsed)
        body["AttachStdout"] = body["AttachStderr"] = True
        body["AttachStdin"] = body["StdinOnce"] = body["OpenStdin"]
        print(create(call.client, parsed, body, query))
    except CommandError as error:
        failed = isinstance(error, DaemonError) or error.status == FAILED
        raise (pointed(call, error, FAILED) if failed else error) from None
    return 0


def create(client: Client, parsed: Parsed, body: dict[str, Any], query: dict[str, Any]) -> str:
    """Create a container, pulling its image when it is missing, and return its id."""
    policy = parsed.one("pull", "missing")
    if policy not in ("always", "missing", "never"):
        text = f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"'
        raise CommandError(text, FAILED)
    cidfile = parsed.one("cidfile")
    if cidfile and os.path.exists(cidfile):
        text = f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        raise CommandError(text, FAILED)
    if policy == "always":
        _pull(client, body["Image"], query.get("platform", ""), parsed.on("quiet"))
    try:
        made = client.json("POST", "/containers/create", query, body)
    except DaemonError as error:
        if error.http_status != 404 or policy != "missing" or "No such image" not in error.message:
            raise
        print(f"Unable to find image '{_familiar(body['Image'])}' locally", file=sys.stderr)
        _pull(client, body["Image"], query.get("platform", ""), parsed.on("quiet"))
        made = client.json("POST", "/containers/create", query, body)
    for warning in made.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    if cidfile:
        with open(cidfile, "w", encoding="utf-8") as file:
            file.write(made["Id"])
    return str(made["Id"])


def _familiar(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _pull(client: Client, image: str, platform: str, quiet: bool) -> None:
    from mini_docker.cli.images import pull_image

    pull_image(client, image, platform, quiet, to_stderr=True)


# %% notebooks/19d_streams_and_terminals.ipynb#start
START_FLAGS = """
-a, --attach              Attach STDOUT/STDERR and forward signals
    --detach-keys string  Override the key sequence for detaching a container
-i, --interactive         Attach container's STDIN
    --sig-proxy           Proxy received signals to the process (default true)
"""


def start(call: Call, parsed: Parsed) -> int:
    """Start containers, or one and stay with it."""
    if parsed.on("attach") or parsed.on("interactive"):
        return _start_and_stay(call.client, parsed)
    failed = []
    for name in parsed.words:
        try:
            call.client.call("POST", f"/containers/{quote(name)}/start")
            print(name)
        except DaemonError as error:
            print(error, file=sys.stderr)
            failed.append(name)
    if failed:
        raise CommandError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start_and_stay(client: Client, parsed: Parsed) -> int:
    if len(parsed.words) > 1:
        raise CommandError("you cannot start and attach multiple containers at once")
    found = client.json("GET", f"/containers/{quote(parsed.words[0])}/json")
    stdin = parsed.on("interactive") and found["Config"]["OpenStdin"]
    stay = Stay(
        client, f"/containers/{found['Id']}", found["Config"]["Tty"], parsed.on("sig-proxy", True)
    )
    keys = parsed.one("detach-keys")
    check_terminal(stay.tty, bool(stdin))
    with stay.signals() as signals:
        connection = attach(stay, [*(["stdin"] if stdin else []), "stdout", "stderr"], keys)
        condition = "removed" if found["HostConfig"]["AutoRemove"] else "next-exit"
        waiting = client.call("POST", f"{stay.path}/wait", {"condition": condition})
        try:
            client.call("POST", f"{stay.path}/start")
        except DaemonError as error:
            connection.close()
            text = f"{error}\nError: failed to start containers: {parsed.words[0]}"
            raise CommandError(text) from None
        try:
            stay.follow(signals, connection, bool(stdin), keys)
        except Detached:
            return 0
        return stay.wait(signals, waiting)


# %% notebooks/19d_streams_and_terminals.ipynb#attach-command
ATTACH_FLAGS = """
    --detach-keys string  Override the key sequence for detaching a container
    --no-stdin            Do not attach STDIN
    --sig-proxy           Proxy all received signals to the process (default true)
"""


def attach_command(call: Call, parsed: Parsed) -> int:
    """Stay with a container that runs already, and return its exit status."""
    client = call.client
    waiting = client.call("POST", f"/containers/{quote(parsed.words[0])}/wait")
    found = client.json("GET", f"/containers/{quote(parsed.words[0])}/json")
    if not found["State"]["Running"]:
        raise CommandError("You cannot attach to a stopped container, start it first")
    if found["State"]["Paused"]:
        raise CommandError("You cannot attach to a paused container, unpause it first")
    if found["State"].get("Restarting"):
        raise CommandError("You cannot attach to a restarting container, wait until it is running")
    stdin = not parsed.on("no-stdin") and found["Config"]["OpenStdin"]
    stay = Stay(
        client, f"/containers/{found['Id']}", found["Config"]["Tty"], parsed.on("sig-proxy", True)
    )
    check_terminal(stay.tty, bool(stdin))
    keys = parsed.one("detach-keys")
    with stay.signals() as signals:
        connection = attach(stay, [*(["stdin"] if stdin else []), "stdout", "stderr"], keys)
        try:
            stay.follow(signals, connection, bool(stdin), keys)
        except Detached:
            raise CommandError("read escape sequence") from None
        return stay.wait(signals, waiting)


# %% notebooks/19d_streams_and_terminals.ipynb#exec
EXEC_FLAGS = """
-d, --detach              Detached mode: run command in the background
    --detach-keys string  Override the key sequence for detaching a container
-e, --env list            Set environment variables
    --env-file list       Read in a file of environment variables
-i, --interactive         Keep STDIN open even if not attached
    --privileged          Give extended privileges to the command
-t, --tty                 Allocate a pseudo-TTY
-u, --user string         Username or UID (format: "<name|uid>[:<group|gid>]")
-w, --workdir string      Working directory inside the container
"""


def exec_command(call: Call, parsed: Parsed) -> int:
    """Run a second command in a container, and return its exit status."""
    client = call.client
    name, *words = parsed.words
    detach, tty, stdin = parsed.on("detach"), parsed.on("tty"), parsed.on("interactive")
    keys = parsed.one("detach-keys")
    if not detach:
        check_terminal(tty, stdin)
    body = {
        "User": parsed.one("user"),
        "Privileged": parsed.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Detach": detach,
        "DetachKeys": keys,
        "Env": environment(parsed),
        "WorkingDir": parsed.one("workdir"),
        "Cmd": words,
    }
    made = client.json("POST", f"/containers/{quote(name)}/exec", None, body)
    path = f"/exec/{made['Id']}"
    if detach:
        client.call("POST", f"{path}/start", None, {"Detach": True, "Tty": tty}).read()
        return 0
    stay = Stay(client, path, tty, False)
    with stay.signals() as signals:
        connection = client.hijack(f"{path}/start", {}, {"Detach": False, "Tty": tty})
        try:
            stay.follow(signals, connection, stdin, keys)
        except Detached:
            raise CommandError("read escape sequence") from None
    return int(client.json("GET", f"{path}/json").get("ExitCode") or 0)


# %% notebooks/19d_streams_and_terminals.ipynb#attach-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        RUN_FLAGS,
        run,
        1,
        None,
        (
            "run --rm -it busybox",
            "run -d --name web -p 8080:80 busybox httpd -f -h /etc",
            "run --rm -m 64m busybox free",
        ),
        False,
    ),
    Command(
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container",
        CREATE_FLAGS,
        create_command,
        1,
        None,
        ("create --name web busybox httpd -f",),
        False,
    ),
    Command(
        "start",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start one or more stopped containers",
        START_FLAGS,
        start,
        1,
        None,
        ("start web", "start -ai shell"),
    ),
    Command(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        ATTACH_FLAGS,
        attach_command,
        1,
        1,
        ("attach web", f"attach --detach-keys {DETACH_KEYS} shell"),
    ),
    Command(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        EXEC_FLAGS,
        exec_command,
        2,
        None,
        ("exec web ps", "exec -it web sh"),
        False,
    ),
)
