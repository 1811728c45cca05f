# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#flags-module
"""Command-line flags as Docker reads them: -it together, --name x or --name=x, an end at the first word."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


# %% notebooks/19_command_line.ipynb#flag-table
# older names that Docker still reads and does not show
OLD_NAMES = {
    "net": "network",
    "net-alias": "network-alias",
    "dns-opt": "dns-option",
    "time": "timeout",
    "cpuset": "cpuset-cpus",
}


class Flag:
    """A flag of a command, as one line of the help says it."""

    def __init__(self, name: str, letter: str, value: str, help: str) -> None:
        """Keep the long name, the letter or "", the word for the value or "" for a switch, and the help."""
        self.name = name
        self.letter = letter
        self.value = value
        self.help = help


class UsageError(Exception):
    """A command line that Docker answers with exit status 125 and a pointer to --help."""


def switch_help() -> Flag:
    """Return the flag that every command has."""
    return Flag("help", "", "", "Print usage")


def flag_table(text: str) -> tuple[Flag, ...]:
    """Return the flags of a table in the layout of Docker's help: the text is the definition."""
    return tuple(_flag(line.strip()) for line in text.splitlines() if line.strip())


def _flag(line: str) -> Flag:
    """Return the flag of "-e, --env list   Set environment variables"."""
    left, _, help = line.partition("  ")
    letter, _, long = left.rpartition(", ")
    name, _, value = long.partition(" ")
    assert name.startswith("--") and help, line
    return Flag(name[2:], letter.removeprefix("-"), value, help.lstrip())


# %% notebooks/19_command_line.ipynb#parsed
TRUE = ("1", "t", "T", "true", "True", "TRUE")
FALSE = ("0", "f", "F", "false", "False", "FALSE")


class Parsed:
    """What stood on the command line: flags by long name, and the words after them."""

    def __init__(self) -> None:
        """Start with nothing given."""
        self.values: dict[str, list[str]] = {}
        self.words: list[str] = []

    def on(self, name: str, default: bool = False) -> bool:
        """Return whether a switch is on."""
        return self.values[name][-1] in TRUE if name in self.values else default

    def given(self, name: str) -> bool:
        """Return whether a flag was on the line at all."""
        return name in self.values

    def one(self, name: str, default: str = "") -> str:
        """Return a flag's last value, or the default."""
        return self.values.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return a flag's values in the order given."""
        return self.values.get(name, [])

    def number(self, name: str, default: int = 0) -> int:
        """Return a flag's last value as an integer; `parse` has seen that it is one."""
        return int(self.one(name, str(default)))

    def size(self, name: str, default: int = 0) -> int:
        """Return a flag's last value in bytes."""
        return parse_size(self.one(name)) if self.one(name) else default


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
    """Take a word that begins with two dashes, and its value from `rest`. Raises UsageError."""
    name, given, value = word.partition("=")
    if name == "--" or name.startswith("---"):
        raise UsageError(f"bad flag syntax: {word}")
    flag = by_name.get(name) or by_name.get(f"--{OLD_NAMES.get(name[2:])}")
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
    reason = wrong_value(flag, value)
    if reason:
        raise UsageError(f'invalid argument "{value}" for "{shown(flag)}" flag: {reason}')
    parsed.values.setdefault(flag.name, []).append(value)


def shown(flag: Flag) -> str:
    """Return a flag as error messages name it: "-t, --tty" or "--rm"."""
    return f"-{flag.letter}, --{flag.name}" if flag.letter else f"--{flag.name}"


# %% notebooks/19_command_line.ipynb#values
# Patterns stay text until a value needs one: `import re` costs 4 ms, and `ps` has no sizes.
SIZE = r"(?P<number>[0-9.]+(?:[eE][0-9]+)?) ?(?P<unit>[kmgtpKMGTP](?:[iI]?[bB])?|[bB])?"
UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
DURATION = r"[+-]?(?:0|(?:[0-9]*\.?[0-9]+(?:ns|us|µs|ms|s|m|h))+)"
PART = r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)"
NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}


def wrong_value(flag: Flag, value: str) -> str:
    """Return what is wrong with a value of a flag, in the words of Go's packages; "" if nothing is."""
    if flag.name == "label" and value.startswith("="):
        return f"invalid label '{value}': empty name"
    if not flag.value:
        bad = value not in (*TRUE, *FALSE)
        return f'strconv.ParseBool: parsing "{value}": invalid syntax' if bad else ""
    check = VALUE_CHECKS.get(flag.value)
    return check(value) if check else ""


def _wrong_integer(value: str) -> str:
    digits = value[1:] if value[:1] in ("+", "-") else value
    if not (digits.isascii() and digits.isdigit()):
        return f'strconv.ParseInt: parsing "{value}": invalid syntax'
    fits = -(1 << 63) <= int(value) < 1 << 63
    return "" if fits else f'strconv.ParseInt: parsing "{value}": value out of range'


def _wrong_uint16(value: str) -> str:
    if not (value.isascii() and value.isdigit()):
        return f'strconv.ParseUint: parsing "{value}": invalid syntax'
    return (
        "" if int(value) < 1 << 16 else f'strconv.ParseUint: parsing "{value}": value out of range'
    )


def _wrong_size(value: str) -> str:
    try:
        parse_size(value)
    except UsageError as error:
        return str(error)
    return ""


def _wrong_decimal(value: str) -> str:
    from re import fullmatch

    return "" if fullmatch(DECIMAL, value) else f"failed to parse {value} as a rational number"


def _wrong_duration(value: str) -> str:
    return "" if is_duration(value) else f'time: invalid duration "{value}"'


def _wrong_filter(value: str) -> str:
    return "" if "=" in value or not value else "bad format of filter (expected name=value)"


VALUE_CHECKS = {
    "int": _wrong_integer,
    "uint16": _wrong_uint16,
    "bytes": _wrong_size,
    "decimal": _wrong_decimal,
    "duration": _wrong_duration,
    "filter": _wrong_filter,
}


def parse_size(text: str) -> int:
    """Return the bytes of "64m", "1g", "512k", "1.5GiB" or a bare number, as go-units' RAMInBytes does.

    "-1" is Docker's word for no limit. Raises UsageError.
    """
    if text == "-1":
        return -1
    from re import fullmatch

    found = fullmatch(SIZE, text)
    try:
        size = (
            int(float(found["number"]) * UNITS[(found["unit"] or "b")[0].lower()]) if found else -1
        )
    except (ValueError, OverflowError):
        size = -1
    if not 0 <= size < 1 << 63:
        raise UsageError(f"invalid size: '{text}'")
    return size


def is_duration(text: str) -> bool:
    """Return whether a text is a duration as Go's time.ParseDuration reads it."""
    from re import fullmatch

    return fullmatch(DURATION, text) is not None


def parse_duration(text: str) -> int:
    """Return the nanoseconds of Go's "1m30s", "500ms" or "0"; `parse` has seen that it is one."""
    if text == "0":
        return 0
    from re import findall

    sign = -1 if text.startswith("-") else 1
    hour = 3600 * 10**9
    return sign * sum(
        int(float(n) * NANOSECONDS.get(unit, hour)) for n, unit in findall(PART, text)
    )


# %% notebooks/19_command_line.ipynb#usage
def usage(path: str, words: str, about: str, flags: Sequence[Flag], more: str = "") -> str:
    """Return the help text of a command in Docker's layout; `more` stands between words and flags."""
    lines = [f"Usage:  {path} {words}".rstrip(), "", about]
    lines += ["", more] if more else []
    if flags:
        lines += ["", "Options:"]
    rows = [(_left(flag), flag.help) for flag in sorted(flags, key=lambda f: f.name)]
    width = max((len(left) for left, _ in rows), default=0) + 3
    lines += [f"{left:{width}}{help}" for left, help in rows]
    return "\n".join(lines) + "\n"


def _left(flag: Flag) -> str:
    letter = f"-{flag.letter}, " if flag.letter else "    "
    return f"  {letter}--{flag.name} {flag.value}".rstrip()
