"""Solutions of chapters 14 to 14h, and the wrong answers that their checks must recognise."""

from __future__ import annotations

import csv
import os
import posixpath
import re
import select
from typing import Any

from exercises.ch14 import (
    check_backoff,
    check_bind,
    check_changes,
    check_demultiplex,
    check_find,
    check_go_mode,
    check_held_back,
    check_mount_words,
    check_next_state,
    check_parse_tail,
    check_passes,
    check_reclaim,
    check_rotate,
    check_same,
    check_split,
    check_tee,
)
from mini_docker.lab import Exercise


def find_blank(reference: str, containers: dict[str, str]) -> str:
    """The untouched exercise."""
    return ""


def find(reference: str, containers: dict[str, str]) -> str:
    """Return the id of the container meant by `reference`, among {id: name}."""
    for container_id, name in containers.items():
        if reference in (container_id, name):
            return container_id
    matches = [
        container_id
        for container_id in containers
        if reference and container_id.startswith(reference)
    ]
    if len(matches) > 1:
        raise ValueError(f"{reference} is the start of {len(matches)} ids")
    if not matches:
        raise LookupError(f"no such container: {reference}")
    return matches[0]


def find_first(reference: str, containers: dict[str, str]) -> str:
    """Wrong: the first that starts so."""
    for container_id, name in containers.items():
        if reference == name or container_id.startswith(reference):
            return container_id
    raise LookupError(reference)


def find_prefix_first(reference: str, containers: dict[str, str]) -> str:
    """Wrong: ids before names."""
    matches = [container_id for container_id in containers if container_id.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    return find(reference, containers)


def reclaim_blank(directory: str, ids: set[str]) -> list[str]:
    """The untouched exercise."""
    return []


def reclaim(directory: str, ids: set[str]) -> list[str]:
    """Remove the dangling names in `directory`; return them sorted."""
    removed = []
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        if os.path.islink(path) and os.readlink(path) not in ids:
            os.unlink(path)
            removed.append(name)
    return removed


def reclaim_all(directory: str, ids: set[str]) -> list[str]:
    """Wrong: every name whose target does not exist as a path, which is every name."""
    gone = [
        name for name in sorted(os.listdir(directory)) if not os.path.exists(f"{directory}/{name}")
    ]
    for name in gone:
        os.unlink(f"{directory}/{name}")
    return gone


def reclaim_files(directory: str, ids: set[str]) -> list[str]:
    """Wrong: it takes strangers' files along."""
    gone = []
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        if not os.path.islink(path) or os.readlink(path) not in ids:
            os.unlink(path)
            gone.append(name)
    return gone


def split_blank(data: bytes) -> tuple[list[bytes], bytes]:
    """The untouched exercise."""
    return [], b""


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole lines of `data`, with their ends, and what follows the last one."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines], rest


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """Wrong: an unfinished line passes for a line."""
    return data.splitlines(keepends=True), b""


def split_text(data: bytes) -> tuple[list[bytes], bytes]:
    """Wrong: it decodes, and loses what is no text."""
    return split(data.decode(errors="ignore").encode())


def bind_blank(text: str) -> tuple[str, str, bool]:
    """The untouched exercise."""
    return "", "", False


def bind(text: str) -> tuple[str, str, bool]:
    """Return (source, destination, read-only) of HOST:CONTAINER[:ro|rw]; raise ValueError."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(text)
    source, destination, mode = (*parts, "rw")[:3]
    if (
        not destination.startswith("/")
        or posixpath.normpath(destination) == "/"
        or mode not in ("ro", "rw")
    ):
        raise ValueError(text)
    return source, destination, mode == "ro"


def bind_trusting(text: str) -> tuple[str, str, bool]:
    """Wrong: it takes whatever comes."""
    source, destination, *mode = text.split(":")
    return source, destination, mode == ["ro"]


def bind_textual(text: str) -> tuple[str, str, bool]:
    """Wrong: it knows the root by one name only."""
    source, destination, read_only = bind(text.replace("/../..", "/dots"))
    return source, destination, read_only


def demultiplex_blank(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The untouched exercise."""
    return [], data


def demultiplex(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole frames in `data`, and the rest."""
    frames = []
    while len(data) >= 8:
        if data[0] > 2:
            raise ValueError(f"{data[0]} is no stream")
        end = 8 + int.from_bytes(data[4:8], "big")
        if len(data) < end:
            break
        frames.append((data[0], data[8:end]))
        data = data[end:]
    return frames, data


def demultiplex_little(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Wrong: the length is read the other way round."""
    frames = []
    while len(data) >= 8:
        end = 8 + int.from_bytes(data[4:8], "little")
        frames.append((data[0], data[8:end]))
        data = data[end:]
    return frames, data


def demultiplex_trusting(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Wrong: any byte is a stream."""
    frames = []
    while len(data) >= 8 and len(data) >= 8 + int.from_bytes(data[4:8], "big"):
        end = 8 + int.from_bytes(data[4:8], "big")
        frames.append((data[0], data[8:end]))
        data = data[end:]
    return frames, data


def held_back_blank(held: bytes, data: bytes, keys: bytes) -> tuple[bytes, bytes, bool]:
    """The untouched exercise."""
    return held + data, b"", False


def held_back(held: bytes, data: bytes, keys: bytes) -> tuple[bytes, bytes, bool]:
    """Look for `keys` in what was held back and has come now."""
    data = held + data
    before, found, _ = data.partition(keys)
    if found:
        return before, b"", True
    for size in range(len(keys) - 1, 0, -1):
        if data.endswith(keys[:size]):
            return data[:-size], data[-size:], False
    return data, b"", False


def held_back_at_once(held: bytes, data: bytes, keys: bytes) -> tuple[bytes, bytes, bool]:
    """Wrong: it knows the keys only when they come together."""
    before, found, _ = (held + data).partition(keys)
    return before, b"", bool(found)


def held_back_greedy(held: bytes, data: bytes, keys: bytes) -> tuple[bytes, bytes, bool]:
    """Wrong: what was held back is forgotten when something else comes."""
    given, rest, found = held_back(held, data, keys)
    return (given.removeprefix(held) if held and not found and not rest else given), rest, found


def parse_tail_blank(text: str) -> int | None:
    """The untouched exercise."""
    return 0


def parse_tail(text: str) -> int | None:
    """Return how many lines `text` asks for."""
    return int(text) if text.isdigit() else None


def parse_tail_falsy(text: str) -> int | None:
    """Wrong: 0 is taken for nothing said."""
    return (int(text) if text.isdigit() else 0) or None


def parse_tail_strict(text: str) -> int | None:
    """Wrong: -1 is a number to Python."""
    try:
        return int(text)
    except ValueError:
        return None


def rotate_blank(directory: str, name: str, kept: int) -> None:
    """The untouched exercise."""


def rotate(directory: str, name: str, kept: int) -> None:
    """Make room for a new file called `name`."""
    if kept == 1:
        os.unlink(f"{directory}/{name}")
    for number in range(kept - 1, 0, -1):
        newer = f"{directory}/{name}.{number - 1}" if number > 1 else f"{directory}/{name}"
        if os.path.exists(newer):
            os.rename(newer, f"{directory}/{name}.{number}")


def rotate_forwards(directory: str, name: str, kept: int) -> None:
    """Wrong: the newest first, over the next one."""
    for number in range(1, kept):
        newer = f"{directory}/{name}.{number - 1}" if number > 1 else f"{directory}/{name}"
        if os.path.exists(newer):
            os.rename(newer, f"{directory}/{name}.{number}")


def rotate_everything(directory: str, name: str, kept: int) -> None:
    """Wrong: whatever begins like the name is taken for an old log."""
    rotate(directory, name, kept)
    for other in os.listdir(directory):
        if other.startswith(name) and "." not in other:
            os.unlink(f"{directory}/{other}")


def next_state_blank(state: str, what: str) -> str:
    """The untouched exercise."""
    return state


NEXT = {
    ("created", "start"): "running",
    ("exited", "start"): "running",
    ("running", "end"): "exited",
    ("running", "pause"): "paused",
    ("paused", "unpause"): "running",
    ("paused", "end"): "exited",
    ("created", "rm"): "gone",
    ("exited", "rm"): "gone",
}


def next_state(state: str, what: str) -> str:
    """Return the state after `what` happens."""
    if (state, what) not in NEXT:
        raise ValueError(f"{what} of a container that is {state}")
    return NEXT[state, what]


def next_state_immortal(state: str, what: str) -> str:
    """Wrong: it thinks that a frozen container cannot be killed."""
    if (state, what) == ("paused", "end"):
        raise ValueError("it is frozen")
    return next_state(state, what)


def next_state_forceful(state: str, what: str) -> str:
    """Wrong: it removes what runs."""
    return "gone" if what == "rm" else next_state(state, what)


def backoff_blank(lives: list[float]) -> list[float]:
    """The untouched exercise."""
    return []


def backoff(lives: list[float]) -> list[float]:
    """Return the delay after each life."""
    delays: list[float] = []
    for life in lives:
        again = not delays or life > 10
        delays.append(0.1 if again else min(60, delays[-1] * 2))
    return delays


def backoff_endless(lives: list[float]) -> list[float]:
    """Wrong: there is no longest delay."""
    delays: list[float] = []
    for life in lives:
        delays.append(0.1 if not delays or life > 10 else delays[-1] * 2)
    return delays


def backoff_unforgiving(lives: list[float]) -> list[float]:
    """Wrong: a long life changes nothing."""
    return [min(60, 0.1 * 2**number) for number in range(len(lives))]


def go_mode_blank(mode: int) -> int:
    """The untouched exercise."""
    return mode


def go_mode(mode: int) -> int:
    """Return Go's bits for a mode of stat(2)."""
    kinds = {0o040000: 1 << 31, 0o120000: 1 << 27}
    special = (1 << 23 if mode & 0o4000 else 0) | (1 << 20 if mode & 0o1000 else 0)
    return mode & 0o777 | kinds.get(mode & 0o170000, 0) | special


def go_mode_kinds(mode: int) -> int:
    """Wrong: it forgets the special bits."""
    return go_mode(mode & ~0o7000)


def go_mode_stat(mode: int) -> int:
    """Wrong: it keeps stat's own bits for the kind."""
    return go_mode(mode) | (mode & 0o170000)


Tree = dict[str, "str | None"]


def diff_blank(old: Tree, new: Tree) -> dict[str, str]:
    """The untouched exercise."""
    return {}


def diff(old: Tree, new: Tree) -> dict[str, str]:
    """Return what has changed."""
    found = {path: "A" for path in new if path not in old}
    found |= {path: "C" for path in new if path in old and new[path] != old[path]}
    for path in old:
        if path not in new and posixpath.dirname(path) not in set(old) - set(new):
            found[path] = "D"
    for path in list(found):
        while (path := posixpath.dirname(path)) != "/":
            if path in old and path in new:
                found[path] = "C"
    return found


def diff_flat(old: Tree, new: Tree) -> dict[str, str]:
    """Wrong: directories do not change with what is in them."""
    kept = {path: kind for path, kind in diff(old, new).items() if kind != "C"}
    return kept | {path: "C" for path in new if path in old and new[path] != old[path]}


def diff_deep(old: Tree, new: Tree) -> dict[str, str]:
    """Wrong: everything in a directory that is gone is gone once more."""
    return diff(old, new) | {path: "D" for path in old if path not in new}


def passes_blank(container: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """The untouched exercise."""
    return True


def passes(container: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Say whether a container passes all filters."""
    for key, texts in filters.items():
        if key == "name":
            good = any(text in container["name"] for text in texts)
        elif key == "status":
            good = container["status"] in texts
        elif key == "label":
            good = all(_has(container["labels"], text) for text in texts)
        else:
            raise ValueError(key)
        if not good:
            return False
    return True


def _has(labels: dict[str, str], text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def passes_any_label(container: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Wrong: labels are alternatives, as other values are."""
    rest = {key: texts for key, texts in filters.items() if key != "label"}
    labels = filters.get("label")
    return passes(container, rest) and (
        not labels or any(_has(container["labels"], text) for text in labels)
    )


def passes_falsy(container: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Wrong: an empty value is no value."""
    labels = [text.removesuffix("=") for text in filters.get("label", [])]
    return passes(container, {**filters, "label": labels})


def passes_forgiving(container: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Wrong: what it does not know it does not look at."""
    return passes(container, {k: v for k, v in filters.items() if k in ("name", "status", "label")})


def same_blank(pattern: str, name: str) -> bool:
    """The untouched exercise."""
    return False


def same(pattern: str, name: str) -> bool:
    """Go through the name once, at all places of the pattern at which one may be."""
    places = behind_stars({0}, pattern)
    for char in name:
        taken = {at + 1 for at in places if at < len(pattern) and pattern[at] in (char, "?")}
        waiting = {at for at in places if pattern[at : at + 1] == "*"}
        taken = {at for at in taken if pattern[at - 1] != "*"}
        places = behind_stars(taken | waiting, pattern)
    return len(pattern) in places


def behind_stars(places: set[int], pattern: str) -> set[int]:
    """Add the places behind each star: it may be the empty text."""
    found = set(places)
    for at in range(len(pattern)):
        if at in found and pattern[at] == "*":
            found.add(at + 1)
    return found


def same_backtracking(pattern: str, name: str) -> bool:
    """Wrong: it tries every length of every star."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(same_backtracking(pattern[1:], name[at:]) for at in range(len(name) + 1))
    return bool(name) and pattern[0] in (name[0], "?") and same_backtracking(pattern[1:], name[1:])


def same_regex(pattern: str, name: str) -> bool:
    """Wrong: it makes a regular expression of it, and forgets what else has a meaning there."""
    return bool(re.fullmatch(pattern.replace("*", ".*").replace("?", "."), name))


def same_greedy(pattern: str, name: str) -> bool:
    """Wrong: each piece is looked for after the last one, and the end is not looked at."""
    at = 0
    for piece in pattern.split("*"):
        found = name.find(piece, at) if "?" not in piece else at
        if found < 0:
            return False
        at = found + len(piece)
    return True


def mount_blank(text: str) -> dict[str, Any]:
    """The untouched exercise."""
    return {"type": "", "source": "", "target": "", "readonly": False}


LONG = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def mount(text: str) -> dict[str, Any]:
    """Return the four keys of a --mount value."""
    found: dict[str, Any] = {"type": "volume", "source": "", "target": "", "readonly": False}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        key = LONG.get(key, key)
        if key == "readonly":
            if equals and value not in TRUTHS:
                raise ValueError(field)
            found[key] = TRUTHS[value] if equals else True
        elif key not in found or not equals:
            raise ValueError(field)
        else:
            found[key] = value
    if found["type"] not in ("bind", "volume", "tmpfs") or not found["target"].startswith("/"):
        raise ValueError(text)
    if found["type"] == "bind" and not found["source"]:
        raise ValueError(text)
    return found


def mount_commas(text: str) -> dict[str, Any]:
    """Wrong: CSV is more than commas."""
    return mount(text.replace('"', ""))


def mount_truthy(text: str) -> dict[str, Any]:
    """Wrong: whoever says readonly wants it."""
    fields = [re.sub(r"^(ro|readonly)=.*", "readonly", field) for field in text.split(",")]
    return mount(",".join(fields))


def mount_trusting(text: str) -> dict[str, Any]:
    """Wrong: it does not look at what it has read."""
    try:
        return mount(text)
    except ValueError:
        return mount_blank(text)


def tee_blank(source: int, targets: list[int]) -> None:
    """The untouched exercise."""


def tee(source: int, targets: list[int]) -> None:
    """Read a piece, and no other before all who are still there have it."""
    there = list(targets)
    while there and (data := os.read(source, 1 << 16)):
        left = dict.fromkeys(there, data)
        while left:
            poll = select.poll()
            for fd in left:
                poll.register(fd, select.POLLOUT)
            for fd, _ in poll.poll():
                try:
                    left[fd] = left[fd][os.write(fd, left[fd]) :]
                except BrokenPipeError:
                    there.remove(fd)
                    left[fd] = b""
                if not left[fd]:
                    del left[fd]
    for fd in targets:
        os.close(fd)


def tee_open(source: int, targets: list[int]) -> None:
    """Wrong: nobody hears of the end."""
    tee(source, [os.dup(fd) for fd in targets])


def tee_short(source: int, targets: list[int]) -> None:
    """Wrong: it takes a write for whole, and a pipe that is full for one that takes nothing."""
    while data := os.read(source, 1 << 16):
        for fd in targets:
            try:
                os.write(fd, data)
            except BlockingIOError:
                continue
    for fd in targets:
        os.close(fd)


def tee_fragile(source: int, targets: list[int]) -> None:
    """Wrong: when one reader goes the other gets nothing more."""
    while data := os.read(source, 1 << 12):
        for fd in targets:
            os.set_blocking(fd, True)
            os.write(fd, data)
    for fd in targets:
        os.close(fd)


EXERCISES = [
    Exercise(
        "find",
        check_find,
        blank=find_blank,
        solution=find,
        wrong=[(find_first, "'77' is somebody's name"), (find_prefix_first, "exact name wins")],
    ),
    Exercise(
        "reclaim",
        check_reclaim,
        blank=reclaim_blank,
        solution=reclaim,
        wrong=[(reclaim_all, "its container exists"), (reclaim_files, "README was no symlink")],
    ),
    Exercise(
        "split",
        check_split,
        blank=split_blank,
        solution=split,
        wrong=[(split_lines, "two whole lines"), (split_text, "nothing may be decoded")],
    ),
    Exercise(
        "bind",
        check_bind,
        blank=bind_blank,
        solution=bind,
        wrong=[(bind_trusting, "a relative path"), (bind_textual, "in other words")],
    ),
    Exercise(
        "demultiplex",
        check_demultiplex,
        blank=demultiplex_blank,
        solution=demultiplex,
        wrong=[(demultiplex_little, "big-endian"), (demultiplex_trusting, "no stream number")],
    ),
    Exercise(
        "held back",
        check_held_back,
        blank=held_back_blank,
        solution=held_back,
        wrong=[(held_back_at_once, "held back"), (held_back_greedy, "must get both")],
    ),
    Exercise(
        "tail",
        check_parse_tail,
        blank=parse_tail_blank,
        solution=parse_tail,
        wrong=[(parse_tail_falsy, "shows nothing of the past"), (parse_tail_strict, "is all")],
    ),
    Exercise(
        "rotate",
        check_rotate,
        blank=rotate_blank,
        solution=rotate,
        wrong=[
            (rotate_forwards, "begin with the oldest"),
            (rotate_everything, "no file of this log"),
        ],
    ),
    Exercise(
        "next state",
        check_next_state,
        blank=next_state_blank,
        solution=next_state,
        wrong=[(next_state_immortal, "is refused"), (next_state_forceful, "Docker refuses it")],
    ),
    Exercise(
        "back-off",
        check_backoff,
        blank=backoff_blank,
        solution=backoff,
        wrong=[(backoff_endless, "more than a minute"), (backoff_unforgiving, "begins anew")],
    ),
    Exercise(
        "go mode",
        check_go_mode,
        blank=go_mode_blank,
        solution=go_mode,
        wrong=[(go_mode_kinds, "setuid is bit 23"), (go_mode_stat, "permissions alone")],
    ),
    Exercise(
        "diff",
        check_changes,
        blank=diff_blank,
        solution=diff,
        wrong=[(diff_flat, "/etc counts as changed"), (diff_deep, "one D")],
    ),
    Exercise(
        "passes",
        check_passes,
        blank=passes_blank,
        solution=passes,
        wrong=[
            (passes_any_label, "not one of them"),
            (passes_falsy, "wants the empty value"),
            (passes_forgiving, "mistypes a filter"),
        ],
    ),
    Exercise(
        "stars",
        check_same,
        blank=same_blank,
        solution=same,
        wrong=[
            (same_backtracking, "for ever"),
            (same_regex, "a dot is a dot"),
            (same_greedy, "the whole name must match"),
        ],
    ),
    Exercise(
        "mount",
        check_mount_words,
        blank=mount_blank,
        solution=mount,
        wrong=[
            (mount_commas, "a quoted field has commas"),
            (mount_truthy, "it may be false"),
            (mount_trusting, "where to?"),
        ],
    ),
    Exercise(
        "tee",
        check_tee,
        blank=tee_blank,
        solution=tee,
        wrong=[
            (tee_open, "the end never comes"),
            (tee_short, "bytes are lost"),
            (tee_fragile, "BrokenPipeError"),
        ],
    ),
]
