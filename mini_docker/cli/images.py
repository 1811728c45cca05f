# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#images-module
"""The commands about images: list, pull, push, tag, remove, history."""

from __future__ import annotations

from mini_docker.cli.client import filters, quote
from mini_docker.cli.command import Command, each
from mini_docker.cli.errors import CommandError
from mini_docker.cli.listing import form_of, quiet_or, rendered
from mini_docker.cli.messages import show_progress
from mini_docker.cli.text import ZERO_TIME, ago, decimal_size, ellipsis, local_time, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#images-list
IMAGES_FLAGS = """
-a, --all             Show all images (default hides intermediate images)
    --digests         Show digests
-f, --filter filter   Show only what has a property: "dangling=true", "reference=busybox*", ...
    --format string   Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
    --no-trunc        Don't truncate output
-q, --quiet           Only show image IDs
"""
IMAGES_KIND = "*formatter.imageContext"
IMAGES_HEADS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}


def images(call: Call, parsed: Parsed) -> int:
    """List images, a line for each name."""
    digest = "{{.Digest}}\t" if parsed.on("digests") else ""
    usual = "table {{.Repository}}\t{{.Tag}}\t" + digest + "{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    form = form_of(call, parsed, "imagesFormat", usual)
    wanted = filters(parsed.all("filter"))
    if parsed.words:
        wanted.setdefault("reference", {})[parsed.words[0]] = True
    found = call.client.json(
        "GET", "/images/json", {"all": parsed.on("all"), "filters": wanted or None}
    )
    digests = parsed.on("digests") or ".Digest" in form
    cut = not parsed.on("no-trunc")
    rows = [
        _image_row(one, *names, cut) for one in found or [] for names in image_names(one, digests)
    ]
    print(rendered(form, rows, IMAGES_HEADS, IMAGES_KIND, usual), end="")
    return 0


def image_names(one: dict[str, Any], digests: bool) -> list[tuple[str, str, str]]:
    """Return (repository, tag, digest) for each line that an image has in the list."""
    tags = [name_and_tag(name) for name in one.get("RepoTags") or [] if name != "<none>:<none>"]
    known = dict(
        name.split("@", 1) for name in one.get("RepoDigests") or [] if name != "<none>@<none>"
    )
    if not tags and not known:
        return [("<none>", "<none>", "<none>")]
    lines = [(name, tag, known.get(name, "<none>") if digests else "") for name, tag in tags]
    tagged = {name for name, _ in tags}
    untagged = [
        (name, "<none>", at if digests else "") for name, at in known.items() if name not in tagged
    ]
    return lines + untagged if digests or not tags else lines


def _image_row(one: dict[str, Any], name: str, tag: str, digest: str, cut: bool) -> dict[str, Any]:
    """Return the fields of one name of an image, as templates call them."""
    size = decimal_size(one.get("Size") or 0, 3)
    counted = one.get("Containers", -1)
    return {
        "ID": short_id(one["Id"]) if cut else one["Id"],
        "Repository": name,
        "Tag": tag,
        "Digest": digest or "<none>",
        "CreatedSince": ago(one["Created"]) if one["Created"] > ZERO_TIME else "",
        "CreatedAt": local_time(one["Created"]),
        "Size": size,
        "VirtualSize": decimal_size(one.get("VirtualSize") or one.get("Size") or 0),
        "Containers": "N/A" if counted == -1 else str(counted),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    }


def name_and_tag(name: str) -> tuple[str, str]:
    """Return ("localhost:5000/a", "b") of "localhost:5000/a:b"; a digest stays with the tag's place empty."""
    before, colon, tag = name.rpartition(":")
    if not colon or "/" in tag or "@" in name:
        return name, ""
    return before, tag


# %% notebooks/G_object_commands.ipynb#pull-push
PULL_FLAGS = """
-a, --all-tags               Download all tagged images in the repository
    --disable-content-trust  Skip image verification (default true)
    --platform string        Set platform if server is multi-platform capable
-q, --quiet                  Suppress verbose output
"""
PUSH_FLAGS = """
-a, --all-tags               Push all tags of an image to the repository
    --disable-content-trust  Skip image signing (default true)
-q, --quiet                  Suppress verbose output
"""


def pull(call: Call, parsed: Parsed) -> int:
    """Download an image."""
    image = parsed.words[0]
    every, quiet = parsed.on("all-tags"), parsed.on("quiet")
    if every and (name_and_tag(image)[1] or "@" in image):
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not quiet and not name_and_tag(image)[1] and "@" not in image:
        print("Using default tag: latest", flush=True)
    pull_image(call.client, image, parsed.one("platform"), quiet, every=every)
    print(canonical(image, every))
    return 0


def canonical(image: str, bare: bool = False) -> str:
    """Return "docker.io/library/busybox:latest" for "busybox"."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif first != "localhost" and "." not in first and ":" not in first:
        image = f"docker.io/{image}"
    named = name_and_tag(image)[1] or "@" in image
    return image if named or bare else f"{image}:latest"


def pull_image(
    client: Client,
    image: str,
    platform: str,
    quiet: bool,
    to_stderr: bool = False,
    every: bool = False,
) -> None:
    """Ask the daemon to pull, and show how it goes on. Raises CommandError."""
    from mini_docker.cli.credentials import registry_header

    name, tag = name_and_tag(image)
    tag = "" if every or "@" in image else tag or "latest"
    query = {"fromImage": name, "tag": tag, "platform": platform}
    response = client.call(
        "POST", "/images/create", query, b"", registry_header(client.directory, image)
    )
    messages = client.messages(response)
    if quiet:
        messages = iter([message for message in messages if message.get("error")])
    show_progress(messages, 2 if to_stderr else 1)


def push(call: Call, parsed: Parsed) -> int:
    """Upload an image."""
    from mini_docker.cli.credentials import registry_header

    image, every = parsed.words[0], parsed.on("all-tags")
    name, tag = name_and_tag(image)
    if every and tag:
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not tag and not parsed.on("quiet"):
        print("Using default tag: latest", flush=True)
    header = registry_header(call.directory, image)
    path = f"/images/{quote(name, '/:')}/push"
    response = call.client.call(
        "POST", path, {"tag": "" if every else tag or "latest"}, b"", header
    )
    messages = call.client.messages(response)
    if parsed.on("quiet"):
        show_progress(message for message in messages if message.get("error"))
        print(canonical(image, every))
    else:
        show_progress(messages)
    return 0


# %% notebooks/G_object_commands.ipynb#tag-rmi
def tag(call: Call, parsed: Parsed) -> int:
    """Give an image another name."""
    source, target = parsed.words
    if "@" in target:
        raise CommandError("refusing to create a tag with a digest reference")
    name, label = name_and_tag(target)
    call.client.call("POST", f"/images/{quote(source, '/:@')}/tag", {"repo": name, "tag": label})
    return 0


RMI_FLAGS = """
-f, --force     Force removal of the image
    --no-prune  Do not delete untagged parents
"""


def rmi(call: Call, parsed: Parsed) -> int:
    """Remove names of images, and images that have none left."""
    query = {"force": parsed.on("force"), "noprune": parsed.on("no-prune")}

    def one(name: str) -> None:
        for line in call.client.json("DELETE", f"/images/{quote(name, '/:@')}", query) or []:
            for word, value in line.items():
                print(f"{word}: {value}")

    status = each(parsed.words, one)
    return 0 if parsed.on("force") else status


# %% notebooks/G_object_commands.ipynb#history
HISTORY_FLAGS = """
    --format string  Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
-H, --human          Print sizes and dates in human readable format (default true)
    --no-trunc       Don't truncate output
-q, --quiet          Only show image IDs
"""
HISTORY_HEADS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


def history(call: Call, parsed: Parsed) -> int:
    """Print how an image came to be, the newest layer first."""
    found = call.client.json("GET", f"/images/{quote(parsed.words[0], '/:@')}/history")
    human, cut = parsed.on("human", True), not parsed.on("no-trunc")
    created = "{{.CreatedSince}}" if human else "{{.CreatedAt}}"
    usual = f"table {{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}"
    form = quiet_or(parsed.one("format"), parsed.on("quiet"), usual)
    rows = [_history_row(one, human, cut) for one in found]
    print(rendered(form, rows, HISTORY_HEADS, "*image.historyContext", usual), end="")
    return 0


def _history_row(one: dict[str, Any], human: bool, cut: bool) -> dict[str, Any]:
    """Return the fields of a step of a history, as templates call them."""
    import time

    made_by = one.get("CreatedBy", "").replace("\t", " ")
    size = one.get("Size") or 0
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(one["Created"])).rjust(24, "0")
    created = f"{created[:-2]}:{created[-2:]}".replace("+00:00", "Z")
    since = ago(one["Created"]) if one["Created"] > 0 else "N/A"  # an image's own list says its age
    return {
        "ID": short_id(one["Id"]) if cut else one["Id"],
        "CreatedAt": created,
        "CreatedSince": since if human else created,
        "CreatedBy": ellipsis(made_by, 45) if cut else made_by,
        "Size": decimal_size(size, 3) if human else str(size),
        "Comment": one.get("Comment", ""),
    }


# %% notebooks/G_object_commands.ipynb#images-table
IMAGE = "IMAGE [IMAGE...]"
COMMANDS: tuple[Command, ...] = (
    Command(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        IMAGES_FLAGS,
        images,
        0,
        1,
        ("images --digests", "images 'busy*'", "images --filter dangling=true -q"),
    ),
    Command(
        "pull",
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Download an image from a registry",
        PULL_FLAGS,
        pull,
        1,
        1,
        ("pull busybox:1.36",),
    ),
    Command(
        "push",
        "[OPTIONS] NAME[:TAG]",
        "Upload an image to a registry",
        PUSH_FLAGS,
        push,
        1,
        1,
        ("push localhost:5000/web:1",),
    ),
    Command(
        "tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        "",
        tag,
        2,
        2,
        ("tag web localhost:5000/web:1",),
    ),
    Command(
        "rmi",
        f"[OPTIONS] {IMAGE}",
        "Remove one or more images",
        RMI_FLAGS,
        rmi,
        1,
        None,
        ("rmi web:1",),
    ),
    Command(
        "history",
        "[OPTIONS] IMAGE",
        "Show the history of an image",
        HISTORY_FLAGS,
        history,
        1,
        1,
        ("history --no-trunc web",),
    ),
)
