# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#volumes-module
"""The commands about volumes."""

from __future__ import annotations

from mini_docker.cli.client import filters, quote
from mini_docker.cli.command import FILTER, Command, each
from mini_docker.cli.create import pairs
from mini_docker.cli.listing import (
    by_name,
    form_of,
    label_head,
    label_reader,
    label_words,
    rendered,
)
from mini_docker.cli.text import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#volumes
VOLUME_LIST_FLAGS = f"""
{FILTER}
    --format string   Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
-q, --quiet           Only display volume names
"""
VOLUME_HEADS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Label": label_head,
    "Links": "LINKS",
    "Size": "SIZE",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Status": "STATUS",
}


def volume_ls(call: Call, parsed: Parsed) -> int:
    """List volumes by name."""
    query = {"filters": filters(parsed.all("filter")) or None}
    found = call.client.json("GET", "/volumes", query).get("Volumes") or []
    usual = "table {{.Driver}}\t{{.Name}}"
    form = form_of(call, parsed, "volumesFormat", usual, "Name")
    rows = [volume_row(one) for one in sorted(found, key=by_name)]
    print(rendered(form, rows, VOLUME_HEADS, "*formatter.volumeContext", usual), end="")
    return 0


def volume_row(one: dict[str, Any]) -> dict[str, Any]:
    """Return a volume's fields under the names that templates use."""
    usage = one.get("UsageData") or {}
    return {
        "Name": one["Name"],
        "Driver": one["Driver"],
        "Scope": one["Scope"],
        "Mountpoint": one["Mountpoint"],
        "Labels": label_words(one.get("Labels")),
        "Label": label_reader(one.get("Labels")),
        "Links": str(usage["RefCount"]) if usage else "N/A",
        "Size": decimal_size(usage["Size"]) if usage else "N/A",
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    }


VOLUME_CREATE_FLAGS = """
-d, --driver string  Specify volume driver name
    --label list     Set metadata for a volume
-o, --opt map        Set driver specific options
"""


def volume_create(call: Call, parsed: Parsed) -> int:
    """Create a volume and print its name."""
    body = {
        "Name": parsed.words[0] if parsed.words else "",
        "Driver": parsed.one("driver", "local"),
        "DriverOpts": pairs(parsed.all("opt")) or None,
        "Labels": pairs(parsed.all("label")) or None,
    }
    print(call.client.json("POST", "/volumes/create", None, body)["Name"])
    return 0


def volume_rm(call: Call, parsed: Parsed) -> int:
    """Remove volumes."""

    def one(name: str) -> None:
        call.client.call("DELETE", f"/volumes/{quote(name)}", {"force": parsed.on("force")})
        print(name, flush=True)

    return each(parsed.words, one)


# %% notebooks/G_object_commands.ipynb#volumes-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "volume ls",
        "[OPTIONS]",
        "List volumes",
        VOLUME_LIST_FLAGS,
        volume_ls,
        0,
        0,
        ("volume ls -q --filter dangling=true",),
    ),
    Command(
        "volume create",
        "[OPTIONS] [VOLUME]",
        "Create a volume",
        VOLUME_CREATE_FLAGS,
        volume_create,
        0,
        1,
        ("volume create --label for=web data",),
    ),
    Command(
        "volume rm",
        "[OPTIONS] VOLUME [VOLUME...]",
        "Remove one or more volumes",
        "-f, --force  Force the removal of one or more volumes",
        volume_rm,
        1,
        None,
        ("volume rm data",),
    ),
)
