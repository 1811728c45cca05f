"""Solutions of chapter 12c, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exercises.ch12c import check_damaged, check_garbage
from mini_docker.lab import Exercise


def damaged_blank(directory: str) -> list[str]:
    """The untouched exercise."""
    return []


def damaged(directory: str) -> list[str]:
    """Return the digests of the damaged blobs below directory/blobs, sorted."""
    found = []
    for path in Path(directory, "blobs").glob("*/*"):
        digest = hashlib.new(path.parent.name)
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != path.name:
            found.append(f"{path.parent.name}:{path.name}")
    return sorted(found)


def damaged_one_algorithm(directory: str) -> list[str]:
    """Wrong: it forgets that there are two."""
    return [name for name in damaged(directory) if name.startswith("sha256:")]


def damaged_by_size(directory: str) -> list[str]:
    """Wrong: it looks for empty blobs only."""
    paths = Path(directory, "blobs").glob("*/*")
    return sorted(f"{path.parent.name}:{path.name}" for path in paths if path.stat().st_size == 0)


def garbage_blank(leads_to: dict[str, list[str]], named: list[str], held: list[str]) -> set[str]:
    """The untouched exercise."""
    return set()


def garbage(leads_to: dict[str, list[str]], named: list[str], held: list[str]) -> set[str]:
    """Return the blobs that neither a name nor a lease leads to."""
    marked: set[str] = set()
    waiting = list(named)
    while waiting:
        blob = waiting.pop()
        if blob not in marked:
            marked.add(blob)
            waiting += leads_to.get(blob, [])
    return set(leads_to) - marked - set(held)


def garbage_one_step(leads_to: dict[str, list[str]], named: list[str], held: list[str]) -> set[str]:
    """Wrong: it marks the names and what they lead to, and stops."""
    marked = {*named, *(child for name in named for child in leads_to.get(name, []))}
    return set(leads_to) - marked - set(held)


def garbage_counted(leads_to: dict[str, list[str]], named: list[str], held: list[str]) -> set[str]:
    """Wrong: it counts references, and a circle counts itself."""
    alive = dict(leads_to)
    while True:
        counted = {*named, *held, *(child for blob in alive for child in alive[blob])}
        gone = set(alive) - counted
        if not gone:
            return set(leads_to) - set(alive)
        alive = {blob: children for blob, children in alive.items() if blob not in gone}


def garbage_no_leases(
    leads_to: dict[str, list[str]], named: list[str], held: list[str]
) -> set[str]:
    """Wrong: it does not ask who is bringing what."""
    return garbage(leads_to, named, [])


EXERCISES = [
    Exercise(
        "damaged",
        check_damaged,
        blank=damaged_blank,
        solution=damaged,
        wrong=[(damaged_by_size, "one byte"), (damaged_one_algorithm, "blobs/sha256 only")],
    ),
    Exercise(
        "garbage",
        check_garbage,
        blank=garbage_blank,
        solution=garbage,
        wrong=[
            (garbage_one_step, "two steps"),
            (garbage_counted, "a lease holds exactly what it lists"),
            (garbage_no_leases, "under its hands"),
        ],
    ),
]
