# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#ps-module
"""The list of containers."""

from __future__ import annotations

from mini_docker.cli.client import filters
from mini_docker.cli.command import Command
from mini_docker.cli.listing import (
    PS_KIND,
    form_of,
    label_head,
    label_reader,
    label_words,
    rendered,
)
from mini_docker.cli.text import ago, decimal_size, ellipsis, local_time, ports, quoted, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#ps
PS_FLAGS = """
-a, --all             Show all containers (default shows just running)
-f, --filter filter   Show only what has a property: "status=exited", "label=key", "name=web", ...
    --format string   Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
-n, --last int        Show n last created containers (includes all states)
-l, --latest          Show the latest created container (includes all states)
    --no-trunc        Don't truncate output
-q, --quiet           Only display container IDs
-s, --size            Display total file sizes
"""
PS_TABLE = (
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
)
PS_HEADS = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Label": label_head,
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}


def ps(call: Call, parsed: Parsed) -> int:
    """List containers."""
    usual = PS_TABLE + ("\t{{.Size}}" if parsed.on("size") else "")
    form = form_of(call, parsed, "psFormat", usual)
    last = 1 if parsed.on("latest") else parsed.number("last", -1)
    query = {
        "all": parsed.on("all") or last >= 0,
        "limit": last if last > 0 else None,
        "size": parsed.on("size") or ".Size" in form or "json ." in form,
        "filters": filters(parsed.all("filter")),
    }
    query["filters"] = query["filters"] or None
    found = call.client.json("GET", "/containers/json", query)
    cut = not parsed.on("no-trunc")
    print(
        rendered(form, [_ps_row(one, cut) for one in found or []], PS_HEADS, PS_KIND, usual), end=""
    )
    return 0


def _ps_row(one: dict[str, Any], cut: bool) -> dict[str, Any]:
    """Return a container's fields under the names that templates use."""
    mounts = [m.get("Name") or m.get("Source", "") for m in one.get("Mounts") or []]
    settings = (one.get("NetworkSettings") or {}).get("Networks") or {}
    command = one.get("Command", "")
    return {
        "ID": short_id(one["Id"]) if cut else one["Id"],
        "Names": _names(one.get("Names") or [], cut),
        "Image": _image(one, cut),
        "Command": quoted(ellipsis(command, 20) if cut else command),
        "CreatedAt": local_time(one["Created"]),
        "RunningFor": ago(one["Created"]),
        "Ports": ports(one.get("Ports") or []),
        "State": one.get("State", ""),
        "Status": one.get("Status", ""),
        "Size": _size(one),
        "Labels": label_words(one.get("Labels")),
        "Label": label_reader(one.get("Labels")),
        "Mounts": ",".join(ellipsis(name, 15) if cut else name for name in mounts),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in one.get("Mounts") or [])),
        "Networks": ",".join(sorted(settings)),
        "Platform": one.get("ImageManifestDescriptor", {}).get("platform"),
    }


def _names(names: list[str], cut: bool) -> str:
    """Return a container's names; those that links gave it ("/web/db") only in full."""
    plain = [name.removeprefix("/") for name in names]
    return ",".join(name for name in plain if not cut or "/" not in name)


def _image(one: dict[str, Any], cut: bool) -> str:
    image = one.get("Image") or "<no image>"
    if cut and "@" in image:
        return str(image.partition("@")[0])
    if cut and short_id(image) == short_id(one.get("ImageID", "")):
        return short_id(image)
    return str(image)


def _size(one: dict[str, Any]) -> str:
    size = decimal_size(one.get("SizeRw") or 0, 3)
    whole = one.get("SizeRootFs") or 0
    return f"{size} (virtual {decimal_size(whole, 3)})" if whole > 0 else size


# %% notebooks/F_container_commands.ipynb#ps-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "ps",
        "[OPTIONS]",
        "List containers",
        PS_FLAGS,
        ps,
        0,
        0,
        ("ps -a", "ps --filter status=exited -q", "ps --format 'table {{.Names}}\\t{{.Status}}'"),
    ),
)
