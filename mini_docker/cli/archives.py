# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#archives-module
"""The commands that move tar archives: save and load of images, export and import of files."""

from __future__ import annotations

import os

from mini_docker.cli.client import quote
from mini_docker.cli.command import Command
from mini_docker.cli.errors import CommandError
from mini_docker.cli.images import name_and_tag
from mini_docker.cli.messages import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#archives
OUTPUT = "-o, --output string  Write to a file, instead of STDOUT\n"


def save(call: Call, parsed: Parsed) -> int:
    """Write images as a tar archive."""
    save_body(
        call.client, "/images/get", {"names": parsed.words}, parsed.one("output"), "save image"
    )
    return 0


def export(call: Call, parsed: Parsed) -> int:
    """Write a container's file system as a tar archive."""
    path = f"/containers/{quote(parsed.words[0])}/export"
    save_body(call.client, path, {}, parsed.one("output"), "export container")
    return 0


def save_body(client: Client, path: str, query: dict[str, Any], output: str, verb: str) -> None:
    """Write the body of an answer to a file, whole or not at all, or to the standard output."""
    from mini_docker.cli.streams import write_all

    if not output and os.isatty(1):
        raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if output and not os.path.isdir(os.path.dirname(output) or "."):
        reason = f"stat {os.path.dirname(output)}: no such file or directory"
        raise CommandError(f"failed to {verb}: invalid output path: {reason}")
    pieces = client.call("GET", path, query).pieces()
    if not output:
        for piece in pieces:
            write_all(1, piece)
        return
    temporary = f"{output}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            file.writelines(pieces)
        os.replace(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise


LOAD_FLAGS = """
-i, --input string  Read from tar archive file, instead of STDIN
-q, --quiet         Suppress the load output
"""


def load_images(call: Call, parsed: Parsed) -> int:
    """Bring images in from a tar archive."""
    path = parsed.one("input")
    if not path and os.isatty(0):
        raise CommandError("requested load from stdin, but stdin is empty")
    with open_input(path) as file:
        query = {"quiet": "1" if parsed.on("quiet") or not os.isatty(1) else "0"}
        headers = {"Content-Type": "application/x-tar"}
        response = call.client.call("POST", "/images/load", query, file_pieces(file), headers)
        show_progress(call.client.messages(response))
    return 0


def open_input(path: str) -> BinaryIO:
    """Open a file, or the standard input for "" and "-". Raises CommandError."""
    if path in ("", "-"):
        return open(0, "rb", closefd=False)
    try:
        return open(path, "rb")
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None


def file_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is in a file, a piece at a time."""
    while piece := file.read(1 << 16):
        yield piece


IMPORT_FLAGS = """
-c, --change list      Apply Dockerfile instruction to the created image
-m, --message string   Set commit message for imported image
    --platform string  Set platform if server is multi-platform capable
"""


def import_image(call: Call, parsed: Parsed) -> int:
    """Make an image of a tar archive of files."""
    source, *reference = parsed.words
    name, label = name_and_tag(reference[0]) if reference else ("", "")
    remote = source.startswith(("http://", "https://"))
    query = {
        "fromSrc": source if remote else "-",
        "repo": name,
        "tag": label,
        "message": parsed.one("message"),
        "platform": parsed.one("platform"),
        "changes": parsed.all("change"),
    }
    with open_input("/dev/null" if remote else source) as file:
        headers = {"Content-Type": "text/plain"}
        response = call.client.call("POST", "/images/create", query, file_pieces(file), headers)
        show_progress(call.client.messages(response))
    return 0


# %% notebooks/G_object_commands.ipynb#archives-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "save",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        OUTPUT,
        save,
        1,
        None,
        ("save -o web.tar web",),
    ),
    Command(
        "load",
        "[OPTIONS]",
        "Load an image from a tar archive or STDIN",
        LOAD_FLAGS,
        load_images,
        0,
        0,
        ("load -i web.tar",),
    ),
    Command(
        "import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        IMPORT_FLAGS,
        import_image,
        1,
        2,
        ("import rootfs.tar mine:1",),
    ),
    Command(
        "export",
        "[OPTIONS] CONTAINER",
        "Export a container's filesystem as a tar archive",
        OUTPUT,
        export,
        1,
        1,
        ("export -o web.tar web",),
    ),
)
