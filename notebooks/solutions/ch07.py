"""Solutions of chapter 7, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from exercises.ch07 import check_host_id, check_rootless_map
from mini_docker.lab import Exercise

Mappings = list[dict[str, int]]


def host_id_blank(uid_map: str, inside: int) -> int | None:
    """The untouched exercise."""
    return None


def host_id(uid_map: str, inside: int) -> int | None:
    """Return what the id `inside` is outside, by the text of /proc/PID/uid_map, or None."""
    for line in uid_map.splitlines():
        first, outside, size = map(int, line.split())
        if first <= inside < first + size:
            return outside + inside - first
    return None


def host_id_first_line(uid_map: str, inside: int) -> int | None:
    """Wrong: one line is enough for it."""
    return host_id(uid_map.splitlines()[0], inside)


def host_id_one_more(uid_map: str, inside: int) -> int | None:
    """Wrong: the size is taken for the last id."""
    for line in uid_map.splitlines():
        first, outside, size = map(int, line.split())
        if first <= inside <= first + size:
            return outside + inside - first
    return None


def host_id_added(uid_map: str, inside: int) -> int | None:
    """Wrong: it adds, and forgets where the range begins inside."""
    for line in uid_map.splitlines():
        first, outside, size = map(int, line.split())
        if first <= inside < first + size:
            return outside + inside
    return None


def rootless_map_blank(uid: int, name: str, subuid: str) -> Mappings:
    """The untouched exercise."""
    return []


def rootless_map(uid: int, name: str, subuid: str) -> Mappings:
    """Return the uidMappings of a rootless container of the user `name`, who is `uid`."""
    mappings, inside = [{"containerID": 0, "hostID": uid, "size": 1}], 1
    for line in subuid.splitlines():
        owner, start, size = line.split(":")
        if owner in (name, str(uid)):
            mappings.append({"containerID": inside, "hostID": int(start), "size": int(size)})
            inside += int(size)
    return mappings


def rootless_map_all(uid: int, name: str, subuid: str) -> Mappings:
    """Wrong: it takes every line."""
    return rootless_map(
        uid, name, "".join(f"{uid}:{line.partition(':')[2]}\n" for line in subuid.splitlines())
    )


def rootless_map_remapped(uid: int, name: str, subuid: str) -> Mappings:
    """Wrong: that is dockerd's userns-remap, where root is a subordinate id."""
    mappings = rootless_map(uid, name, subuid)
    if len(mappings) == 1:
        return mappings
    return [{**mapping, "containerID": mapping["containerID"] - 1} for mapping in mappings[1:]]


def rootless_map_names(uid: int, name: str, subuid: str) -> Mappings:
    """Wrong: a line may name a user by number."""
    return [{"containerID": 0, "hostID": uid, "size": 1}, *rootless_map(-1, name, subuid)[1:]]


def rootless_map_restart(uid: int, name: str, subuid: str) -> Mappings:
    """Wrong: every range begins at 1 inside."""
    first, *others = rootless_map(uid, name, subuid)
    return [first, *({**mapping, "containerID": 1} for mapping in others)]


EXERCISES = [
    Exercise(
        "host_id",
        check_host_id,
        blank=host_id_blank,
        solution=host_id,
        wrong=[
            (host_id_first_line, "you find nothing"),
            (host_id_one_more, "has no number outside"),
            (host_id_added, "was seen there"),
        ],
    ),
    Exercise(
        "rootless_map",
        check_rootless_map,
        blank=rootless_map_blank,
        solution=rootless_map,
        wrong=[
            (rootless_map_all, "the ids of mallory"),
            (rootless_map_remapped, "not ada"),
            (rootless_map_names, "calls her 1000"),
            (rootless_map_restart, "the map is refused"),
        ],
    ),
]
