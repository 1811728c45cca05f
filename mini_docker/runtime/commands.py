# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#commands-module
"""mini_runc: the runtime as a command that engines call, with runc's words, exit statuses and log."""

from __future__ import annotations

import os
import sys

from mini_docker.runtime.create import Request, create, write_pid_file
from mini_docker.runtime.jsontext import dumps, indented, loads
from mini_docker.runtime.lifecycle import (
    delete,
    group_needed,
    kill,
    pause,
    resume,
    start_container,
    state,
)
from mini_docker.runtime.state import RuntimeFailure, Store
from mini_docker.runtime.words import Words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Command = Callable[[Store, Words], int]


# %% notebooks/11e_mini_runc.ipynb#create-and-start
def default_root() -> str:
    """Return the state directory: /run/mini_runc, or below $XDG_RUNTIME_DIR without root."""
    if os.geteuid() == 0:
        return "/run/mini_runc"
    return os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}") + "/mini_runc"


def read_document(bundle: str) -> dict[str, Any]:
    """Return the document of a bundle, checked. Raises RuntimeFailure, ValueError with the JSON path."""
    from mini_docker.runtime.schema import check_document

    try:
        with open(f"{bundle}/config.json", encoding="utf-8") as file:
            document = loads(file.read())
    except FileNotFoundError:
        raise RuntimeFailure(f"no document {bundle}/config.json") from None
    except ValueError as error:
        raise RuntimeFailure(f"{bundle}/config.json: no JSON: {error}") from None
    check_document(document)
    return document  # type: ignore[no-any-return]


def request_of(words: Words) -> Request:
    """Return what create and run are asked beside the document."""
    bundle = os.path.abspath(words.one("bundle", "."))
    return Request(
        bundle,
        words.one("console-socket"),
        words.one("pid-file"),
        preserved(words),
        not words.on("no-pivot"),
        not words.on("no-new-keyring"),
        words.outer is not None and words.outer.on("systemd-cgroup"),
    )


def preserved(words: Words) -> int:
    """Return how many descriptors after 2 are passed on: as asked, and those of socket activation."""
    listen = os.environ.get("LISTEN_FDS", "")
    return (words.number("preserve-fds") or 0) + (int(listen) if listen.isdigit() else 0)


def with_listen_fds(process: dict[str, Any]) -> None:
    """Tell the command of the descriptors that a service manager opened for it, sd_listen_fds(3)."""
    if listen := os.environ.get("LISTEN_FDS"):
        process["env"] = [*(process.get("env") or ()), f"LISTEN_FDS={listen}", "LISTEN_PID=1"]


def command_create(store: Store, words: Words) -> int:
    """Create a container."""
    container_id, request = words.container(), request_of(words)
    document = read_document(request.bundle)
    with_listen_fds(document["process"])
    create(store, container_id, document, request)
    return 0


def command_start(store: Store, words: Words) -> int:
    """Start a created container."""
    start_container(store, words.container())
    return 0


def command_run(store: Store, words: Words) -> int:
    """Create and start a container; wait for it unless it is detached, and delete it then."""
    from mini_docker.runtime.attach import Terminal, pass_signals_on, wait

    container_id, request = words.container(), request_of(words)
    document = read_document(request.bundle)
    with_listen_fds(document["process"])
    terminal = None
    if (
        document["process"].get("terminal")
        and not request.console_socket
        and not words.on("detach")
    ):
        terminal = Terminal()
    process = create(store, container_id, document, request, terminal.console if terminal else None)
    try:
        if not words.on("detach"):
            pass_signals_on(process.pidfd)  # before it runs: what it answers to may come at once
        start_container(store, container_id)
        if words.on("detach"):
            return 0
        relay = terminal.relay if terminal else wait
        return relay(process.pid, process.pidfd)
    finally:
        if not words.on("detach") and not words.on("keep"):
            delete(store, container_id, force=True)


# %% notebooks/11e_mini_runc.ipynb#look-and-signal
def command_state(store: Store, words: Words) -> int:
    """Print the state of a container, as the specification has it."""
    print(indented(state(store, store.read(words.container()))))
    return 0


def command_kill(store: Store, words: Words) -> int:
    """Send a signal, by default SIGTERM."""
    container_id = words.container(most=2)
    number = signal_number(words.rest[1] if len(words.rest) > 1 else "TERM")
    kill(store, container_id, number, words.on("all"))
    return 0


def signal_number(text: str) -> int:
    """Return the number of "9", "KILL" or "SIGKILL". Raises RuntimeFailure."""
    import signal

    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    number = int(text) if text.isdigit() else int(getattr(signal, name, 0))
    if number not in signal.valid_signals():
        raise RuntimeFailure(f"unknown signal {text!r}")
    return number


def command_delete(store: Store, words: Words) -> int:
    """Delete a container."""
    delete(store, words.container(), words.on("force"))
    return 0


# %% notebooks/11e_mini_runc.ipynb#exec
def command_exec(store: Store, words: Words) -> int:
    """Start a second process in a container; wait for it unless it is detached."""
    from mini_docker.runtime.attach import Terminal, wait
    from mini_docker.runtime.create import open_console_socket
    from mini_docker.runtime.visit import visit

    container_id = words.container(most=None)
    process = _process(store, container_id, words)
    path, terminal = words.one("console-socket"), None
    if process.get("terminal") and not path and not words.on("detach"):
        terminal = Terminal()
    console = terminal.console if terminal else open_console_socket({"process": process}, path)
    detached = words.on("detach")
    entered = visit(store, container_id, process, console, detached, preserved(words))
    if words.one("pid-file"):
        write_pid_file(words.one("pid-file"), entered.pid)
    if detached:
        return 0
    return (terminal.relay if terminal else wait)(entered.pid, entered.pidfd)


def _process(store: Store, container_id: str, words: Words) -> dict[str, Any]:
    """Return the process object that exec is asked for, from a file or from flags."""
    from mini_docker.runtime.schema import check_process
    from mini_docker.runtime.visit import Change, process_object

    if path := words.one("process"):
        with open(path, encoding="utf-8") as file:
            process = loads(file.read())
    else:
        if len(words.rest) < 2:
            raise RuntimeFailure("exec: a command or --process is needed")
        change = Change(
            words.rest[1:],
            words.all("env"),
            words.one("cwd"),
            words.one("user"),
            words.all("additional-gids"),
            words.all("cap"),
            words.on("tty"),
            words.on("no-new-privs"),
            words.one("apparmor"),
            words.one("process-label"),
        )
        process = process_object(store.document(container_id), change)
    check_process(process)
    return process  # type: ignore[no-any-return]


# %% notebooks/11e_mini_runc.ipynb#pause-and-limits
def command_pause(store: Store, words: Words) -> int:
    """Freeze a container."""
    pause(store, words.container())
    return 0


def command_resume(store: Store, words: Words) -> int:
    """Let a frozen container go on."""
    resume(store, words.container())
    return 0


# flag of update -> (part of linux.resources, key)
UPDATE = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "cpu-share": ("cpu", "shares"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-period": ("cpu", "period"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "pids-limit": ("pids", "limit"),
    "blkio-weight": ("blockIO", "weight"),
}


def command_update(store: Store, words: Words) -> int:
    """Change the limits of a container, by flags or a JSON object of linux.resources."""
    from mini_docker.runtime.schema import RESOURCES, check

    container_id, path = words.container(), words.one("resources")
    resources: dict[str, dict[str, Any]] = {}
    if path:
        with open(0 if path == "-" else path, closefd=path != "-") as file:
            resources = loads(file.read())
    for flag, (part, key) in UPDATE.items():
        if words.one(flag):
            value = words.one(flag) if key in ("cpus", "mems") else words.number(flag)
            resources.setdefault(part, {})[key] = value
    check(resources, RESOURCES, "linux.resources")
    if words.one("resources") and (resources.get("pids") or {}).get("limit") == 0:
        del resources["pids"]  # engines write 0 for "not changed"
    group_needed(store.read(container_id)).update(resources)
    return 0


# %% notebooks/11e_mini_runc.ipynb#commands
def command_report(store: Store, words: Words) -> int:
    """Tell something; the module for it is not on the path of engines, which call the others."""
    from mini_docker.runtime.reports import REPORTS

    return REPORTS[words.command](store, words)


CREATE = "bundle,b= console-socket= pid-file= preserve-fds= no-pivot no-new-keyring no-subreaper"
COMMANDS: dict[str, tuple[Command, str, str]] = {
    "create": (command_create, CREATE, "Create a container"),
    "start": (command_start, "", "Start a created container"),
    "state": (command_state, "", "Print the state of a container"),
    "kill": (command_kill, "all,a", "Send a signal (TERM) to a container's init, or to all in it"),
    "delete": (command_delete, "force,f", "Remove a container"),
    "run": (command_run, f"{CREATE} detach,d keep", "Create, start, wait, delete"),
    "exec": (
        command_exec,
        "console-socket= cwd= env,e* tty,t user,u= additional-gids,g* process,p= detach,d pid-file= "
        "process-label= apparmor= no-new-privs cap,c* preserve-fds= ignore-paused",
        "Start a second process in a container",
    ),
    "pause": (command_pause, "", "Freeze a container"),
    "resume": (command_resume, "", "Let a frozen container go on"),
    "update": (
        command_update,
        "resources,r= l3-cache-schema= mem-bw-schema= " + "= ".join(UPDATE) + "=",
        "Change the limits of a container",
    ),
    "events": (command_report, "stats interval=", "Print the numbers of a container"),
    "features": (command_report, "", "Print what this runtime can do"),
    "spec": (command_report, "bundle,b= rootless", "Write a document to begin with"),
    "ps": (command_report, "format,f=", "Print the processes of a container"),
    "list": (command_report, "format,f= quiet,q", "Print all containers"),
}
ABSENT = ("checkpoint", "restore")
GLOBAL = "root= log= log-format= debug systemd-cgroup rootless= criu= version,v help,h"


# %% notebooks/11e_mini_runc.ipynb#main
def main(arguments: Sequence[str] | None = None) -> None:
    """Run `mini_runc WORDS...` and exit; every error is one line, and a line of the log if there is one."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    flags = None
    status = 1
    try:
        flags = Words("mini_runc", GLOBAL, words)
        status = dispatch(flags)
        sys.stdout.flush()
    except RuntimeFailure as error:
        status = error.status
        _fail(flags, str(error))
    except (OSError, ValueError) as error:
        _fail(flags, _sentence(error))
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        if os.environ.get("MINI_DOCKER_DEBUG"):
            raise
        _fail(
            flags,
            f"internal error: {type(error).__name__}: {error} (MINI_DOCKER_DEBUG=1 shows where)",
        )
    os._exit(status)


def dispatch(flags: Words) -> int:
    """Find the command and run it; an error of exec is 255 by custom, so that no code of the command's is."""
    if flags.on("version"):
        print(f"mini_runc version {_version()}\nspec: 1.2.0")
        return 0
    if flags.on("help") or not flags.rest or flags.rest[0] == "help":
        print(usage(), end="")
        return 0
    name, *rest = flags.rest
    if name in ABSENT:
        raise RuntimeFailure(f"{name} is not here: this runtime does not save processes, CRIU does")
    if name not in COMMANDS:
        raise RuntimeFailure(f"no command {name!r}; mini_runc --help lists them")
    command, description, _ = COMMANDS[name]
    store = Store(flags.one("root") or default_root())
    try:
        return command(store, Words(name, description, rest, flags))
    except (RuntimeFailure, OSError, ValueError) as error:
        raise RuntimeFailure(_sentence(error), 255 if name == "exec" else 1) from error


def _version() -> str:
    from mini_docker import __version__

    return __version__


def usage() -> str:
    """Return the text of --help."""
    lines = "".join(f"   {name:10}{about}\n" for name, (_, _, about) in COMMANDS.items())
    return (
        "Usage: mini_runc [--root DIR] [--log FILE] [--log-format text|json] COMMAND [FLAGS] [ID] ...\n\n"
        f"An OCI runtime to read: engines use it in place of runc.\n\n{lines}"
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and type(error).__str__ is OSError.__str__:
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return str(error)


def _open_streams() -> None:
    """Open /dev/null for each standard stream that our caller closed: a pipe would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free: this one


def _fail(flags: Words | None, text: str) -> None:
    """Say an error on stderr and in the log. Where an engine reads decides itself: it gets both."""
    import time

    os.write(2, f"mini_runc: {text}\n".encode(errors="replace"))
    if flags is None or not flags.one("log"):
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if flags.one("log-format") == "json":
        line = dumps({"level": "error", "msg": text, "time": now})
    else:
        line = f'time="{now}" level=error msg={dumps(text)}'
    with open(flags.one("log"), "a") as file:
        file.write(line + "\n")
