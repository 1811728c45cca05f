# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#main-module
"""The command line: find the command, run it, turn every error into one line and Docker's exit status."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.errors import FAILED, CommandError, StatusError
from mini_docker.cli.flags import UsageError, flag_table, parse, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.cli.command import Command
    from mini_docker.cli.flags import Parsed
else:
    import _signal as signal  # the C half: the Python half imports enum


# %% notebooks/19_command_line.ipynb#commands
GLOBAL_FLAGS = flag_table("""
    --config string       Location of client config files (default "~/.docker")
-c, --context string      Name of the context to use (overrides DOCKER_HOST and "context use")
    --data-root string    Use the daemon of another data root ($MINI_DOCKER_ROOT)
-D, --debug               Show where an internal error happened
-H, --host string         Daemon socket to connect to
    --tls                 Use TLS; implied by --tlsverify
    --tlscacert string    Trust certs signed only by this CA (default "~/.docker/ca.pem")
    --tlscert string      Path to TLS certificate file (default "~/.docker/cert.pem")
    --tlskey string       Path to TLS key file (default "~/.docker/key.pem")
    --tlsverify           Use TLS and verify the remote
-v, --version             Print version information and quit
    --help                Print usage
""")
# module -> the commands in its table COMMANDS
PLACES = {
    "attach": "run, create, start, attach, exec",
    "ps": "ps",
    "containers": "stop, restart, kill, pause, unpause, wait, rename, rm, logs, top, diff, port, update,"
    " commit",
    "copy": "cp",
    "stats": "stats",
    "inspect": "inspect, container inspect, image inspect, network inspect, volume inspect",
    "images": "images, pull, push, tag, rmi, history",
    "archives": "save, load, import, export",
    "build": "build",
    "networks": "network ls, network create, network rm, network connect, network disconnect",
    "volumes": "volume ls, volume create, volume rm",
    "system": "version, info, events, system df",
    "prune": "container prune, image prune, network prune, volume prune, system prune",
    "login": "login, logout, search",
    "contexts": "context ls, context show, context use, context create, context rm, context inspect",
    "draw": "draw",
    "manual": "completion, manual",
    "daemon": "daemon",
    "lab": "setup, doctor, reset",
}
GROUPS = {
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage the daemon",
    "volume": "Manage volumes",
}
# "container run" is "run" ...
SAME = {
    "container": "attach commit cp create diff exec export kill logs pause port rename restart rm run start"
    " stats stop top unpause update wait",
    "image": "build history import load pull push save tag",
    "system": "events info",
}
# ... and these are called otherwise
OTHER_NAMES = {
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "container remove": "rm",
    "image ls": "images",
    "image list": "images",
    "image rm": "rmi",
    "image remove": "rmi",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "context list": "context ls",
    "context remove": "context rm",
}


# %% notebooks/19_command_line.ipynb#find-command
def modules() -> dict[str, str]:
    """Return the module of each command."""
    return {name: module for module, names in PLACES.items() for name in names.split(", ")}


def real_name(path: str) -> str:
    """Return the name under which a command stands in a table: "run" for "container run"."""
    group, _, verb = path.partition(" ")
    if verb in SAME.get(group, "").split():
        return verb
    return OTHER_NAMES.get(path, path)


def find_command(path: str) -> Command | None:
    """Return the command of a path such as "ps" or "network ls"; None when there is none."""
    name = real_name(path)
    module = modules().get(name)
    if module is None:
        return None
    return next(command for command in load(module) if command.name == name)


def load(module: str) -> tuple[Command, ...]:
    """Return the table of a module's commands."""
    found = __import__(f"mini_docker.cli.{module}", fromlist=["COMMANDS"])
    table: tuple[Command, ...] = found.COMMANDS
    return table


def all_paths() -> list[str]:
    """Return every path under which a command can be called, "container ls" and the like among them."""
    pairs = [f"{group} {verb}" for group, verbs in SAME.items() for verb in verbs.split()]
    return sorted({*modules(), *pairs, *OTHER_NAMES})


# %% notebooks/19_command_line.ipynb#main
def main(arguments: Sequence[str] | None = None) -> None:
    """Run `mini_docker ARGUMENTS...` and exit; no traceback ever reaches the user."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    try:
        _take_interrupts()
        status = dispatch(words)
        print(end="", flush=True)
    except CommandError as error:
        status = _fail(str(error), error.status)
    except StatusError as error:
        status = error.status
    except KeyboardInterrupt:
        status = 130
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        status = _fail(f"mini_docker: {error.strerror or error}{where}", FAILED)
    except Exception as error:
        if os.environ.get("MINI_DOCKER_DEBUG"):
            raise
        text = f"internal error: {type(error).__name__}: {error} (MINI_DOCKER_DEBUG=1 shows where)"
        status = _fail(f"mini_docker: {text}", FAILED)
    _leave(status)


def _take_interrupts() -> None:
    """Let Ctrl-C end us, which the launcher starts with ignored; without a word, wherever it is raised.

    That may be in an exception's handler above, or in a callback of the import system, from which nothing can
    be raised.
    """

    def uncaught(kind: Any, error: Any, where: Any) -> None:
        if kind is KeyboardInterrupt:
            os._exit(130)
        sys.__excepthook__(kind, error, where)

    def unraisable(about: Any) -> None:
        if about.exc_type is KeyboardInterrupt:
            os._exit(130)
        sys.__unraisablehook__(about)

    sys.excepthook, sys.unraisablehook = uncaught, unraisable
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _fail(text: str, status: int) -> int:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # the terminal is gone; the status still says it
    return status


def _open_streams() -> None:
    """Open /dev/null for each standard stream that our caller closed: a pipe would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _leave(status: int) -> None:
    """Exit at once: there is nothing that the interpreter's own tear-down must still do."""
    try:
        print(end="", flush=True)
        print(end="", flush=True, file=sys.stderr)
    except OSError:
        pass
    os._exit(status)


# %% notebooks/19_command_line.ipynb#dispatch
def dispatch(words: list[str]) -> int:
    """Find the command among `words` and return its exit status."""
    try:
        settings = parse(GLOBAL_FLAGS, words)
    except UsageError as error:
        raise CommandError(
            _with_usage(str(error), "", "[OPTIONS] COMMAND [ARG...]"), FAILED
        ) from None
    if settings.on("debug"):
        os.environ["MINI_DOCKER_DEBUG"] = "1"
    if settings.on("version"):
        from mini_docker import __version__

        print(f"mini_docker version {__version__}")
        return 0
    path, rest = split_path(settings.words)
    if path == "help":
        path, rest = split_path(rest)
        rest = ["--help"]
    if not path or settings.on("help"):
        print(overview(), end="")
        return 0
    return _run(path, rest, settings)


def _with_usage(error: str, path: str, words: str) -> str:
    from mini_docker.cli.command import with_usage

    return with_usage(error, path, words)


def split_path(words: list[str]) -> tuple[str, list[str]]:
    """Return the command's path, one word or two, and what stands after it."""
    if not words:
        return "", []
    if words[0] in GROUPS and len(words) > 1 and not words[1].startswith("-"):
        return f"{words[0]} {words[1]}", words[2:]
    return words[0], words[1:]


def _run(path: str, rest: list[str], settings: Parsed) -> int:
    """Run the command at a path, or list a group's. Raises CommandError for one that is not there."""
    from mini_docker.cli.command import run_command

    if path in GROUPS:
        print(group_overview(path), end="")
        return 0
    command = find_command(path)
    if command is None:
        group = path.partition(" ")[0]
        known = f"mini_docker {group}" if group in GROUPS else "mini_docker"
        line = f"\n\nUsage:  {known}" if group in GROUPS else ""
        problem = f"mini_docker: unknown command: mini_docker {path}{line}"
        raise CommandError(f"{problem}\n\nRun '{known} --help' for more information")
    return run_command(command, path, settings, rest)


# %% notebooks/19_command_line.ipynb#overview
COMMON = "run exec ps build pull push images login logout search version info".split()


def overview() -> str:
    """Return the text of `mini_docker --help`."""
    lines = [
        "Usage:  mini_docker [OPTIONS] COMMAND",
        "",
        "A Docker to learn from: every line of it is in a notebook.",
    ]
    single = [name for name in modules() if " " not in name and not name.startswith("_")]
    lab = ["daemon", *PLACES["lab"].split(", "), "draw", "completion", "manual"]
    for title, names in (
        ("Common Commands", COMMON),
        ("Management Commands", list(GROUPS)),
        ("Commands", sorted(set(single) - set(COMMON) - set(lab))),
        ("Commands of the lab", lab),
    ):
        lines += ["", f"{title}:", *(f"  {name:12}{_about(name)}" for name in names)]
    options = usage("", "", "", GLOBAL_FLAGS).partition("Options:\n")[2].rstrip()
    lines += ["", "Global Options:", options]
    lines += ["", "Run 'mini_docker COMMAND --help' for more information on a command."]
    return "\n".join(lines) + "\n"


def _about(name: str) -> str:
    command = find_command(name)
    return command.about if command else GROUPS[name]


def group_overview(group: str) -> str:
    """Return the text of `mini_docker network` and the like."""
    lines = [f"Usage:  mini_docker {group} COMMAND", "", GROUPS[group], "", "Commands:"]
    for path in all_paths():
        name, _, verb = path.partition(" ")
        if name == group and verb not in ("list", "ps", "remove"):
            lines.append(f"  {verb:12}{_about(path)}")
    more = f"Run 'mini_docker {group} COMMAND --help' for more information on a command."
    return "\n".join([*lines, "", more]) + "\n"
