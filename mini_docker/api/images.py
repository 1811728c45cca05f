# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#images-module
"""The routes of images: what the store has, and what registries send."""

from __future__ import annotations

import base64
import json

from mini_docker.api.containers import platform_of
from mini_docker.api.http import HttpError
from mini_docker.api.routes import Route
from mini_docker.api.schemas import checked
from mini_docker.engine.commit import changed
from mini_docker.engine.moments import moment, parse_until
from mini_docker.images import catalog
from mini_docker.images.archive import import_tree, load, save
from mini_docker.images.layout import ImageError, NoSuchImage, full_name
from mini_docker.images.reference import (
    DIGEST_LENGTHS,
    InvalidReference,
    Reference,
    parse_reference,
)
from mini_docker.images.remove import ImageConflict, prune, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.api.routes import Call
    from mini_docker.images.layout import Image
    from mini_docker.registry.credentials import Login

TAR = "application/x-tar"


# %% notebooks/18c_objects.ipynb#image-views
def image_list(call: Call) -> None:
    """GET /images/json."""
    filters = call.request.filters()
    if name := call.request.query.get("filter"):
        filters["reference"] = [name]
    everything = call.request.flag("all")
    try:
        found = catalog.list_images(call.engine.store.layout, filters, everything)
    except NoSuchImage:
        raise
    except (ImageError, ValueError) as error:
        raise HttpError(400, str(error)) from None
    call.reply.send_json(200, found)


def image_show(call: Call) -> None:
    """GET /images/{name}/json."""
    name = call.holes["name"]
    try:
        found = catalog.inspect(call.engine.store.layout, name)
        found["GraphDriver"]["Name"] = call.engine.store.roots.name
        call.reply.send_json(200, found)
    except NoSuchImage as error:
        raise HttpError(404, f"no such image: {name}: {error}") from None


def image_history(call: Call) -> None:
    """GET /images/{name}/history."""
    call.reply.send_json(200, catalog.history(call.engine.store.layout, call.holes["name"]))


def image_tag(call: Call) -> None:
    """POST /images/{name}/tag."""
    query = call.request.query
    target = reference(query.get("repo", ""), query.get("tag", ""))
    if target.familiar_repository() in DIGEST_LENGTHS:
        words = "refusing to create an ambiguous tag using digest algorithm as name"
        raise HttpError(400, words)
    record = catalog.find(call.engine.store.layout, call.holes["name"])
    call.engine.store.layout.tag(target.familiar(), manage_root(call, record))
    tell_tag(call, record.image, as_asked(query.get("repo", ""), query.get("tag", "")))
    call.reply.empty(201)


def as_asked(repository: str, tag: str) -> str:
    """Return a familiar name for events, which say no tag where none was asked for."""
    target = reference(repository, tag)
    return target.familiar() if tag or has_version(repository) else target.familiar_repository()


def tell_tag(call: Call, image: Image, name: str) -> None:
    """Publish that an image has a name."""
    attributes = {**catalog.labels(image), "name": name}
    call.engine.events.publish("image", "tag", image.id, attributes)


def known_images(call: Call) -> dict[str, Image]:
    """Return all images by their ids and names."""
    found: dict[str, Image] = {}
    for record in catalog.records(call.engine.store.layout):
        found |= dict.fromkeys((record.image.id, *record.names), record.image)
    return found


def tell_gone(call: Call, before: dict[str, Image], gone: list[dict[str, str]]) -> None:
    """Publish which names and images are gone; `before` they were these. Of layers nothing is said."""
    for entry in gone:
        for word, what in entry.items():
            if image := before.get(what):
                action, about = (
                    ("untag", catalog.labels(image)) if word == "Untagged" else ("delete", {})
                )
                call.engine.events.publish("image", action, image.id, {**about, "name": image.id})


def manage_root(call: Call, record: Any) -> Any:
    """Return the descriptor that the names of an image lead to."""
    from mini_docker.images.layout import as_descriptor

    for entry in call.engine.store.layout.entries():
        if entry["digest"] in record.roots:
            return as_descriptor(entry)
    raise NoSuchImage(f"No such image: {record.image.id}")


def reference(repository: str, tag: str) -> Reference:
    """Return what a repository and a tag (or digest) mean. Raises HttpError(400)."""
    try:
        if tag:
            return parse_reference(f"{repository}{'@' if ':' in tag else ':'}{tag}")
        return parse_reference(repository)
    except InvalidReference as error:
        raise HttpError(400, str(error)) from None


def image_delete(call: Call) -> None:
    """DELETE /images/{name}."""
    force, parents = call.request.flag("force"), not call.request.flag("noprune")
    layout, users = call.engine.store.layout, call.engine.image_users()
    before = known_images(call)
    try:
        gone = remove(layout, call.holes["name"], users, force, parents)
    except ImageConflict as error:
        raise HttpError(409, str(error)) from None
    call.engine.containers.layers.clean()
    tell_gone(call, before, gone)
    call.reply.send_json(200, gone)


def image_prune(call: Call) -> None:
    """POST /images/prune."""
    users, filters = call.engine.image_users(), call.request.filters()
    if "until" in filters:
        filters["until"] = [str(int(parse_until(filters["until"])))]
    before = known_images(call)
    try:
        done = prune(call.engine.store.layout, users, filters)
    except (ImageError, ValueError) as error:
        raise HttpError(400, str(error)) from None
    call.engine.containers.layers.clean()
    tell_gone(call, before, done["ImagesDeleted"] or [])
    freed = {"reclaimed": str(done["SpaceReclaimed"])}
    call.engine.events.publish("image", "prune", "", freed)
    call.reply.send_json(200, done)


# %% notebooks/18c_objects.ipynb#image-archives
def image_save(call: Call) -> None:
    """GET /images/{name}/get."""
    _save(call, [call.holes["name"]])


def images_save(call: Call) -> None:
    """GET /images/get?names=a&names=b."""
    names = [value for key, value in call.request.query_lists if key == "names"]
    _save(call, names)


def saved_by(call: Call, name: str) -> list[tuple[catalog.Record, list[str]]]:
    """Return the images that a name means to `save`, with their tags: one without a tag means all tags."""
    layout = call.engine.store.layout
    if not catalog.is_id(name) and not has_version(name):
        wanted = catalog.repository_of(name)
        every = [
            (one, [tag for tag in one.names if catalog.repository_of(tag) == wanted])
            for one in catalog.records(layout)
        ]
        if found := [(one, tags) for one, tags in every if tags]:
            return found
    try:
        record = catalog.find(layout, name)
    except NoSuchImage:
        raise HttpError(404, f"No such image: {name}") from None
    return [(record, [] if catalog.is_id(name) else [full_name(name)])]


def _save(call: Call, names: list[str]) -> None:
    layout = call.engine.store.layout
    wanted: dict[str, tuple[Image, list[str]]] = {}
    for name in names:
        for record, names_of_it in saved_by(call, name):
            kept = wanted.setdefault(record.image.id, (record.image, []))[1]
            kept += [one for one in names_of_it if one not in kept]
    for image_id in wanted:
        call.engine.events.publish("image", "save", image_id, {"name": image_id})
    pieces = save(layout, list(wanted.values()))
    piece = call.reply.stream_out(TAR)
    for data in pieces:
        if data:
            piece(data)
    call.reply.end()


def images_load(call: Call) -> None:
    """POST /images/load."""
    try:
        found = load(call.engine.store.layout, call.request.body())
    except (ImageError, OSError) as error:  # Docker says it in the stream
        piece = call.reply.stream_out("application/json")
        words = {"errorDetail": {"message": str(error)}, "error": str(error)}
        piece(json.dumps(words).encode() + b"\n")
        call.reply.end()
        return
    piece = call.reply.stream_out("application/json")
    for loaded in found:
        call.engine.events.publish("image", "load", loaded.id, {"name": loaded.id})
        names = [f"Loaded image: {name}" for name in loaded.names]
        for line in names or [f"Loaded image ID: {loaded.id}"]:
            piece(json.dumps({"stream": f"{line}\n"}).encode() + b"\n")
    call.reply.end()


# %% notebooks/18c_objects.ipynb#image-registries
def image_create(call: Call) -> None:
    """POST /images/create: pull (fromImage), or import (fromSrc)."""
    query = call.request.query
    if query.get("fromImage"):
        platform_of(call)
        name, tag, registries = query["fromImage"], query.get("tag", ""), call.engine.registries
        target = reference(name, tag)
        pull = registries.pull if tag or has_version(name) else registries.pull_all
        call.request.raw()
        _with_progress(
            call, lambda tell: pull(target, query.get("platform") or None, login_of(call), tell)
        )
    elif query.get("fromSrc") == "-":
        _import(call)
    else:
        raise HttpError(400, "fromSrc: only '-', the body of the request, can be imported")


def has_version(name: str) -> bool:
    """Say whether an image name has a tag or a digest; one without means the whole repository."""
    return "@" in name or ":" in name.rpartition("/")[2]


def _import(call: Call) -> None:
    query = call.request.query
    platform_of(call)
    name = reference(query["repo"], query.get("tag", "")).familiar() if query.get("repo") else ""
    changes = [value for key, value in call.request.query_lists if key == "changes"]
    config = changed({}, changes)
    created, message = moment(call.engine.now()), query.get("message") or "Imported from -"
    layout = call.engine.store.layout
    identity = import_tree(layout, call.request.body(), name, config, created, message)
    piece = call.reply.stream_out("application/json")
    piece(json.dumps({"status": identity}).encode() + b"\n")
    call.reply.end()


def _with_progress(call: Call, act: Any) -> None:
    """Do something that tells how it goes; an error before the first word is an answer of its own."""
    send: list[Any] = []

    def tell(message: dict[str, Any]) -> None:
        if not send:
            send.append(call.reply.stream_out("application/json"))
        send[0](json.dumps(message, separators=(",", ":")).encode() + b"\r\n")

    try:
        act(tell)
    except (ImageError, OSError) as error:
        if not send:
            raise HttpError(call.engine.registries.registry_status(error), str(error)) from None
        tell({"errorDetail": {"message": str(error)}, "error": str(error)})
    if not send:
        send.append(call.reply.stream_out("application/json"))
    call.reply.end()


def login_of(call: Call) -> Login | None:
    """Return the login in X-Registry-Auth, base64 of JSON; None where there is none."""
    from mini_docker.registry.credentials import Login

    text = call.request.headers.get("x-registry-auth", "")
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) or "{}")
    except ValueError:
        raise HttpError(400, "X-Registry-Auth is no base64 of JSON") from None
    if not isinstance(found, dict) or not (found.get("username") or found.get("identitytoken")):
        return None
    return Login(
        found.get("username") or "", found.get("password") or "", found.get("identitytoken") or ""
    )


def image_push(call: Call) -> None:
    """POST /images/{name}/push."""
    if "x-registry-auth" not in call.request.headers:
        raise HttpError(400, "Bad parameters and missing X-Registry-Auth: EOF")
    name, tag = call.holes["name"], call.request.query.get("tag", "")
    target, registries = reference(name, tag), call.engine.registries
    call.request.raw()
    who = login_of(call)

    def act(tell: Any) -> None:
        tell({"status": f"The push refers to repository [{target.repository()}]"})
        for one in [target] if tag or has_version(name) else registries.here(target):
            registries.push(one, who, tell)

    _with_progress(call, act)


def image_search(call: Call) -> None:
    """GET /images/search."""
    term = call.request.query.get("term", "")
    if not term:
        raise HttpError(400, "term is empty")
    limit = call.request.number("limit") or 25
    filters = call.request.filters()
    check_search(filters)
    if not 1 <= limit <= 100:
        raise HttpError(400, f"Limit {limit} is outside the range of [1, 100]")
    found = call.engine.registries.search(term, limit, login_of(call))
    call.reply.send_json(200, [one for one in found if was_searched(one, filters)])


TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def check_search(filters: dict[str, list[str]]) -> None:
    """Refuse what a search cannot be narrowed by. Raises HttpError in Docker's words."""
    for key, values in filters.items():
        if key not in ("is-automated", "is-official", "stars"):
            raise HttpError(400, f"Invalid filter '{key}'")
        for value in values:
            if not (value.isdigit() if key == "stars" else value in TRUTHS):
                raise HttpError(400, f"Invalid filter '{key}={value}'")


def was_searched(one: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Say whether something found has the stars and the marks that the filters want."""
    stars = max(map(int, filters.get("stars", ())), default=0)
    marks = {
        key: TRUTHS[value]
        for key in ("is-automated", "is-official")
        for value in filters.get(key, ())
    }
    return one["star_count"] >= stars and all(
        one[key.replace("-", "_")] == wanted for key, wanted in marks.items()
    )


def auth(call: Call) -> None:
    """POST /auth: try a login; nothing is kept here, clients keep their own."""
    body = checked(call.request.json(broken=500), "Login")
    token = call.engine.registries.try_login(body)
    call.reply.send_json(200, {"IdentityToken": token, "Status": "Login Succeeded"})


def distribution(call: Call) -> None:
    """GET /distribution/{name}/json."""
    call.reply.send_json(
        200, call.engine.registries.distribution(reference(call.holes["name"], ""), login_of(call))
    )


# %% notebooks/18c_objects.ipynb#image-routes
IMAGE = "Image"
IMAGE_ROUTES = (
    Route("GET", "/images/json", image_list, IMAGE),
    Route("POST", "/images/create", image_create, IMAGE),
    Route("GET", "/images/get", images_save, IMAGE),
    Route("POST", "/images/load", images_load, IMAGE),
    Route("POST", "/images/prune", image_prune, IMAGE),
    Route("GET", "/images/search", image_search, IMAGE),
    Route("GET", "/images/{name}/json", image_show, IMAGE),
    Route("GET", "/images/{name}/history", image_history, IMAGE),
    Route("GET", "/images/{name}/get", image_save, IMAGE),
    Route("POST", "/images/{name}/tag", image_tag, IMAGE),
    Route("POST", "/images/{name}/push", image_push, IMAGE),
    Route("DELETE", "/images/{name}", image_delete, IMAGE),
    Route("POST", "/auth", auth, "System"),
    Route("GET", "/distribution/{name}/json", distribution, "Distribution"),
)
