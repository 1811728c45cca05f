# Exported from notebooks/14e_logs.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14e_logs.ipynb#tags-module
"""Tags of logs: Go's templates, as far as a tag needs them: fields and functions of texts."""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WORD = re.compile(r"""\s*(?:(\|)|"((?:\\.|[^"\\])*)"|`([^`]*)`|(-?\d+)|([^\s|"`]+))""")
TRIM = " \t\r\n"


class TagError(Exception):
    """A template that cannot be filled in, in Go's words."""


def printed(value: Any) -> str:
    """Return a value as Go prints it: lists are "[a b]", tables "map[k:v]"."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{value[key]}' for key in sorted(value))}]"
    return f"[{' '.join(value)}]" if isinstance(value, list) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: re.sub(r"\b[a-z]", lambda found: found[0].upper(), text),
    "join": lambda parts, between: between.join(parts),
    "split": lambda text, between: text.split(between),
    "truncate": lambda text, length: text[:length],
    "pad": _pad,
}


# %% notebooks/14e_logs.ipynb#tags
def tag_of(template: str, fields: dict[str, Any]) -> str:
    """Return a template with its fields filled in. Raises TagError."""
    done, rest = "", 0
    while (start := template.find("{{", rest)) >= 0:
        end = template.find("}}", start)
        line = template.count("\n", 0, start) + 1
        if end < 0:
            raise TagError(f"template: log-tag:{line}: unclosed action")
        text, body = template[rest:start], template[start + 2 : end]
        begin = start + 2
        if body.startswith("- "):
            text, body, begin = text.rstrip(TRIM), body[1:], begin + 1
        done += text
        rest = end + 2
        if body.endswith(" -"):
            body = body[:-2]
            rest += len(template[rest:]) - len(template[rest:].lstrip(TRIM))
        place = f"{line}:{begin - template.rfind(chr(10), 0, begin) - 1}"
        done += printed(Action(body, place, fields).value())
    return done + template[rest:]


class Action:
    """What stands between {{ and }}: values, functions before them, and | between functions."""

    def __init__(self, body: str, place: str, fields: dict[str, Any]) -> None:
        """Take it apart; `place` is "line:column" of its beginning."""
        self.fields = fields
        self.line, _, column = place.partition(":")
        self.column = int(column)
        self.commands: list[list[re.Match[str]]] = [[]]
        for found in WORD.finditer(body.rstrip()):
            if found[1]:
                self.commands.append([])
            else:
                self.commands[-1].append(found)

    def value(self) -> Any:
        """Return what it comes to. Raises TagError."""
        given: list[Any] = []
        for words in self.commands:
            if not words:
                raise TagError(f"template: log-tag:{self.line}: missing value for command")
            first = words[0][5] or ""
            if first.startswith(".") or not first:
                if len(words) > 1 or given:
                    raise self.wrong(words[0], "can't give argument to non-function")
                given = [self.operand(words[0])]
            else:
                given = [self.call(words, given)]
        return given[0]

    def call(self, words: list[re.Match[str]], given: list[Any]) -> Any:
        """Return what a function makes of what stands behind it and of what came before. Raises TagError."""
        name = words[0][5]
        if name not in FUNCTIONS:
            raise TagError(f'template: log-tag:{self.line}: function "{name}" not defined')
        arguments = [self.operand(word) for word in words[1:]] + given
        try:
            return FUNCTIONS[name](*arguments)
        except (TypeError, AttributeError):
            raise self.wrong(words[0], f"wrong number or kind of args for {name}") from None

    def operand(self, word: re.Match[str]) -> Any:
        """Return a field, a text or a number. Raises TagError."""
        if word[2] is not None or word[3] is not None:
            return word[3] if word[2] is None else re.sub(r"\\(.)", r"\1", word[2])
        if word[4] is not None:
            return int(word[4])
        name, dot, more = word[5].removeprefix(".").partition(".")
        if not word[5].startswith("."):
            raise TagError(f'template: log-tag:{self.line}: function "{word[5]}" not defined')
        if name not in self.fields:
            raise self.wrong(word, f"can't evaluate field {name} in type *logger.Info")
        if dot:
            raise self.wrong(word, f"can't evaluate field {more} in type string", len(name) + 1)
        return self.fields[name]

    def wrong(self, word: re.Match[str], text: str, further: int = 0) -> TagError:
        """Return an error that names a word and its place."""
        shown = word[0].strip()
        column = self.column + word.end() - len(shown) + further
        at = f"template: log-tag:{self.line}:{column}"
        return TagError(f'{at}: executing "log-tag" at <{shown}>: {text}')
