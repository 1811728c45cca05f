# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#copy-module
"""`cp`: files into a container and out of it, as tar archives over HTTP."""

from __future__ import annotations

import json
import os
import sys
import tarfile

from mini_docker.cli.client import quote
from mini_docker.cli.command import Command
from mini_docker.cli.errors import CommandError, DaemonError
from mini_docker.cli.pack import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#copy-words
GO_DIRECTORY, GO_SYMLINK = 1 << 31, 1 << 27  # bits of Go's FileMode
CP_FLAGS = """
-a, --archive      Archive mode (copy all uid/gid information)
-L, --follow-link  Always follow symbol link in SRC_PATH
-q, --quiet        Suppress progress output during copy
"""


def cp(call: Call, parsed: Parsed) -> int:
    """Copy from a container or to one; "-" is a tar archive on the standard streams."""
    source, target = parsed.words
    from_name, from_path = container_part(source)
    to_name, to_path = container_part(target)
    if from_name and to_name:
        raise CommandError("copying between containers is not supported")
    if not from_name and not to_name:
        raise CommandError("must specify at least one container source")
    if from_name:
        copy_out(call.client, from_name, from_path, to_path, parsed)
    else:
        copy_in(call.client, from_path, to_name, to_path, parsed)
    return 0


def container_part(text: str) -> tuple[str, str]:
    """Return ("web", "/etc") of "web:/etc", and ("", "./a:b") of a path of our own."""
    if text.startswith(("/", ".")) or ":" not in text:
        return "", text
    name, _, path = text.partition(":")
    return name, path


# %% notebooks/F_container_commands.ipynb#copy-stat
def path_stat(client: Client, name: str, path: str) -> dict[str, Any]:
    """Return what a container has at a path: name, size, mode as Go's FileMode, linkTarget."""
    from base64 import b64decode

    response = client.call("HEAD", f"/containers/{quote(name)}/archive", {"path": path or "/"})
    try:
        found = json.loads(b64decode(response.headers["x-docker-container-path-stat"]))
    except (KeyError, ValueError):
        raise CommandError("the daemon did not say what is at that path") from None
    return dict(found)


def stat_or_error(client: Client, name: str, path: str) -> dict[str, Any]:
    """Return `path_stat`; a HEAD request has no room for the daemon's words, so a GET asks for them."""
    try:
        return path_stat(client, name, path)
    except DaemonError:
        client.call("GET", f"/containers/{quote(name)}/archive", {"path": path or "/"})
        raise


# %% notebooks/F_container_commands.ipynb#copy-out
def copy_out(client: Client, name: str, path: str, target: str, parsed: Parsed) -> None:
    """Copy from a container to a path of ours, or as an archive to the standard output."""
    from mini_docker.cli.streams import write_all

    if target == "-" and os.isatty(1):
        raise CommandError("cowardly refusing to copy to a terminal, redirect it")
    stat = stat_or_error(client, name, path)
    if parsed.on("follow-link") and stat["mode"] & GO_SYMLINK:
        linked = stat["linkTarget"]
        path = linked if linked.startswith("/") else os.path.join(os.path.dirname(path), linked)
        stat = stat_or_error(client, name, path)
    response = client.call("GET", f"/containers/{quote(name)}/archive", {"path": path or "/"})
    if target == "-":
        for piece in response.pieces():
            write_all(1, piece)
        return
    directory = bool(stat["mode"] & GO_DIRECTORY)
    where, new_name = _place(
        target, os.path.basename(path.rstrip("/")) or stat["name"], directory, path
    )
    total = _unpack(Pieces(response.pieces()), where, stat["name"], new_name, parsed.on("archive"))
    _said(parsed, f"{name}:{path}", target, total)


def _place(target: str, name: str, directory: bool, path: str) -> tuple[str, str]:
    """Return the directory to unpack into and the name that the copy gets there, cp's rules.

    A source that ends in "/." means what is in it: then the name is "".
    """
    inside = path.endswith("/.") or path == "."
    if os.path.isdir(target):
        return target, "" if inside and directory else name
    if target.endswith("/") and not directory:
        raise CommandError(f"no such directory: {target}")
    parent = os.path.dirname(target.rstrip("/")) or "."
    if not os.path.isdir(parent):
        raise CommandError(f'invalid output path: directory "{parent}" does not exist')
    if directory and os.path.exists(target):
        raise CommandError("cannot copy directory to a file")
    return parent, os.path.basename(target.rstrip("/"))


class Pieces:
    """The pieces of a body as a file that tarfile can read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        """Begin before the first piece."""
        self.pieces = pieces
        self.rest = b""

    def read(self, length: int) -> bytes:
        """Return `length` bytes, fewer only at the end."""
        while len(self.rest) < length:
            piece = next(self.pieces, b"")
            if not piece:
                break
            self.rest += piece
        found, self.rest = self.rest[:length], self.rest[length:]
        return found


def _unpack(file: Pieces, where: str, old: str, new: str, owners: bool) -> int:
    """Unpack an archive whose top is called `old` as `new`; return the bytes. It may be hostile."""
    total = 0
    root = os.path.realpath(where)
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                member.name = _renamed(member.name, old, new)
                if member.islnk():
                    member.linkname = _renamed(member.linkname, old, new)
                    _inside(root, member.linkname)
                if member.name in ("", "."):
                    continue
                _inside(root, member.name)
                if not (member.isdir() or member.isfile() or member.issym() or member.islnk()):
                    raise CommandError(f"{member.name} is a device: not copied")
                if not owners:
                    member.uid, member.gid = os.getuid(), os.getgid()
                    member.uname = member.gname = ""
                member.mode &= 0o777 if not owners else 0o7777
                _make_way(os.path.join(root, member.name), member)
                archive.extract(member, root, numeric_owner=True)
                total += member.size
    except tarfile.TarError as error:
        raise CommandError(f"the daemon's archive cannot be read: {error}") from None
    return total


def _renamed(name: str, old: str, new: str) -> str:
    """Return a member's name with its first part replaced."""
    first, slash, rest = name.strip("/").partition("/")
    if first == old.strip("/") or old in ("/", "."):
        return (
            f"{new}{slash if new else ''}{rest}"
            if first == old.strip("/")
            else os.path.join(new, name)
        )
    return os.path.join(new, name.strip("/"))


def _inside(root: str, name: str) -> None:
    """Refuse a name that leads out of `root`, by ".." or through a link that came before."""
    parent = os.path.realpath(os.path.join(root, os.path.dirname(name)))
    if (
        ".." in name.split("/")
        or name.startswith("/")
        or not f"{parent}/".startswith(f"{root.rstrip('/')}/")
    ):
        raise CommandError(f"the archive wants to write outside of {root}: {name}")


def _make_way(path: str, member: tarfile.TarInfo) -> None:
    """Remove what is in the place of a file; a directory is kept, and joined by another."""
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
        os.unlink(path)
    elif os.path.isdir(path) and not member.isdir():
        raise CommandError(f"cannot overwrite directory {path} with a file")


# %% notebooks/F_container_commands.ipynb#copy-in
def copy_in(client: Client, source: str, name: str, path: str, parsed: Parsed) -> None:
    """Copy a path of ours, or an archive from the standard input, into a container."""
    from mini_docker.cli.archives import file_pieces, open_input

    query = {"path": path or "/", "noOverwriteDirNonDir": "true"}
    if parsed.on("archive"):
        query["copyUIDGID"] = "true"
    url, headers = f"/containers/{quote(name)}/archive", {"Content-Type": "application/x-tar"}
    if source == "-":
        try:
            directory = path_stat(client, name, path)["mode"] & GO_DIRECTORY
        except DaemonError as error:
            if error.http_status != 404:
                raise
            directory = 0
        if not directory:
            raise CommandError(f'destination "{name}:{path}" must be a directory')
        with open_input("-") as file:
            client.call("PUT", url, query, file_pieces(file), headers).read()
        return
    if not os.path.lexists(source):
        raise CommandError(f"lstat {os.path.abspath(source)}: no such file or directory")
    if parsed.on("follow-link"):
        source = os.path.realpath(source) + ("/." if source.endswith("/.") else "")
    where, new_name = _place_inside(client, name, path, source)
    sizes: list[int] = []
    query["path"] = where
    archive = packed(_tree(source, new_name), lambda info: sizes.append(info.size))
    client.call("PUT", url, query, archive, headers).read()
    _said(parsed, source, f"{name}:{path}", sum(sizes))


def _place_inside(client: Client, name: str, path: str, source: str) -> tuple[str, str]:
    """Return the directory in the container and the name of the copy there, cp's rules again."""
    directory = os.path.isdir(source) and not (os.path.islink(source) and not source.endswith("/"))
    inside = source.endswith("/.") or source == "."
    own = os.path.basename(os.path.abspath(source))
    try:
        stat = path_stat(client, name, path)
        if stat["mode"] & GO_SYMLINK:
            linked = stat["linkTarget"]
            path = linked if linked.startswith("/") else os.path.join(os.path.dirname(path), linked)
            stat = path_stat(client, name, path)
    except DaemonError as error:
        if error.http_status != 404:
            raise
        client.json("GET", f"/containers/{quote(name)}/json")
        parent = os.path.dirname(path.rstrip("/")) or "/"
        if path.endswith("/") and not directory:
            raise CommandError(f"no such directory: {path}") from None
        stat_or_error(client, name, parent)
        return parent, os.path.basename(path.rstrip("/"))
    if stat["mode"] & GO_DIRECTORY:
        return path or "/", "." if directory and inside else own
    if directory:
        raise CommandError("cannot copy directory")
    if path.endswith("/"):
        raise CommandError("not a directory")
    return os.path.dirname(path) or "/", os.path.basename(path)


def _tree(source: str, name: str) -> Iterator[tuple[str, str]]:
    """Yield (path, name in the archive) of a file, or of a directory and all that is in it."""
    yield source, name
    if os.path.isdir(source) and (source.endswith(("/", "/.")) or not os.path.islink(source)):
        for entry in sorted(os.listdir(source)):
            yield from _tree(os.path.join(source, entry), os.path.join(name, entry))


def _said(parsed: Parsed, source: str, target: str, total: int) -> None:
    """Say on a terminal what was copied."""
    from mini_docker.cli.text import decimal_size

    if not parsed.on("quiet") and os.isatty(2):
        print(f"Successfully copied {decimal_size(total, 3)} to {target}", file=sys.stderr)


# %% notebooks/F_container_commands.ipynb#copy-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "cp",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-",
        "Copy files/folders between a container and the local filesystem",
        CP_FLAGS,
        cp,
        2,
        2,
        ("cp web:/etc/hosts .", "cp site/. web:/srv", "cp web:/etc - | tar t"),
    ),
)
