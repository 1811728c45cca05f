# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#main-module
"""The command line: find the command, run it, turn every error into one line and Docker's exit status."""

from __future__ import annotations

import os
import signal
import sys

from mini_docker.cli.flags import Flag, UsageError, option, parse, switch, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mini_docker.cli.flags import Parsed
    from mini_docker.engine.direct import Direct


# %% notebooks/19_command_line.ipynb#commands
ROOT_VARIABLE = "MINI_DOCKER_ROOT"
GLOBAL_FLAGS = (
    option("data-root", "string", f"Where images and containers are kept (${ROOT_VARIABLE})"),
    switch("version", "Print version information and quit", "v"),
    switch("help", "Print usage"),
)
COMMANDS = {
    "run": ("mini_docker.cli.run", "Create and run a new container from an image"),
    "ps": ("mini_docker.cli.objects", "List containers"),
    "rm": ("mini_docker.cli.objects", "Remove one or more containers"),
    "images": ("mini_docker.cli.objects", "List images"),
    "pull": ("mini_docker.cli.registry", "Download an image from a registry"),
    "push": ("mini_docker.cli.registry", "Upload an image to a registry"),
    "tag": (
        "mini_docker.cli.registry",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    ),
    "login": ("mini_docker.cli.registry", "Log in to a registry"),
    "logout": ("mini_docker.cli.registry", "Log out from a registry"),
    "search": ("mini_docker.cli.registry", "Search a registry for images"),
    "daemon": ("mini_docker.cli.objects", "Run the engine and its HTTP API in the foreground"),
    "setup": ("mini_docker.cli.objects", "Make the embedded image from this machine's busybox"),
    "doctor": (
        "mini_docker.cli.objects",
        "Show which chapters can run on this machine, and why not",
    ),
    "reset": ("mini_docker.cli.objects", "Remove all containers and networks of ours; images stay"),
    "version": ("mini_docker.cli.objects", "Show the version"),
}
FAILED = 125


class CommandError(Exception):
    """An error for the user: one line, and the exit status (Docker's 125, 126, 127 or 1)."""

    def __init__(self, text: str, status: int = 1) -> None:
        """Keep the line and the status."""
        super().__init__(text)
        self.status = status


# %% notebooks/19_command_line.ipynb#main
def main(arguments: Sequence[str] | None = None) -> None:
    """Run `mini_docker ARGUMENTS...` and exit; no traceback ever reaches the user."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    try:
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # the launcher starts with it ignored
        status = dispatch(words)
        print(end="", flush=True)
    except UsageError as error:
        name = next((word for word in words if word in COMMANDS), "")
        command = f"mini_docker {name}".strip()
        status = _fail(
            f"{error}\n\nUsage:  {command} [OPTIONS]\n\nRun '{command} --help' for more information",
            FAILED,
        )
    except CommandError as error:
        status = _fail(str(error), error.status)
    except KeyboardInterrupt:
        status = 130
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except OSError as error:
        status = _fail(
            f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), FAILED
        )
    except Exception as error:
        if os.environ.get("MINI_DOCKER_DEBUG"):
            raise
        text = f"internal error: {type(error).__name__}: {error} (MINI_DOCKER_DEBUG=1 shows where)"
        status = _fail(text, FAILED)
    _leave(status)


def _fail(text: str, status: int) -> int:
    print(f"mini_docker: {text}", file=sys.stderr)
    return status


def _open_streams() -> None:
    """Open /dev/null for each standard stream that our caller closed: a pipe would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


def _leave(status: int) -> None:
    """Exit at once: there is nothing that the interpreter's own tear-down must still do."""
    try:
        print(end="", flush=True)
        print(end="", flush=True, file=sys.stderr)
    except OSError:
        pass
    os._exit(status)


def dispatch(words: list[str]) -> int:
    """Find the command among `words` and return its exit status."""
    parsed = parse(GLOBAL_FLAGS, words)
    if parsed.on("version"):
        parsed.words = ["version"]
    if not parsed.words or parsed.on("help") or parsed.words == ["help"]:
        print(overview(), end="")
        return 0 if parsed.words or parsed.on("help") else 1
    name, *rest = parsed.words
    if name not in COMMANDS:
        raise CommandError(
            f"unknown command: mini_docker {name}\n\nRun 'mini_docker --help' for more information"
        )
    module = __import__(COMMANDS[name][0], fromlist=[name])
    command: Callable[[str, list[str]], int] = getattr(module, f"command_{name}")
    return command(parsed.one("data-root") or os.environ.get(ROOT_VARIABLE, ""), rest)


def overview() -> str:
    """Return the text of `mini_docker --help`."""
    commands = "\n".join(f"  {name:10}{about}" for name, (_, about) in COMMANDS.items())
    text = usage(
        "[OPTIONS]",
        "COMMAND",
        "A Docker to learn from: every line of it is in a notebook.",
        GLOBAL_FLAGS,
    )
    more = "Run 'mini_docker COMMAND --help' for more information on a command."
    return f"{text}\nCommands:\n{commands}\n\n{more}\n"


def read(
    name: str, words: str, flags: Sequence[Flag], arguments: list[str], interspersed: bool = True
) -> Parsed | None:
    """Parse a command's arguments; None once its help was printed. Raises UsageError."""
    with_help = (*flags, switch("help", "Print usage"))
    parsed = parse(with_help, arguments, interspersed)
    if parsed.on("help"):
        print(usage(name, words, COMMANDS[name][1], flags), end="")
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
