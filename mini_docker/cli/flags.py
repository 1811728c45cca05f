# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#flags-module
"""Command-line flags as Docker reads them: -it together, --name x or --name=x, an end at the first word."""

from __future__ import annotations

import re
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    class Flag(NamedTuple):
        """A flag: its long name, its letter or "", the word for its value ("" for a switch), help, list?"""

        name: str
        letter: str
        value: str
        help: str
        many: bool

else:
    Flag = namedtuple("Flag", ("name", "letter", "value", "help", "many"))


# %% notebooks/19_command_line.ipynb#flags
SIZE = re.compile(
    r"(?P<number>[0-9.]+(?:[eE][0-9]+)?) ?(?P<unit>[kmgtp](?:i?b)?|b)?", re.IGNORECASE
)
UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
TRUE = ("1", "t", "T", "true", "True", "TRUE")
FALSE = ("0", "f", "F", "false", "False", "FALSE")


class UsageError(Exception):
    """A command line that Docker answers with exit status 125 and a pointer to --help."""


def switch(name: str, help: str, letter: str = "") -> Flag:
    """Return a flag without a value."""
    return Flag(name, letter, "", help, False)


def option(name: str, value: str, help: str, letter: str = "", many: bool = False) -> Flag:
    """Return a flag with a value, or with several if it may be given many times."""
    return Flag(name, letter, value, help, many)


class Parsed:
    """What stood on the command line: flags by long name, and the words after them."""

    def __init__(self) -> None:
        """Start with nothing given."""
        self.values: dict[str, list[str]] = {}
        self.words: list[str] = []

    def on(self, name: str) -> bool:
        """Return whether a switch is on."""
        return self.values.get(name, ["false"])[-1] in TRUE

    def one(self, name: str, default: str = "") -> str:
        """Return a flag's last value, or the default."""
        return self.values.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return a flag's values in the order given."""
        return self.values.get(name, [])


# %% notebooks/19_command_line.ipynb#parse
def parse(flags: Sequence[Flag], arguments: Sequence[str], interspersed: bool = False) -> Parsed:
    """Return the flags and words of `arguments`; unless `interspersed`, the first word ends the flags.

    Raises UsageError in the words of the docker client.
    """
    by_name = {f"--{flag.name}": flag for flag in flags}
    by_letter = {flag.letter: flag for flag in flags if flag.letter}
    parsed, rest = Parsed(), list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            parsed.words += rest
            break
        if word.startswith("--"):
            _long(by_name, word, rest, parsed)
        elif word.startswith("-") and len(word) > 1:
            _short(by_letter, word, rest, parsed)
        elif interspersed:
            parsed.words.append(word)
        else:
            parsed.words += [word, *rest]
            break
    return parsed


def _long(by_name: dict[str, Flag], word: str, rest: list[str], parsed: Parsed) -> None:
    name, given, value = word.partition("=")
    if name == "--" or name.startswith("---"):
        raise UsageError(f"bad flag syntax: {word}")
    flag = by_name.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: {name}")
    if not given:
        value = _next(rest, f"flag needs an argument: {name}") if flag.value else "true"
    _set(parsed, flag, value)


def _short(by_letter: dict[str, Flag], word: str, rest: list[str], parsed: Parsed) -> None:
    """Read -it, -eNAME=1, -e NAME=1, -e=NAME=1: letters until one that takes a value."""
    letters = word[1:]
    while letters:
        left, letter, letters = letters, letters[0], letters[1:]
        flag = by_letter.get(letter)
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{left}")
        if len(letters) > 1 and letters[0] == "=":
            _set(parsed, flag, letters[1:])
            return
        if flag.value:
            error = f"flag needs an argument: '{letter}' in -{left}"
            _set(parsed, flag, letters or _next(rest, error))
            return
        _set(parsed, flag, "true")


def _next(rest: list[str], error: str) -> str:
    if not rest:
        raise UsageError(error)
    return rest.pop(0)


def _set(parsed: Parsed, flag: Flag, value: str) -> None:
    if not flag.value and value not in (*TRUE, *FALSE):
        reason = f'strconv.ParseBool: parsing "{value}": invalid syntax'
        raise UsageError(f'invalid argument "{value}" for "{shown(flag)}" flag: {reason}')
    parsed.values.setdefault(flag.name, []).append(value)


def shown(flag: Flag) -> str:
    """Return a flag as error messages name it: "-t, --tty" or "--rm"."""
    return f"-{flag.letter}, --{flag.name}" if flag.letter else f"--{flag.name}"


# %% notebooks/19_command_line.ipynb#usage
def usage(command: str, words: str, about: str, flags: Sequence[Flag]) -> str:
    """Return the help text of a command in Docker's layout."""
    lines = [f"Usage:  mini_docker {command} {words}".rstrip(), "", about]
    if flags:
        lines += ["", "Options:"]
    left = [_left(flag) for flag in sorted(flags)]
    width = max(map(len, left), default=0) + 3
    lines += [f"{text:{width}}{flag.help}" for text, flag in zip(left, sorted(flags), strict=True)]
    return "\n".join(lines) + "\n"


def _left(flag: Flag) -> str:
    letter = f"-{flag.letter}, " if flag.letter else "    "
    return f"  {letter}--{flag.name} {flag.value}".rstrip()


def parse_size(text: str) -> int:
    """Return the bytes of "64m", "1g", "512k", "1.5GiB" or a bare number, as go-units' RAMInBytes does.

    Raises UsageError.
    """
    found = SIZE.fullmatch(text)
    try:
        size = (
            int(float(found["number"]) * UNITS[(found["unit"] or "b")[0].lower()]) if found else -1
        )
    except (ValueError, OverflowError):
        size = -1
    if not 0 <= size < 1 << 63:
        raise UsageError(
            f'invalid argument "{text}" for "-m, --memory" flag: invalid size: \'{text}\''
        )
    return size
