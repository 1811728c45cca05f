# Exported from notebooks/19b_templates_and_tables.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19b_templates_and_tables.ipynb#listing-module
"""Rows to text: `--format`, tables with heads, JSON, -q. Every list of the command line comes from here."""

from __future__ import annotations

from mini_docker.cli.errors import CommandError
from mini_docker.cli.text import columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed

    Row = dict[str, Any]

PS_KIND = "*formatter.ContainerContext"


# %% notebooks/19b_templates_and_tables.ipynb#listing-show
def rendered(
    form: str, rows: Sequence[Row], heads: Mapping[str, Any], kind: str, usual: str
) -> str:
    """Return rows as a format asks for: "" or "table" is `usual`, "table X" has heads, "json", or a template.

    `heads` has the head of each field, `kind` Go's name for a row. Raises CommandError.
    """
    form = usual if form in ("", "table") else form
    form = "{{json .}}" if form == "json" else form
    table = form.startswith("table ")
    text = form.removeprefix("table ").strip() if table else form
    text = text.replace("\\t", "\t").replace("\\n", "\n")
    if fields := simple_fields(text):
        lines = ["\t".join(str(_field(row, name, kind)) for name in fields) for row in rows]
        top = "\t".join(str(heads[name]) for name in fields if name in heads)
        return columns([top, *lines]) if table else "".join(f"{line}\n" for line in lines)
    return _by_template(text, rows, heads, kind, table)


def simple_fields(text: str) -> list[str]:
    """Return the fields of a format that is only "{{.A}}\\t{{.B}}", which needs no parser of templates."""
    found = []
    for part in text.split("\t"):
        if not (part.startswith("{{.") and part.endswith("}}") and part[3:-2].isalnum()):
            return []
        found.append(part[3:-2])
    return found


def _field(row: Row, name: str, kind: str) -> Any:
    if name not in row:
        where = f'template: :1:2: executing "" at <.{name}>'
        error = f"{where}: can't evaluate field {name} in type {kind}"
        raise CommandError(f"{_failed(kind, 'execute')}: {error}")
    value = row[name]
    return value() if callable(value) else value


def _failed(kind: str, doing: str) -> str:
    """Return the words before a template's error: `ps` has its own, since it looks into a format first."""
    return f"failed to {doing} template" if kind == PS_KIND else "template parsing error"


def _by_template(
    text: str, rows: Sequence[Row], heads: Mapping[str, Any], kind: str, table: bool
) -> str:
    """Return a line for each row by a template, under heads if it is a `table`. Raises CommandError."""
    from mini_docker.cli.gotext import HEAD_FUNCTIONS, Fields, TemplateError
    from mini_docker.cli.template import Template

    try:
        template = Template(text, kind)
        lines = [template.apply(Fields(row)) for row in rows]
        if table:
            head = Template(text, "", HEAD_FUNCTIONS).apply(dict(heads))
            return columns([head, *lines])
    except TemplateError as error:
        doing = _failed(kind, "parse" if error.parsing else "execute")
        raise CommandError(f"{doing}: {error}") from None
    return "".join(f"{line}\n" for line in lines)


def quiet_or(form: str, quiet: bool, usual: str, identity: str = "ID") -> str:
    """Return the format that -q and --format come to: -q alone is only the identity."""
    return f"{{{{.{identity}}}}}" if quiet and not form else form or usual


def form_of(call: Call, parsed: Parsed, setting: str, usual: str, identity: str = "ID") -> str:
    """Return a list's format: --format's, for -q the identity, the config file's `setting`, or `usual`."""
    asked, quiet = parsed.one("format"), parsed.on("quiet")
    form = asked if asked or quiet else call.config().get(setting, "")
    return quiet_or(form, quiet, usual, identity)


def by_name(one: dict[str, Any]) -> list[tuple[int, str]]:
    """Return a key by which an object called net2 comes before net10."""
    from re import findall

    return [
        (int(word), "") if word.isdigit() else (-1, word)
        for word in findall(r"\d+|\D+", one["Name"])
    ]


# %% notebooks/19b_templates_and_tables.ipynb#labels
def label_words(labels: Mapping[str, str] | None) -> str:
    """Return labels as one word: "a=b,c=d", in order."""
    return ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items()))


def label_reader(labels: Mapping[str, str] | None) -> Callable[[str], str]:
    """Return what {{.Label "name"}} calls."""
    return lambda name: (labels or {}).get(name, "")


def label_head(name: str) -> str:
    """Return the head of a column {{.Label "com.example.some-thing"}}: SOME THING."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")
