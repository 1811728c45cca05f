# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#prune-module
"""The commands that remove all that nobody uses, of one kind or of every kind."""

from __future__ import annotations

from mini_docker.cli.client import filters, version_key
from mini_docker.cli.command import FILTER, Command, confirmed
from mini_docker.cli.text import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#pruned
def pruned(call: Call, kind: str, words: list[str]) -> str:
    """Prune containers, volumes or networks, and return Docker's report."""
    found = call.client.json("POST", f"/{kind}/prune", {"filters": filters(words) or None})
    names = found.get(f"{kind.capitalize()}Deleted") or []
    head = f"Deleted {kind.capitalize()}:\n" + "".join(f"{name}\n" for name in names) + "\n"
    freed = decimal_size(found.get("SpaceReclaimed") or 0)
    total = "" if kind == "networks" else f"Total reclaimed space: {freed}\n"
    return (head if names else "") + total


def pruned_images(call: Call, every: bool, words: list[str]) -> str:
    """Prune images, and return Docker's report."""
    wanted = filters(words) | {"dangling": {"false" if every else "true": True}}
    found = call.client.json("POST", "/images/prune", {"filters": wanted})
    lines = [
        f"{word.lower()}: {value}\n"
        for one in found.get("ImagesDeleted") or []
        for word, value in one.items()
    ]
    head = "Deleted Images:\n" + "".join(lines) + "\n" if lines else ""
    return f"{head}Total reclaimed space: {decimal_size(found.get('SpaceReclaimed') or 0)}\n"


# %% notebooks/G_object_commands.ipynb#prune
ASKS = f"{FILTER.replace('-f, ', '    ')}\n-f, --force  Do not prompt for confirmation"


def container_prune(call: Call, parsed: Parsed) -> int:
    """Remove all containers that do not run."""
    if confirmed(parsed, "WARNING! This will remove all stopped containers."):
        print(pruned(call, "containers", parsed.all("filter")), end="")
    return 0


def network_prune(call: Call, parsed: Parsed) -> int:
    """Remove the networks that nobody is in."""
    unused = "WARNING! This will remove all custom networks not used by at least one container."
    if confirmed(parsed, unused):
        print(pruned(call, "networks", parsed.all("filter")), end="")
    return 0


VOLUME_PRUNE_FLAGS = f"""
-a, --all    Remove all unused volumes, not just anonymous ones
{ASKS}
"""


def volume_prune(call: Call, parsed: Parsed) -> int:
    """Remove the volumes that no container has."""
    which = "local" if parsed.on("all") or _old_rules(call) else "anonymous local"
    warning = f"WARNING! This will remove all {which} volumes not used by at least one container."
    words = parsed.all("filter")
    if parsed.on("all") and not _old_rules(call):
        words = [*words, "all=true"]
    if confirmed(parsed, warning):
        print(pruned(call, "volumes", words), end="")
    return 0


def _old_rules(call: Call) -> bool:
    """Return whether the daemon's API is older than 1.42, where a prune took named volumes too."""
    return version_key(call.client.version) < (1, 42)


IMAGE_PRUNE_FLAGS = f"""
-a, --all    Remove all unused images, not just dangling ones
{ASKS}
"""


def image_prune(call: Call, parsed: Parsed) -> int:
    """Remove images without a name, or with -a all that no container uses."""
    which = (
        "images without at least one container associated to them"
        if parsed.on("all")
        else "dangling images"
    )
    if confirmed(parsed, f"WARNING! This will remove all {which}."):
        print(pruned_images(call, parsed.on("all"), parsed.all("filter")), end="")
    return 0


# %% notebooks/G_object_commands.ipynb#system-prune
SYSTEM_PRUNE_FLAGS = f"""
-a, --all      Remove all unused images not just dangling ones
{ASKS}
    --volumes  Prune anonymous volumes
"""


def system_prune(call: Call, parsed: Parsed) -> int:
    """Remove what nobody uses: containers, networks, images, and with --volumes those too."""
    words, every = parsed.all("filter"), parsed.on("all")
    if not confirmed(parsed, _prune_warning(parsed)):
        return 0
    reports = [pruned(call, "containers", words), pruned(call, "networks", words)]
    if parsed.on("volumes"):
        reports.append(pruned(call, "volumes", words))
    reports.append(pruned_images(call, every, words))
    for report in reports[:-1]:
        print(
            "".join(f"{line}\n" for line in report.splitlines() if not line.startswith("Total")),
            end="",
        )
    print(reports[-1], end="")
    return 0


def _prune_warning(parsed: Parsed) -> str:
    lines = ["WARNING! This will remove:", "  - all stopped containers"]
    lines.append("  - all networks not used by at least one container")
    if parsed.on("volumes"):
        lines.append("  - all anonymous volumes not used by at least one container")
    every = "images without at least one container associated to them"
    lines.append(f"  - all {every if parsed.on('all') else 'dangling images'}")
    lines.append("  - all build cache" if parsed.on("all") else "  - unused build cache")
    if parsed.all("filter"):
        lines += ["", "  Items to be pruned will be filtered with:"]
        lines += [f"  - {word}" for word in parsed.all("filter")]
    return "\n".join(lines) + "\n"


# %% notebooks/G_object_commands.ipynb#prune-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "container prune",
        "[OPTIONS]",
        "Remove all stopped containers",
        ASKS,
        container_prune,
        0,
        0,
        ("container prune -f --filter until=24h",),
    ),
    Command(
        "network prune",
        "[OPTIONS]",
        "Remove all unused networks",
        ASKS,
        network_prune,
        0,
        0,
        ("network prune -f",),
    ),
    Command(
        "volume prune",
        "[OPTIONS]",
        "Remove unused local volumes",
        VOLUME_PRUNE_FLAGS,
        volume_prune,
        0,
        0,
        ("volume prune -f",),
    ),
    Command(
        "image prune",
        "[OPTIONS]",
        "Remove unused images",
        IMAGE_PRUNE_FLAGS,
        image_prune,
        0,
        0,
        ("image prune -af",),
    ),
    Command(
        "system prune",
        "[OPTIONS]",
        "Remove unused data",
        SYSTEM_PRUNE_FLAGS,
        system_prune,
        0,
        0,
        ("system prune -f",),
    ),
)
