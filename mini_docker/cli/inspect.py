# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#inspect-module
"""`inspect`: what the daemon knows about an object, whole or through a template."""

from __future__ import annotations

import json

from mini_docker.cli.client import quote
from mini_docker.cli.command import FORMAT, Command
from mini_docker.cli.errors import CommandError, DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#inspect
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def inspect(call: Call, parsed: Parsed) -> int:
    """Look objects up under every kind, or under that of --type."""
    kind = parsed.one("type")
    if kind and kind not in PATHS:
        known = ", ".join(f'"{one}"' for one in sorted(PATHS))
        raise CommandError(f'unknown type: "{kind}": must be one of {known}')
    return show_objects(
        parsed, _finder(call.client, [kind] if kind else list(PATHS), parsed.on("size"))
    )


def inspector(kind: str) -> Callable[[Call, Parsed], int]:
    """Return the command that inspects one kind of object."""

    def one(call: Call, parsed: Parsed) -> int:
        return show_objects(parsed, _finder(call.client, [kind], parsed.on("size")))

    return one


def _finder(client: Client, kinds: list[str], size: bool) -> Callable[[str], Any]:
    """Return what asks the daemon for an object of the first kind that has that name."""

    def find(name: str) -> Any:
        for kind in kinds:
            path = PATHS[kind].format(quote(name, "/:@" if kind == "image" else ""))
            try:
                query = {"size": True} if size and kind == "container" else {}
                return client.json("GET", path, query)
            except DaemonError as error:
                if error.http_status != 404 or len(kinds) == 1:
                    raise
        raise CommandError(f"Error: No such object: {name}")

    return find


def show_objects(parsed: Parsed, find: Callable[[str], Any]) -> int:
    """Print each object that is found; what is missing is a line on the error stream, and status 1."""
    found, errors = [], []
    for name in parsed.words:
        try:
            found.append(find(name))
        except CommandError as error:
            errors.append(str(error))
    print(objects_text(found, parsed.one("format"), errors), end="", flush=True)
    if errors:
        raise CommandError("\n".join(errors))
    return 0


def show_object(found: Any, form: str) -> None:
    """Print one object through a template. Raises CommandError."""
    errors: list[str] = []
    print(objects_text([found], form, errors), end="", flush=True)
    if errors:
        raise CommandError("\n".join(errors))


def objects_text(found: list[Any], form: str, errors: list[str]) -> str:
    """Return objects as one JSON array, or each through a template; what fails is among the errors.

    Raises CommandError for what is no template.
    """
    from mini_docker.cli.gotext import TemplateError, go_json
    from mini_docker.cli.template import Template

    if not form:
        return json.dumps(found, indent=4, ensure_ascii=False) + "\n"
    if form == "json":
        return "".join(f"{go_json(one)}\n" for one in found) or "\n"
    lines: list[str] = []
    try:
        template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}", 64) from None
    for one in found:
        try:
            lines.append(f"{template.apply(one)}\n")
        except TemplateError as error:
            errors.append(f"template parsing error: {error}")
    return "".join(lines) or "\n"


# %% notebooks/F_container_commands.ipynb#inspect-table
SIZE = "-s, --size           Display total file sizes\n"
OWN_FLAGS = {
    "container": f"\n{SIZE}",
    "network": "\n-v, --verbose        Verbose output for diagnostics\n",
}
COMMANDS: tuple[Command, ...] = (
    Command(
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on Docker objects",
        f"{FORMAT}\n{SIZE}    --type string     Only inspect objects of the given type",
        inspect,
        1,
        None,
        ("inspect web", "inspect -f '{{.State.Status}}' web", "inspect -f '{{json .Mounts}}' web"),
    ),
    *(
        Command(
            f"{kind} inspect",
            f"[OPTIONS] {kind.upper()} [{kind.upper()}...]",
            f"Display detailed information on one or more {kind}s",
            FORMAT + OWN_FLAGS.get(kind, ""),
            inspector(kind),
            1,
            None,
            (f"{kind} inspect mine",),
        )
        for kind in PATHS
    ),
)
