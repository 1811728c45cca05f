# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#words-module
"""The words of mini_runc's command line: runc's flags, by a table."""

from __future__ import annotations

from mini_docker.runtime.state import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


# %% notebooks/11e_mini_runc.ipynb#words
class Words:
    """What stood on a command line: flags with their values, and the other words."""

    def __init__(
        self, command: str, flags: str, words: Sequence[str], outer: Words | None = None
    ) -> None:
        """Read `words` up to the first that is no flag, then by `flags`: "bundle,b= detach,d env,e*".

        `=` marks a flag with a value, `*` one that may come several times; the others are switches. One
        dash or two is the same, as in every Go program. `outer` are the words before the command. Raises
        RuntimeFailure.
        """
        self.command = command
        self.outer = outer
        self.values: dict[str, list[str]] = {}
        kinds = _table(flags)
        rest = list(words)
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            if word == "--":
                break
            name, equals, value = word.lstrip("-").partition("=")
            if name not in kinds:
                raise RuntimeFailure(f"{command}: flag provided but not defined: -{name}")
            long, kind = kinds[name]
            if kind and not equals:
                if not rest:
                    raise RuntimeFailure(f"{command}: flag needs an argument: -{name}")
                value = rest.pop(0)
            elif not kind:
                value = value or "true"
            self.values.setdefault(long, []).append(value)
        self.rest = rest

    def one(self, name: str, default: str = "") -> str:
        """Return the last value of a flag."""
        return self.values.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return every value of a flag."""
        return self.values.get(name, [])

    def on(self, name: str) -> bool:
        """Return whether a switch is on."""
        return self.one(name) not in ("", "false", "0")

    def number(self, name: str) -> int | None:
        """Return a flag's number, None if it was not given. Raises RuntimeFailure for no number."""
        text = self.one(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise RuntimeFailure(f"{self.command}: --{name} {text}: not a number") from None

    def container(self, most: int | None = 1) -> str:
        """Return the id, the first of the other words. Raises RuntimeFailure for too few or too many."""
        if not self.rest or most is not None and len(self.rest) > most:
            raise RuntimeFailure(f"{self.command}: exactly one container ID is needed")
        return self.rest[0]


def _table(flags: str) -> dict[str, tuple[str, str]]:
    """Return {name: (long name, kind)} of a description."""
    table = {}
    for entry in flags.split():
        names, kind = (entry[:-1], entry[-1]) if entry[-1] in "=*" else (entry, "")
        long = names.split(",")[0]
        table.update(dict.fromkeys(names.split(","), (long, kind)))
    return table
