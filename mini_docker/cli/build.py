# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#build-module
"""`build`: a directory as a tar archive to the daemon, which does the rest and says so."""

from __future__ import annotations

import json
import os

from mini_docker.cli.archives import file_pieces, open_input
from mini_docker.cli.command import Command
from mini_docker.cli.create import pairs
from mini_docker.cli.errors import CommandError
from mini_docker.cli.messages import show_progress
from mini_docker.cli.pack import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#build-context
BUILD_FLAGS = """
    --add-host list       Add a custom host-to-IP mapping ("host:ip")
    --build-arg list      Set build-time variables
    --cache-from strings  Images to consider as cache sources
-f, --file string         Name of the Dockerfile (Default is "PATH/Dockerfile")
    --force-rm            Always remove intermediate containers
    --iidfile string      Write the image ID to the file
    --label list          Set metadata for an image
-m, --memory bytes        Memory limit
    --network string      Set the networking mode for the RUN instructions during build
    --no-cache            Do not use cache when building the image
    --platform string     Set platform if server is multi-platform capable
    --pull                Always attempt to pull a newer version of the image
-q, --quiet               Suppress the build output and print image ID on success
    --rm                  Remove intermediate containers after a successful build (default true)
-t, --tag list            Name and optionally a tag in the "name:tag" format
    --target string       Set the target build stage to build.
"""


def build(call: Call, parsed: Parsed) -> int:
    """Send a directory, or an archive on the standard input, and show what the daemon makes of it."""
    where = parsed.words[0]
    dockerfile = parsed.one("file")
    if where == "-":
        with open_input("-") as file:
            return _build(call, parsed, dockerfile or "Dockerfile", file_pieces(file))
    if not os.path.isdir(where):
        raise CommandError(f"unable to prepare context: path {where!r} not found".replace("'", '"'))
    inside = _inside(where, dockerfile)
    return _build(call, parsed, inside, context_pieces(where, ignored(where), inside))


def _inside(where: str, dockerfile: str) -> str:
    """Return the Dockerfile's path in the context. Raises CommandError when it is not there."""
    path = dockerfile or os.path.join(where, "Dockerfile")
    if not os.path.isfile(path):
        reason = f"lstat {os.path.abspath(path)}: no such file or directory"
        raise CommandError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {reason}"
        )
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(where))
    if inside.startswith(".."):
        raise CommandError(f"the Dockerfile ({path}) must be within the build context")
    return inside


def ignored(where: str) -> list[tuple[bool, str]]:
    """Return the rules of .dockerignore: (kept after all?, a regular expression)."""
    try:
        with open(f"{where}/.dockerignore", encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError:
        return []
    rules = []
    for line in lines:
        if line and not line.startswith("#"):
            keep = line.startswith("!")
            rules.append((keep, pattern(os.path.normpath(line.lstrip("!").lstrip("/")))))
    return rules


def pattern(text: str) -> str:
    """Return Go's path pattern as a regular expression; ** crosses directories, and all inside is meant."""
    import re

    found = re.escape(text).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
    found = found.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return f"{found}(?:/.*)?"


def is_ignored(path: str, rules: list[tuple[bool, str]]) -> bool:
    """Return whether a path of the context stays here: the last rule that fits decides."""
    import re

    verdict = False
    for keep, expression in rules:
        if re.fullmatch(expression, path):
            verdict = not keep
    return verdict


def context_pieces(where: str, rules: list[tuple[bool, str]], dockerfile: str) -> Iterator[bytes]:
    """Yield a directory as a tar archive, all of it root's."""
    always = (dockerfile, ".dockerignore")
    files = (
        (os.path.join(where, path), path)
        for path in sorted(_paths(where))
        if path in always or not is_ignored(path, rules)
    )
    return packed(files, _give_to_root)


def _give_to_root(info: tarfile.TarInfo) -> None:
    info.uid = info.gid = 0


def _paths(where: str) -> Iterator[str]:
    """Yield the paths of all that is in a directory, relative to it."""
    for directory, names, files in os.walk(where):
        for name in names + files:
            yield os.path.relpath(os.path.join(directory, name), where)


# %% notebooks/G_object_commands.ipynb#build-send
def _build(call: Call, parsed: Parsed, dockerfile: str, pieces: Iterator[bytes]) -> int:
    """Send the context with what the flags ask for, and show what comes back."""
    query: dict[str, Any] = {
        "t": parsed.all("tag"),
        "dockerfile": dockerfile,
        "buildargs": _arguments(parsed.all("build-arg")),
        "labels": json.dumps(pairs(parsed.all("label"))),
        "cachefrom": json.dumps(
            [one for text in parsed.all("cache-from") for one in text.split(",")]
        ),
        "extrahosts": ",".join(parsed.all("add-host")),
        "forcerm": parsed.on("force-rm"),
        "memory": parsed.size("memory") or None,
        "networkmode": parsed.one("network"),
        "nocache": parsed.on("no-cache"),
        "platform": parsed.one("platform"),
        "pull": parsed.on("pull"),
        "q": parsed.on("quiet"),
        "rm": "1" if parsed.on("rm", True) else "0",
        "target": parsed.one("target"),
        "version": "1",
    }
    headers = {"Content-Type": "application/x-tar"}
    response = call.client.call("POST", "/build", query, pieces, headers)
    found = show_progress(call.client.messages(response))
    identity = next((one["ID"] for one in found if "ID" in one), "")
    if parsed.one("iidfile") and identity:
        with open(parsed.one("iidfile"), "w", encoding="utf-8") as file:
            file.write(identity)
    return 0


def _arguments(words: list[str]) -> str:
    """Return build arguments as JSON; a NAME alone takes its value from our environment."""
    found = {}
    for word in words:
        name, given, value = word.partition("=")
        found[name] = value if given else os.environ.get(name)
    return json.dumps(found)


# %% notebooks/G_object_commands.ipynb#build-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "build",
        "[OPTIONS] PATH | -",
        "Build an image from a Dockerfile",
        BUILD_FLAGS,
        build,
        1,
        1,
        ("build -t web .", "build --build-arg VERSION=2 -f other.Dockerfile ."),
    ),
)
