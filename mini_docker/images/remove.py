# Exported from notebooks/12c_the_store.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12c_the_store.ipynb#remove-module
"""Images that go: one by its name or id, or all that nobody needs, by Docker's rules."""

from __future__ import annotations

import os
from collections import namedtuple

from mini_docker.images.catalog import (
    PRUNE_FILTERS,
    Record,
    check_filters,
    find,
    is_id,
    matches,
    records,
    repository_of,
    truth,
)
from mini_docker.images.ingest import collect
from mini_docker.images.layout import Digest, ImageError, NoSuchImage, entry_name, full_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, NamedTuple

    from mini_docker.images.layout import Image, Layout

    class User(NamedTuple):
        """A container, as far as removing an image concerns it."""

        id: str
        image_id: str
        running: bool

else:
    User = namedtuple("User", ("id", "image_id", "running"))


class ImageConflict(ImageError):
    """An image that may not be removed; the text is Docker's."""


# %% notebooks/12c_the_store.ipynb#remove
def remove(
    layout: Layout,
    reference: str,
    users: Sequence[User] = (),
    force: bool = False,
    parents: bool = True,
) -> list[dict[str, str]]:
    """Take away a name, and the image with the last one; return Docker's [{"Untagged"}, {"Deleted"}].

    `users` are the containers that there are. With an image go its `parents` that nothing else needs.
    Raises NoSuchImage; ImageConflict in Docker's words.
    Source: moby's daemon/images/image_delete.go.
    """
    try:
        record = find(layout, reference)
    except NoSuchImage:
        raise
    except ImageError:
        return _remove_broken(layout, full_name(reference))
    using = [user for user in users if user.image_id == record.image.id]
    by_name = not is_id(reference) or reference in {*map(repository_of, record.names)}
    gone: list[dict[str, str]] = []
    if by_name:
        gone = _untag_name(layout, record, reference, using, force)
        record = _again(layout, record)
        if record.names or record.digests:
            return gone
    elif _is_single(record):
        _check_unused(layout, record._replace(names=(), digests=()), using, force)
        gone = _untag(layout, (*record.names, *record.digests))
        record = _again(layout, record)
    try:
        _check_unused(layout, record, using, force)
    except ImageConflict:
        if by_name:
            return gone  # it stays, without a name, for what needs it
        raise
    gone += _untag(layout, (*record.names, *record.digests)) + _delete(layout, record)
    return gone + (_delete_parents(layout, record.image, users) if parents else [])


def _remove_broken(layout: Layout, name: str) -> list[dict[str, str]]:
    """Remove a name of what is no image, or none for this machine, and what only it needed."""
    roots = [entry["digest"] for entry in layout.entries() if entry_name(entry) == name]
    gone = _untag(layout, (name,))
    layout.forget(roots)
    collect(layout)
    return gone


def _again(layout: Layout, record: Record) -> Record:
    """Return an image as it is now; without names and roots where somebody else has just removed it."""
    every = (new for new in records(layout) if new.image.id == record.image.id)
    return next(every, Record(record.image, (), (), ()))


def _is_single(record: Record) -> bool:
    """Return whether an image has one tag at most, and digests of that repository only."""
    every = (*record.names, *record.digests)
    return len(record.names) <= 1 and len({repository_of(name) for name in every}) <= 1


def _short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:12]


def _untag(layout: Layout, names: Iterable[str]) -> list[dict[str, str]]:
    gone = []
    for name in dict.fromkeys(names):
        layout.untag(name)
        gone.append({"Untagged": name})
    return gone


def _untag_name(
    layout: Layout, record: Record, reference: str, using: list[User], force: bool
) -> list[dict[str, str]]:
    """Take a name away; with the last tag of a repository go its digests."""
    if not force and _is_single(record) and using:
        raise ImageConflict(
            f'conflict: unable to remove repository reference "{reference}" (must force) - container '
            f"{_short(using[0].id)} is using its referenced image {_short(record.image.id)}"
        )
    name = reference if reference in record.names else full_name(reference)
    others = [other for other in record.names if other != name]
    digests: list[str] = []
    if "@" not in name and repository_of(name) not in map(repository_of, others):
        digests = [other for other in record.digests if repository_of(other) == repository_of(name)]
    return _untag(layout, (name, *digests))


def _check_unused(layout: Layout, record: Record, using: list[User], force: bool) -> None:
    """Raise ImageConflict for an image that children, containers or names need."""
    image_id = record.image.id

    def conflict(remedy: str, reason: str) -> ImageConflict:
        return ImageConflict(f"conflict: unable to delete {_short(image_id)} ({remedy}) - {reason}")

    if any(other.image.config.get("parent") == image_id for other in records(layout)):
        raise conflict("cannot be forced", "image has dependent child images")
    for user in using:
        if user.running:
            reason = f"image is being used by running container {_short(user.id)}"
            raise conflict("cannot be forced", reason)
    if not force and (record.names or record.digests):
        raise conflict("must be forced", "image is referenced in multiple repositories")
    if not force and using:
        reason = f"image is being used by stopped container {_short(using[0].id)}"
        raise conflict("must be forced", reason)


def _delete(layout: Layout, record: Record) -> list[dict[str, str]]:
    """Forget an image that has no name any more, and collect what only it needed."""
    layout.forget(record.roots)
    gone = set(collect(layout))
    pairs = zip(record.image.layers, record.image.config["rootfs"]["diff_ids"], strict=True)
    layers = [diff_id for layer, diff_id in pairs if layer.digest in gone]
    return [{"Deleted": name} for name in (record.image.id, *reversed(layers))]


def _delete_parents(layout: Layout, image: Image, users: Sequence[User]) -> list[dict[str, str]]:
    """Remove the image that a removed one was made from, and so on, where nothing else needs it."""
    parent = image.config.get("parent")
    for record in records(layout):
        if record.image.id == parent and not (record.names or record.digests):
            using = [user for user in users if user.image_id == parent]
            try:
                _check_unused(layout, record, using, False)
            except ImageConflict:
                break
            return _delete(layout, record) + _delete_parents(layout, record.image, users)
    return []


# %% notebooks/12c_the_store.ipynb#prune
def prune(
    layout: Layout,
    users: Sequence[User] = (),
    filters: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Remove the images without a name, or with dangling=false all that no container uses.

    Returns what POST /images/prune returns. Images that something depends on stay.
    """
    chosen = dict(filters or {})
    check_filters(chosen, PRUNE_FILTERS)
    unnamed_only = all(truth("dangling", value) for value in chosen.pop("dangling", ("true",)))
    used = {user.image_id for user in users}
    before = store_size(layout)
    deleted: list[dict[str, str]] = []
    for record in records(layout):
        if record.image.id in used or (unnamed_only and (record.names or record.digests)):
            continue
        if matches(layout, record, chosen):
            try:
                deleted += remove(layout, record.image.id, users, force=True)
            except (ImageConflict, NoSuchImage):
                continue  # another image stands on it, or it went with its child
    collect(layout)
    return {"ImagesDeleted": deleted or None, "SpaceReclaimed": before - store_size(layout)}


def store_size(layout: Layout) -> int:
    """Return the bytes of all blobs and beginnings of blobs."""
    total = 0
    for part in ("ingest", *(f"blobs/{algorithm}" for algorithm in Digest.LENGTHS)):
        with os.scandir(f"{layout.directory}/{part}") as entries:
            for entry in entries:
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    pass  # it has got its name, or has just been removed
    return total
