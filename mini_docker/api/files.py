# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#files-module
"""The routes of a container's files, processes and numbers."""

from __future__ import annotations

import base64
import errno
import json
import os
import posixpath
import stat
import time
from contextlib import contextmanager

from mini_docker.api.containers import found
from mini_docker.api.http import HttpError
from mini_docker.api.images import as_asked, reference, tell_tag
from mini_docker.api.routes import Route
from mini_docker.api.schemas import checked
from mini_docker.engine.changes import changes
from mini_docker.engine.commit import changed, commit
from mini_docker.engine.container import EngineError
from mini_docker.engine.measure import PsFailed, stats, top
from mini_docker.engine.moments import moment
from mini_docker.engine.places import NoSuchPath, at_place, open_place, path_stat, stacked
from mini_docker.engine.store import Conflict
from mini_docker.engine.tars import read_tree, write_tree
from mini_docker.images.pack import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from mini_docker.api.routes import Call
    from mini_docker.engine.container import Container
    from mini_docker.engine.places import Place

    T = TypeVar("T")

TAR = "application/x-tar"
STAT = "X-Docker-Container-Path-Stat"


# %% notebooks/18c_objects.ipynb#archive
def wanted_path(call: Call) -> str:
    """Return the path that the query names. Raises HttpError, in Docker's words."""
    path = call.request.query.get("path", "")
    if not path:
        raise HttpError(400, "bad parameter: pathcannot be empty")
    if "\0" in path:
        raise HttpError(400, "bad parameter: path has a NUL in it")
    return path


def missing(call: Call, path: str) -> HttpError:
    """Return the error of a path that is not there."""
    return HttpError(404, f"Could not find the file {path} in container {call.holes['id']}")


def last_part(path: str) -> str:
    """Return the name that a path gives to what it leads to: "dir/." says ".", the root is "/"."""
    if path == "." or path.endswith("/."):
        return "."
    return posixpath.basename(posixpath.normpath(f"/{path}")) or "/"


def described(fd: int, place: Place, path: str) -> list[tuple[str, str]]:
    """Return the header that describes a file."""
    found = path_stat(fd, last_part(path), place)
    text = json.dumps(found, separators=(",", ":"))
    return [(STAT, base64.b64encode(text.encode()).decode())]


def opened(place: Place, path: str) -> int:
    """Open what a path leads to; one that ends in a slash or a dot leads to a directory, through symlinks.

    Raises NoSuchPath, OSError.
    """
    directory = path.endswith(("/", "/."))
    fd = open_place(place, path, follow=directory)
    if directory and not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return fd


def archive_stat(call: Call) -> None:
    """HEAD /containers/{id}/archive."""
    path = wanted_path(call)

    def use(place: Place) -> list[tuple[str, str]]:
        fd = opened(place, path)
        try:
            return described(fd, place, path)
        finally:
            os.close(fd)

    call.reply.head(200, _at(call, path, "", use))
    call.reply.end()


def archive_get(call: Call) -> None:
    """GET /containers/{id}/archive."""
    path = wanted_path(call)

    def use(place: Place) -> None:
        fd = opened(place, path)
        try:
            piece = call.reply.stream_out(TAR, described(fd, place, path))
            for data in read_tree(fd, last_part(path), place.maps, place.kernels):
                piece(data)
        finally:
            os.close(fd)

    _at(call, path, "archive-path", use)
    call.reply.end()


def archive_put(call: Call) -> None:
    """PUT /containers/{id}/archive."""
    path, keep = wanted_path(call), call.request.flag("noOverwriteDirNonDir")

    def use(place: Place) -> None:
        fd = open_place(place, path, follow=True)
        try:
            directory_fd = os.open(
                f"/proc/self/fd/{fd}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
        except NotADirectoryError:
            raise EngineError("extraction point is not a directory") from None
        finally:
            os.close(fd)
        try:
            write_tree(directory_fd, call.request.body(), keep, place.maps)
        finally:
            os.close(directory_fd)

    _at(call, path, "extract-to-dir", use)
    call.reply.empty(200)


def _at(call: Call, path: str, event: str, use: Callable[[Place], T]) -> T:
    """Return `use(place)` of a path in the container, and publish all that it takes. Raises HttpError."""
    container, containers = found(call), call.engine.containers
    writes = event == "extract-to-dir"
    containers.tell_volumes(container, "mount")
    try:
        with container.lock:  # a start must not stack the same directories meanwhile
            container.require_there()
            result: T = at_place(call.engine.store, container, path, writes, use)
        if event:
            containers.tell(container, event)
        return result
    except NoSuchPath:
        raise missing(call, path) from None
    finally:
        containers.tell_volumes(container, "unmount")


def export(call: Call) -> None:
    """GET /containers/{id}/export."""
    container = found(call)
    with container.lock:  # of two at once the kernel refuses one, overlayfs.rst
        container.require_there()
        fd = stacked(call.engine.store, container)
    call.engine.containers.tell(container, "export")
    try:
        piece = call.reply.stream_out("application/octet-stream")
        for data in pack(f"/proc/self/fd/{fd}/."):
            if data:
                piece(data)
        call.reply.end()
    finally:
        os.close(fd)


def diff(call: Call) -> None:
    """GET /containers/{id}/changes."""
    container = found(call)
    call.reply.send_json(200, container.look(lambda: changes(call.engine.store, container)))


# %% notebooks/18c_objects.ipynb#commit
@contextmanager
def held_still(call: Call, container: Container, wanted: bool) -> Iterator[None]:
    """Pause a running container meanwhile, if that is wanted; it may end at any moment."""
    paused = wanted and container.state["Status"] == "running"
    try:
        if paused:
            call.engine.containers.pause(container.id, briefly=True)
    except Conflict:
        paused = False
    try:
        yield
    finally:
        try:
            if paused:
                call.engine.containers.unpause(container.id)
        except EngineError:
            pass


def commit_container(call: Call) -> None:
    """POST /commit."""
    query = call.request.query
    container = call.engine.containers.find(query.get("container", ""))
    repository, tag = query.get("repo", ""), query.get("tag", "")
    name = reference(repository, tag).familiar() if repository else ""
    shown = as_asked(repository, tag) if repository else ""
    body = checked(call.request.json(required=False, broken=500), "Commit")
    own = {
        key: value for key, value in container.record["Config"].items() if value not in (None, "")
    }
    given = {key: value for key, value in body.items() if value not in (None, "", [], {})}
    config = {**container.record["ImageConfig"], **own, **given}
    if not config.get("ExposedPorts"):
        config.pop("ExposedPorts", None)
    config = changed(config, [value for key, value in call.request.query_lists if key == "changes"])
    about = {
        "created": moment(call.engine.now()),
        "comment": query.get("comment", ""),
        "author": query.get("author", ""),
    }
    with held_still(call, container, call.request.flag("pause", True)):
        identity = commit(call.engine.store, container, name, config, about)
    if name:
        tell_tag(call, call.engine.find_image(identity)[0], shown)
    which = {"imageID": identity, "imageRef": shown}
    call.engine.containers.tell(container, "commit", comment=about["comment"], **which)
    call.reply.send_json(201, {"Id": identity})


# %% notebooks/18c_objects.ipynb#measure
def processes(call: Call) -> None:
    """GET /containers/{id}/top."""
    container = found(call)
    container.require_alive()
    try:
        shown = top(container, call.request.query.get("ps_args", ""))
        call.engine.containers.tell(container, "top")
        call.reply.send_json(200, shown)
    except PsFailed as error:
        raise EngineError(str(error)) from None


def measured(call: Call) -> None:
    """GET /containers/{id}/stats: one sample a second, or one alone."""
    container, one_shot = found(call), call.request.flag("one-shot")
    sample = stats(container)
    if not call.request.flag("stream", True):
        if not one_shot and container.alive:
            time.sleep(1)
            sample = stats(container, sample)
        call.reply.send_json(200, sample)
        return
    piece = call.reply.stream_out(None)
    while not container.removed and not call.engine.stopping:
        piece(json.dumps(sample, separators=(",", ":")).encode() + b"\n")
        time.sleep(1)
        if call.reply.gone():
            return
        sample = stats(container, sample if container.alive else None)
    call.reply.end()


# %% notebooks/18c_objects.ipynb#file-routes
FILE_ROUTES = (
    Route("HEAD", "/containers/{id}/archive", archive_stat, "Container"),
    Route("GET", "/containers/{id}/archive", archive_get, "Container"),
    Route("PUT", "/containers/{id}/archive", archive_put, "Container"),
    Route("GET", "/containers/{id}/export", export, "Container"),
    Route("GET", "/containers/{id}/changes", diff, "Container"),
    Route("POST", "/commit", commit_container, "Image"),
    Route("GET", "/containers/{id}/top", processes, "Container"),
    Route("GET", "/containers/{id}/stats", measured, "Container"),
)
