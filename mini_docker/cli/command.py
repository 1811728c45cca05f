# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#command-module
"""What a command is: its words, flags and examples as data; help, completion and manual come from it."""

from __future__ import annotations

from mini_docker.cli.client import Client
from mini_docker.cli.context import config_directory, endpoint, load_config
from mini_docker.cli.errors import FAILED, CommandError, DaemonError
from mini_docker.cli.flags import Parsed, UsageError, flag_table, parse, switch_help, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from mini_docker.cli.flags import Flag


class Command:
    """A command, as its module's table COMMANDS has it."""

    def __init__(
        self,
        name: str,
        words: str,
        about: str,
        flags: str,
        run: Callable[[Call, Parsed], int],
        least: int = 0,
        most: int | None = 0,
        examples: tuple[str, ...] = (),
        loose: bool = True,
    ) -> None:
        """Keep the name, the usage's words, a sentence, the flags as help shows them, and the function.

        `least` and `most` count the words after it, None: as many as you like. `loose`: flags may stand
        between them.
        """
        self.name = name
        self.words = words
        self.about = about
        self.flags = flags
        self.run = run
        self.least = least
        self.most = most
        self.examples = examples
        self.loose = loose


# %% notebooks/19_command_line.ipynb#call
PROGRAM = "mini_docker"
FORMAT = "-f, --format string  Format the output with a Go template, or as 'json'"
FILTER = '-f, --filter filter  Show only what has a property, such as "label=key"'


class Call:
    """One use of the command line: how the command was called, and the daemon it speaks to."""

    def __init__(self, path: str, settings: Parsed, arguments: list[str]) -> None:
        """Keep the words of the command, the flags before it, and what stood after it."""
        self.path = path
        self.arguments = arguments
        self.settings = settings
        self.directory = config_directory(settings.values)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Return the client; nothing is looked up or connected before the first use."""
        if self._client is None:
            where = endpoint(self.settings.values, self.directory)
            self._client = Client(where, self.directory)
        return self._client

    def config(self) -> dict[str, Any]:
        """Return the user's config.json."""
        return load_config(self.directory)


def flags_of(command: Command) -> tuple[Flag, ...]:
    """Return the flags of a command, --help among them."""
    return (*flag_table(command.flags), switch_help())


# %% notebooks/19_command_line.ipynb#command-run
def run_command(command: Command, path: str, settings: Parsed, arguments: list[str]) -> int:
    """Parse a command's arguments, print its help or run it. Raises CommandError."""
    try:
        parsed = parse(flags_of(command), arguments, command.loose)
        if parsed.on("help"):
            print(help_text(command, path), end="")
            return 0
        _count_words(command, path, len(parsed.words))
        return command.run(Call(path, settings, arguments), parsed)
    except UsageError as error:
        raise CommandError(with_usage(str(error), path, command.words), FAILED) from None


def with_usage(error: str, path: str, words: str) -> str:
    """Return an error of usage with the line that says how it should have been."""
    name = f"{PROGRAM} {path}".strip()
    line = f"{name} {words}".rstrip()
    return f"{error}\n\nUsage:  {line}\n\nRun '{name} --help' for more information"


def _count_words(command: Command, path: str, count: int) -> None:
    """Raise CommandError in cobra's words when there are too few or too many."""
    least, most = command.least, command.most
    if least <= count and (most is None or count <= most):
        return
    see = "Run"
    if most == 0:
        wanted = "accepts no arguments"
    elif most is None:
        wanted, see = f"requires at least {_arguments(least)}", "See"
    elif least == most:
        wanted = f"requires {_arguments(least)}"
    elif least == 0:
        wanted = f"requires at most {_arguments(most)}"
    else:
        wanted = f"requires at least {least} and at most {_arguments(most)}"
    name = f"{PROGRAM} {path}"
    line = f"Usage:  {name} {command.words}".rstrip()
    help = f"{see} '{name} --help' for more information"
    raise CommandError(f"{PROGRAM}: '{name}' {wanted}\n\n{line}\n\n{help}")


def _arguments(count: int) -> str:
    return f"{count} argument{'s' * (count != 1)}"


def help_text(command: Command, path: str) -> str:
    """Return the help of a command: usage, flags, examples."""
    text = usage(f"{PROGRAM} {path}", command.words, command.about, flag_table(command.flags))
    if command.examples:
        text += "\nExamples:\n" + "".join(f"  {PROGRAM} {line}\n" for line in command.examples)
    return text


# %% notebooks/19_command_line.ipynb#command-each
def each(words: Iterable[str], action: Callable[[str], object]) -> int:
    """Do something for each word; what fails is a line on the error stream, and the status 1."""
    from sys import stderr

    status = 0
    for word in words:
        try:
            action(word)
        except DaemonError as error:
            print(error, file=stderr)
            status = 1
    return status


def confirmed(parsed: Parsed, warning: str) -> bool:
    """Ask before something is removed, unless --force is there; a no ends the command without a word."""
    if parsed.on("force"):
        return True
    print(f"{warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    from sys import stdin

    return stdin.readline().strip().lower() in ("y", "yes")


def bad_flag(name: str, value: str, reason: str) -> UsageError:
    """Return the error for a flag's value that its type allows and its meaning does not."""
    return UsageError(f'invalid argument "{value}" for "{name}" flag: {reason}')
