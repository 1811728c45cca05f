# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#reports-module
"""The commands of mini_runc that only tell: list, ps, events, features, spec."""

from __future__ import annotations

import os
import pwd
import time

from mini_docker.runtime.about import example, features, stats_event
from mini_docker.runtime.jsontext import dumps, indented
from mini_docker.runtime.lifecycle import group_needed, members, state
from mini_docker.runtime.state import STOPPED, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mini_docker.runtime.state import Store
    from mini_docker.runtime.words import Words


# %% notebooks/11e_mini_runc.ipynb#list
def command_list(store: Store, words: Words) -> int:
    """Print all containers: a table, their ids, or JSON."""
    records = list(store.records())
    if words.on("quiet"):
        print("".join(f"{record['id']}\n" for record in records), end="")
        return 0
    rows = [_row(store, record) for record in records]
    if words.one("format") == "json":
        print(dumps(rows))
        return 0
    table = [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    table += [[str(row[key]) for key in keys] for row in rows]
    widths = [max(len(line[i]) for line in table) + 3 for i in range(6)]
    for line in table:
        print("".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _row(store: Store, record: dict[str, Any]) -> dict[str, Any]:
    """Return a container's state and what `list` says beyond it."""
    found = state(store, record)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.get("created", 0)))
    rootfs = ""
    if found["status"] != STOPPED:
        rootfs = store.document(record["id"])["root"]["path"]
    return {
        **found,
        "created": created,
        "owner": _user_name(record.get("owner", 0)),
        "rootfs": rootfs,
    }


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# %% notebooks/11e_mini_runc.ipynb#ps-and-events
def command_ps(store: Store, words: Words) -> int:
    """Print the processes of a container: as ps(1) shows them, or their pids as JSON."""
    import subprocess

    pids = members(store.read(words.container(most=None)))
    if words.one("format") == "json":
        print(dumps(pids))
        return 0
    command = ["ps", *(words.rest[1:] or ["-ef"])]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    if not lines or "PID" not in lines[0].split():
        raise RuntimeFailure(f"{' '.join(command)} shows no column PID")
    column = lines[0].split().index("PID")
    print(lines[0])
    for line in lines[1:]:
        if line.split()[column] in map(str, pids):
            print(line)
    return 0


def command_events(store: Store, words: Words) -> int:
    """Print the numbers of a container as JSON lines: once with --stats, else every interval."""
    container_id = words.container()
    while True:
        record = store.read(container_id)
        if store.status(record) == STOPPED:
            return 0
        print(dumps(stats_event(container_id, group_needed(record).stats())), flush=True)
        if words.on("stats"):
            return 0
        time.sleep(float(words.one("interval", "5s").rstrip("s")))


# %% notebooks/11e_mini_runc.ipynb#about
def command_features(store: Store, words: Words) -> int:
    """Print what this runtime can do, as the specification has it (features.md)."""
    print(indented(features()))
    return 0


def command_spec(store: Store, words: Words) -> int:
    """Write a document to begin with, config.json, which must not be there yet."""
    path = os.path.join(words.one("bundle", "."), "config.json")
    if os.path.exists(path):
        raise RuntimeFailure(f"{path} is there already; remove it first")
    with open(path, "w") as file:
        file.write(indented(example(words.on("rootless"))) + "\n")
    return 0


REPORTS: dict[str, Callable[[Store, Words], int]] = {
    "events": command_events,
    "features": command_features,
    "list": command_list,
    "ps": command_ps,
    "spec": command_spec,
}
