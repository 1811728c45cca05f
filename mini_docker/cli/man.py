# Exported from notebooks/H_the_command_itself.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/H_the_command_itself.ipynb#man-module
"""Pages for man(1), one for each command and one for all, from the same tables as the help."""

from __future__ import annotations

import os

from mini_docker.cli.command import PROGRAM, Command, flags_of
from mini_docker.cli.errors import CommandError
from mini_docker.cli.main import GLOBAL_FLAGS, all_paths, load, modules, real_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from mini_docker.cli.flags import Flag


# %% notebooks/H_the_command_itself.ipynb#man-texts
ENVIRONMENT = {
    "DOCKER_HOST": "The daemon to speak to, as --host",
    "DOCKER_CONTEXT": "The context to use, as --context",
    "DOCKER_CONFIG": "The directory of config.json and of contexts, as --config",
    "DOCKER_TLS_VERIFY": "Use TLS and verify the remote, as --tlsverify",
    "DOCKER_CERT_PATH": "The directory of ca.pem, cert.pem and key.pem",
    "MINI_DOCKER_ROOT": "The data root whose daemon is meant, as --data-root",
}
STATUSES = {
    "125": "the command failed before a container ran",
    "126": "the container's command cannot be executed",
    "127": "the container's command was not found",
    "128 + n": "the container's process was killed by signal n",
    "else": "what the container's process returned; 1 where a command without a container failed",
}


def escaped(text: str) -> str:
    """Return a text that man(7) takes for text: no escapes, no orders, dashes that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def paragraph(head: str, text: str) -> list[str]:
    """Return a word in bold with its explanation below it."""
    return [".TP", f"\\fB{escaped(head)}\\fR", escaped(text)]


def option(flag: Flag) -> list[str]:
    """Return a flag with its letter, the word for its value, and its help."""
    names = [f"-{flag.letter}"] if flag.letter else []
    words = ", ".join(f"\\fB{escaped(name)}\\fR" for name in [*names, f"--{flag.name}"])
    value = f" \\fI{escaped(flag.value)}\\fR" if flag.value else ""
    return [".TP", words + value, escaped(flag.help)]


def section(head: str, parts: Iterable[list[str]]) -> list[str]:
    """Return a section, or nothing where it would be empty."""
    lines = [line for part in parts for line in part]
    return [f".SH {head}", *lines] if lines else []


# %% notebooks/H_the_command_itself.ipynb#man-pages
def page_name(name: str) -> str:
    """Return what man(1) calls the page of a command: "mini_docker-network-ls"."""
    return "-".join([PROGRAM, *name.split()])


def head(name: str, about: str, line: str) -> list[str]:
    """Return the beginning of a page: title, name, synopsis."""
    title = f'.TH {name.upper()} 1 "" {PROGRAM} "{PROGRAM} manual"'
    program, _, words = line.partition(" [")
    usage = f"\\fB{escaped(program)}\\fR" + (f" [{escaped(words)}" if words else "")
    return [title, ".SH NAME", f"{escaped(name)} \\- {escaped(about)}", ".SH SYNOPSIS", usage]


def command_page(command: Command, others: list[str]) -> str:
    """Return the page of one command; `others` are its other names."""
    line = f"{PROGRAM} {command.name} {command.words}".rstrip()
    also = [f"{PROGRAM} {name}" for name in others]
    examples = [["", escaped(f"{PROGRAM} {text}")] for text in command.examples]
    lines = [
        *head(page_name(command.name), command.about, line),
        *section("OTHER NAMES", [[escaped(", ".join(also))]] if also else []),
        *section("OPTIONS", map(option, flags_of(command))),
        *section("EXAMPLES", [[".nf"], *examples, [".fi"]] if examples else []),
        *section("SEE ALSO", [[f".BR {PROGRAM} (1)"]]),
    ]
    return "\n".join(lines) + "\n"


def overview_page() -> str:
    """Return the page of the program: what stands before a command, and all commands."""
    names = sorted(modules())
    lines = [
        *head(
            PROGRAM,
            "Docker, as a book whose every line can be read",
            f"{PROGRAM} [OPTIONS] COMMAND",
        ),
        *section("OPTIONS", map(option, GLOBAL_FLAGS)),
        *section("COMMANDS", (paragraph(name, find(name).about) for name in names)),
        *section("EXIT STATUS", (paragraph(*pair) for pair in STATUSES.items())),
        *section("ENVIRONMENT", (paragraph(*pair) for pair in ENVIRONMENT.items())),
        *section(
            "SEE ALSO", [[", ".join(f"\\fB{escaped(page_name(name))}\\fR(1)" for name in names)]]
        ),
    ]
    return "\n".join(lines) + "\n"


def find(name: str) -> Command:
    """Return the command of a name in the tables."""
    return next(command for command in load(modules()[name]) if command.name == name)


def pages() -> dict[str, str]:
    """Return all pages by the names of their files."""
    others: dict[str, list[str]] = {}
    for path in all_paths():
        if real_name(path) != path:
            others.setdefault(real_name(path), []).append(path)
    made = {name: command_page(find(name), others.get(name, [])) for name in modules()}
    return {
        f"{PROGRAM}.1": overview_page(),
        **{f"{page_name(name)}.1": text for name, text in made.items()},
    }


def write_pages(directory: str) -> None:
    """Write all pages into a directory. Raises CommandError."""
    try:
        os.makedirs(directory, exist_ok=True)
        for name, text in pages().items():
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
