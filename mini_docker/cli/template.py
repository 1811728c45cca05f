# Exported from notebooks/19b_templates_and_tables.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19b_templates_and_tables.ipynb#template-module
"""Go's templates, as far as `--format` goes: {{.Names}}, {{json .}}, {{range}}, {{if}}, pipes."""

from __future__ import annotations

import re
from collections import namedtuple

from mini_docker.cli.gotext import FUNCTIONS, LAZY, TemplateError, go_text, go_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NamedTuple

    class Node(NamedTuple):
        """A piece of a template: what kind, its words, what is inside, and what stands after else."""

        kind: str
        words: Any
        inside: list[Node]
        otherwise: list[Node]

else:
    Node = namedtuple("Node", ("kind", "words", "inside", "otherwise"))


# %% notebooks/19b_templates_and_tables.ipynb#template-words
QUOTED = r"""\"(?:\\.|[^\"\\])*\"|`[^`]*`|'(?:\\.|[^'\\])*'"""
OTHER = r"""/\*.*?\*/|[^}"`']|\}(?!\})"""
ACTION = re.compile(r"\{\{(-(?=\s))?((?:" + f"{QUOTED}|{OTHER}" + r")*)\}\}", re.DOTALL)
WORD = re.compile(
    r"""\s*(?:
    (?P<text>"(?:\\.|[^"\\\n])*") | (?P<raw>`[^`]*`) | (?P<char>'(?:\\.|[^'\\])')
    | (?P<number>[+-]?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?))
    | (?P<field>\.[A-Za-z_]\w*) | (?P<dot>\.) | (?P<variable>\$\w*)
    | (?P<name>[A-Za-z_]\w*) | (?P<set>:=) | (?P<mark>[(),|=])
    )""",
    re.VERBOSE,
)  # fmt: skip


def words_of(text: str) -> list[tuple[str, str, bool]]:
    """Return the words of an action: kind, text, and whether there was space before. Raises TemplateError."""
    found, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = WORD.match(text, at)
        if not match:
            raise TemplateError(f"unexpected {text[at:].strip()[:1]!r} in command", True)
        kind = match.lastgroup or ""
        found.append((kind, match[kind], match.start(kind) > at or at == 0))
        at = match.end()
    return found


# %% notebooks/19b_templates_and_tables.ipynb#template-parse
BLOCKS = ("if", "range", "with")


def parse_template(text: str) -> list[Node]:
    """Return the pieces of a template. Raises TemplateError."""
    pieces = _pieces(text)
    nodes, stopped = _block(pieces, "")
    if stopped:
        raise TemplateError(f"unexpected {{{{{stopped}}}}}", True)
    return nodes


def _pieces(text: str) -> list[tuple[str, str]]:
    """Return the template cut into ("text", ...) and ("action", ...), trim marks obeyed."""
    found: list[tuple[str, str]] = []
    at, trim = 0, False
    for match in ACTION.finditer(text):
        before = text[at : match.start()]
        found.append(("text", _trimmed(before, trim, bool(match[1]))))
        inner = match[2]
        trim = bool(re.search(r"\s-$", inner))
        inner = (inner[:-1] if trim else inner).strip()
        if not re.fullmatch(r"/\*.*\*/", inner, re.DOTALL):
            found.append(("action", inner))
        at = match.end()
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("unclosed action", True)
    found.append(("text", _trimmed(rest, trim, False)))
    return [piece for piece in found if piece != ("text", "")]


def _trimmed(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _block(pieces: list[tuple[str, str]], opener: str) -> tuple[list[Node], str]:
    """Take pieces up to the {{end}} or {{else}} of `opener`; return the nodes and that word."""
    nodes: list[Node] = []
    while pieces:
        kind, text = pieces.pop(0)
        if kind == "text":
            nodes.append(Node("text", text, [], []))
            continue
        first = text.split(None, 1)[0] if text else ""
        if first in ("end", "else") and opener:
            return nodes, text
        if first in ("end", "else"):
            raise TemplateError(f"unexpected {{{{{first}}}}}", True)
        if first in ("define", "template", "block"):
            raise TemplateError(f"{{{{{first}}}}} is not supported", True)
        nodes.append(_opened(pieces, first, text) if first in BLOCKS else _action(text))
    if opener:
        raise TemplateError("unexpected EOF", True)
    return nodes, ""


def _action(text: str) -> Node:
    if text in ("break", "continue"):
        return Node(text, "", [], [])
    if not text:
        raise TemplateError("missing value for command", True)
    return Node("action", _pipeline(words_of(text)), [], [])


def _opened(pieces: list[tuple[str, str]], kind: str, text: str) -> Node:
    """Return an if, a range or a with, and what belongs to it."""
    words = words_of(text)[1:]
    if not words:
        raise TemplateError(f"missing value for {kind}", True)
    inside, stopped = _block(pieces, kind)
    otherwise: list[Node] = []
    after = stopped.split(None, 1)
    if len(after) == 2 and after[0] == "else":
        otherwise = [_opened(pieces, after[1].split(None, 1)[0], after[1])]
    elif after == ["else"]:
        otherwise, stopped = _block(pieces, kind)
        if stopped != "end":
            raise TemplateError("expected end; found {{else}}", True)
    return Node(kind, _pipeline(words, kind == "range"), inside, otherwise)


def _pipeline(words: list[tuple[str, str, bool]], in_range: bool = False) -> Node:
    """Return `$x := a b | c` as a node: the variables, and commands of operands."""
    names: list[str] = []
    shape = [text if kind in ("set", "mark") else kind for kind, text, _ in words]
    declares = shape[:2] in (["variable", ":="], ["variable", "="])
    if declares:
        names, words = [words[0][1], shape[1]], words[2:]
    elif in_range and shape[:4] == ["variable", ",", "variable", ":="]:
        names, words = [words[0][1], ":=", words[2][1]], words[4:]
    if not words:
        raise TemplateError("missing value for command", True)
    commands, rest = _commands(list(words))
    if rest:
        raise TemplateError(f"unexpected {rest[0][1]!r} in command", True)
    return Node("pipeline", names, commands, [])


def _commands(words: list[tuple[str, str, bool]]) -> tuple[list[Node], list[tuple[str, str, bool]]]:
    """Take the commands of a pipeline; return them and the words after them. Raises TemplateError."""
    commands: list[Node] = [Node("command", "", [], [])]
    while words and words[0][:2] != ("mark", ")"):
        kind, text, _ = words[0]
        if kind == "mark" and text == "|":
            words.pop(0)
            if not commands[-1].inside:
                raise TemplateError("missing value for command", True)
            commands.append(Node("command", "", [], []))
        else:
            commands[-1].inside.append(_operand(words))
    if not commands[-1].inside:
        raise TemplateError("missing value for command", True)
    return commands, words


def _operand(words: list[tuple[str, str, bool]]) -> Node:
    """Take one operand: a literal, a name, or something with fields after it."""
    kind, text, _ = words.pop(0)
    if kind == "mark":
        if text != "(":
            raise TemplateError(f"unexpected {text!r} in command", True)
        commands, rest = _commands(words)
        if not rest or rest.pop(0)[1] != ")":
            raise TemplateError("unclosed left paren", True)
        base = Node("pipeline", [], commands, [])
    elif kind == "field":
        base = Node("dot", "", [], [])
        words.insert(0, (kind, text, False))
    elif kind == "set":
        raise TemplateError("unexpected := in command", True)
    elif kind == "name" and text in ("true", "false", "nil"):
        base = Node("value", {"true": True, "false": False, "nil": None}[text], [], [])
    elif kind == "name":
        if text not in FUNCTIONS and text not in LAZY:
            raise TemplateError(f'function "{text}" not defined', True)
        base = Node("function", text, [], [])
    elif kind in ("dot", "variable"):
        base = Node(kind, text, [], [])
    else:
        base = Node("value", _literal(kind, text), [], [])
    path: list[str] = []
    while words and words[0][0] == "field" and not words[0][2]:
        path.append(words.pop(0)[1][1:])
    return Node("fields", path, [base], []) if path else base


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _literal(kind: str, text: str) -> Any:
    if kind == "raw":
        return text[1:-1]
    if kind == "number":
        return float(text) if re.search(r"[.eE]", text) and "x" not in text else int(text, 0)
    plain = unescaped(text[1:-1])
    return plain if kind == "text" else ord(plain)


def unescaped(text: str) -> str:
    r"""Return a text with \n, \t, \" and \x41 turned into what they stand for."""

    def one(match: re.Match[str]) -> str:
        word = match[1]
        if word[0] in "xuU":
            return chr(int(word[1:], 16))
        return ESCAPES.get(word, word)

    return re.sub(
        r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, text, flags=re.DOTALL
    )


# %% notebooks/19b_templates_and_tables.ipynb#template-run
class _Leave(Exception):  # noqa: N818 (no error: the way out of a range)
    """{{break}} or {{continue}}."""


class Template:
    """A parsed template; `kind` is what Go calls the type of the values, for its error messages."""

    def __init__(
        self, text: str, kind: str = "", functions: Mapping[str, Callable[..., Any]] = FUNCTIONS
    ) -> None:
        """Parse. Raises TemplateError."""
        try:
            self.nodes = parse_template(text)
        except RecursionError:
            raise TemplateError("too many brackets", True) from None
        self.kind = kind
        self.functions = functions

    def apply(self, value: Any) -> str:
        """Return the text for a value. Raises TemplateError."""
        out: list[str] = []
        try:
            self._walk(self.nodes, value, [{"$": value}], out)
        except TemplateError:
            raise
        except (TypeError, AttributeError, ValueError, KeyError, IndexError) as error:
            raise TemplateError(f"wrong type for value: {error}") from None
        except RecursionError:
            raise TemplateError("exceeded maximum template depth") from None
        return "".join(out)

    def _walk(
        self, nodes: Sequence[Node], dot: Any, scopes: list[dict[str, Any]], out: list[str]
    ) -> None:
        """Append to `out` what nodes come to; `dot` is what {{.}} means there, `scopes` the variables."""
        for node in nodes:
            if node.kind == "text":
                out.append(node.words)
            elif node.kind in ("break", "continue"):
                raise _Leave(node.kind)
            elif node.kind == "action":
                value = self._value(node.words, dot, scopes)
                out.extend([] if node.words.words else [go_text(value)])
            elif node.kind == "range":
                self._range(node, dot, scopes, out)
            else:
                inner = [*scopes, {}]
                value = self._value(node.words, dot, inner)
                chosen = node.inside if value else node.otherwise
                self._walk(chosen, value if value and node.kind == "with" else dot, inner, out)

    def _range(self, node: Node, dot: Any, scopes: list[dict[str, Any]], out: list[str]) -> None:
        """Walk the inside of a range once for each item of a list or map, or its else for none."""
        value = self._value(node.words._replace(words=[]), dot, scopes)
        if isinstance(value, dict):
            items = sorted(value.items())
        elif value is None or isinstance(value, list):
            items = list(enumerate(value or []))
        else:
            raise TemplateError(f"range can't iterate over {go_text(value)}")
        names = node.words.words
        for key, one in items:
            scope = {names[0]: one} if len(names) == 2 else {}
            scope = {names[0]: key, names[2]: one} if len(names) == 3 else scope
            try:
                self._walk(node.inside, one, [*scopes, scope], out)
            except _Leave as leave:
                if leave.args == ("break",):
                    break
        if not items:
            self._walk(node.otherwise, dot, scopes, out)

    def _value(self, pipeline: Node, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        """Return the value of a pipeline: each command gets the value before it as its last operand."""
        piped: list[Any] = []
        for command in pipeline.inside:
            piped = [self._command(command.inside, dot, scopes, piped)]
        if pipeline.words:
            self._assign(pipeline.words, piped[0], scopes)
        return piped[0]

    def _assign(self, names: list[str], value: Any, scopes: list[dict[str, Any]]) -> None:
        """Declare a variable in the innermost scope (:=), or change it where it is (=)."""
        name, sign = names[:2]
        if sign == ":=":
            scopes[-1][name] = value
            return
        for scope in reversed(scopes):
            if name in scope:
                scope[name] = value
                return
        raise TemplateError(f'undefined variable "{name}"')

    def _command(
        self, operands: Sequence[Node], dot: Any, scopes: list[dict[str, Any]], piped: list[Any]
    ) -> Any:
        """Return the value of a function or field with its arguments; `piped` is the last one."""
        first, rest = operands[0], operands[1:]
        if first.kind == "function" and first.words in LAZY:
            return self._lazily(first.words, rest, dot, scopes, piped)
        values = [self._operand(node, dot, scopes) for node in rest] + piped
        if first.kind == "function":
            try:
                return self.functions[first.words](*values)
            except TypeError as error:
                raise TemplateError(f'executing "" at <{first.words}>: {error}') from None
        found = self._operand(first, dot, scopes)
        if callable(found):
            return found(*values)
        if values:
            raise TemplateError(f"can't give argument to non-function {go_text(found)}")
        return found

    def _lazily(
        self,
        name: str,
        rest: Sequence[Node],
        dot: Any,
        scopes: list[dict[str, Any]],
        piped: list[Any],
    ) -> Any:
        """Return the value of `and` or `or`, which look no further than they must."""
        value: Any = None
        for node in rest:
            value = self._operand(node, dot, scopes)
            if bool(value) == (name == "or"):
                return value
        return piped[0] if piped else value

    def _operand(self, node: Node, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        if node.kind == "value":
            return node.words
        if node.kind == "dot":
            return dot
        if node.kind == "variable":
            for scope in reversed(scopes):
                if node.words in scope:
                    return scope[node.words]
            raise TemplateError(f'undefined variable "{node.words}"')
        if node.kind == "pipeline":
            return self._value(node, dot, scopes)
        if node.kind == "function":
            return self.functions[node.words]()
        value = self._operand(node.inside[0], dot, scopes)
        for at, name in enumerate(node.words):
            value = self._field(value, name, node.words[: at + 1])
        return value

    def _field(self, value: Any, name: str, path: list[str]) -> Any:
        """Return a field. A missing one is an error for a type of Go's, and for a map of JSON."""
        where = f'template: :1:2: executing "" at <.{".".join(path)}>: '
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if name == "ID" and "Id" in value:
                return value["Id"]  # Go's name of the field, and JSON's
            if self.kind and len(path) == 1:
                raise TemplateError(f"{where}can't evaluate field {name} in type {self.kind}")
            if self.kind:
                return None
            raise TemplateError(f'{where}map has no entry for key "{name}"')
        if value is None:
            raise TemplateError(f"{where}nil pointer evaluating interface {{}}.{name}")
        raise TemplateError(f"{where}can't evaluate field {name} in type {go_type(value)}")
