# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#stats-module
"""`stats`: what containers use, once or again and again."""

from __future__ import annotations

import os

from mini_docker.cli.client import container_path
from mini_docker.cli.command import Command
from mini_docker.cli.errors import DaemonError
from mini_docker.cli.listing import rendered
from mini_docker.cli.text import binary_size, decimal_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#stats-numbers
def cpu_percent(sample: dict[str, Any]) -> float:
    """Return the share of one processor, in percent, between a sample and the one before it."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get(
        "total_usage", 0
    )
    passed = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    processors = (
        now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or []) or 1
    )
    return used / passed * processors * 100 if used > 0 and passed > 0 else 0.0


def memory_used(memory: dict[str, Any]) -> int:
    """Return the bytes in use without the page cache that could be dropped, v1 and v2 alike."""
    details = memory.get("stats") or {}
    usage = int(memory.get("usage") or 0)
    for name in ("total_inactive_file", "inactive_file"):
        if name in details and details[name] < usage:
            return int(usage - details[name])
    return usage


def block_bytes(sample: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes read from and written to block devices."""
    found = {"read": 0, "write": 0}
    for entry in (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        word = str(entry.get("op", "")).lower()
        if word in found:
            found[word] += entry["value"]
    return found["read"], found["write"]


def network_bytes(sample: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes received and sent over all interfaces."""
    networks = (sample.get("networks") or {}).values()
    return sum(n["rx_bytes"] for n in networks), sum(n["tx_bytes"] for n in networks)


# %% notebooks/F_container_commands.ipynb#stats-rows
STATS_HEADS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
STATS_TABLE = (
    "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}"
    "\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
)


def stats_row(sample: dict[str, Any], asked: str, cut: bool) -> dict[str, Any]:
    """Return a sample's fields under the names that templates use."""
    memory = sample.get("memory_stats") or {}
    used, limit = memory_used(memory), int(memory.get("limit") or 0)
    identity = sample.get("id", "")
    return {
        "Container": asked,
        "ID": short_id(identity) if cut else identity,
        "Name": sample.get("name", "").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": " / ".join(decimal_size(n, 3) for n in network_bytes(sample)),
        "BlockIO": " / ".join(decimal_size(n, 3) for n in block_bytes(sample)),
        "PIDs": str((sample.get("pids_stats") or {}).get("current") or 0),
    }


# %% notebooks/F_container_commands.ipynb#stats
STATS_FLAGS = """
-a, --all            Show all containers (default shows just running)
    --format string  Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
    --no-stream      Disable streaming stats and only pull the first result
    --no-trunc       Do not truncate output
"""
HOME_AND_CLEAR = "\x1b[H\x1b[J"


def stats(call: Call, parsed: Parsed) -> int:
    """Show what containers use, until interrupted."""
    form = parsed.one("format") or call.config().get("statsFormat", "")
    once = parsed.on("no-stream")
    clear = HOME_AND_CLEAR if os.isatty(1) and not once else ""
    while True:
        samples = sampled(call.client, parsed.words, parsed.on("all"))
        rows = [stats_row(sample, asked, not parsed.on("no-trunc")) for asked, sample in samples]
        text = rendered(form, rows, STATS_HEADS, "*container.statsContext", STATS_TABLE)
        print(f"{clear}{text}", end="", flush=True)
        if once:
            return 0


def sampled(client: Client, names: list[str], every: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, sample) of containers, all asked at the same time: a sample takes a second.

    Raises DaemonError when one that was named is not there.
    """
    asked = names or [
        short_id(c["Id"]) for c in client.json("GET", "/containers/json", {"all": every})
    ]
    if not asked:
        import time

        time.sleep(0.5)
    results: dict[str, Any] = {}
    _sample_all(client, asked, results)
    for found in results.values():
        if isinstance(found, DaemonError) and names:
            raise found
    return [(name, results[name]) for name in asked if isinstance(results.get(name), dict)]


def _sample_all(client: Client, names: list[str], results: dict[str, Any]) -> None:
    """Ask for every sample in a thread of its own."""
    from threading import Thread

    def one(name: str) -> None:
        try:
            results[name] = client.json("GET", f"{container_path(name)}/stats", {"stream": "false"})
        except DaemonError as error:
            results[name] = error

    threads = [Thread(target=one, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# %% notebooks/F_container_commands.ipynb#stats-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Display a live stream of container(s) resource usage statistics",
        STATS_FLAGS,
        stats,
        0,
        None,
        ("stats --no-stream", "stats --format '{{.Name}} {{.MemUsage}}' web"),
    ),
)
