"""Solutions of chapter 11, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import errno
import json
import os
import struct
from typing import Any

from exercises.ch11 import (
    POINTS,
    SENTENCES,
    check_form,
    check_kinds_to_join,
    check_pid_inside,
    check_plan_umask,
    check_reply,
    check_same_process,
    check_status_for,
    check_status_of,
    check_translate,
    check_verdict_of,
    check_where,
    check_write_whole,
)
from mini_docker.lab import Exercise
from mini_docker.linux.step import Step
from mini_docker.runtime.schema import check as holds


def plan_umask_blank(spec: dict[str, Any]) -> list[Step]:
    """The untouched exercise."""
    return []


def plan_umask(spec: dict[str, Any]) -> list[Step]:
    """Plan process.user.umask, umask(2)."""
    value = spec["process"]["user"].get("umask")
    return [] if value is None else [Step(f"set umask {value:04o}", os.umask, (value,))]


def plan_umask_acts(spec: dict[str, Any]) -> list[Step]:
    """Wrong: it does it instead of planning it."""
    os.umask(spec["process"]["user"].get("umask", 0o22))
    return []


def plan_umask_always(spec: dict[str, Any]) -> list[Step]:
    """Wrong: it plans a default that nobody asked for."""
    return [Step("set umask", os.umask, (spec["process"]["user"].get("umask", 0o22),))]


def verdict_of_blank(report: bytes) -> str:
    """The untouched exercise."""
    return ""


def verdict_of(report: bytes) -> str:
    """Return "started", "killed", or the name of the step that failed."""
    if not report:
        return "killed"
    if report[:1] == b"!":
        (count,) = struct.unpack_from("=I", report, 1)
        report = report[5 + 8 * count :]
    return json.loads(report[1:])["step"] if report else "started"


def verdict_of_first_byte(report: bytes) -> str:
    """Wrong: it stops reading at READY."""
    if report[:1] == b"!":
        return "started"
    return json.loads(report[1:])["step"] if report else "killed"


def verdict_of_end(report: bytes) -> str:
    """Wrong: it takes every end without a failure for a start."""
    return json.loads(report[1:])["step"] if report[:1] == b"E" else "started"


# ---- 11b ----


def status_of_blank(pid: int, fifo: str) -> str:
    """The untouched exercise."""
    return ""


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def status_of(pid: int, fifo: str) -> str:
    """Return the state of the container with init `pid` and the gate `fifo`."""
    if not _is_alive(pid):
        return "stopped"
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return "running"
    return "created"


def status_of_file(pid: int, fifo: str) -> str:
    """Wrong: it takes the file for the one who waits at it."""
    if not _is_alive(pid):
        return "stopped"
    return "created" if os.path.exists(fifo) else "running"


def status_of_pid(pid: int, fifo: str) -> str:
    """Wrong: a zombie has a pid too."""
    state = status_of(pid, fifo)
    return "running" if state == "stopped" and os.path.exists(f"/proc/{pid}") else state


def where_blank(point: str) -> tuple[str, str]:
    """The untouched exercise."""
    return "", ""


def where(point: str) -> tuple[str, str]:
    """Return ("create" | "start" | "delete", "runtime" | "container") of a hook point."""
    return POINTS[point]


def where_by_name(point: str) -> tuple[str, str]:
    """Wrong: prestart has "start" in its name, and runs during create."""
    return ("start" if "start" in point else POINTS[point][0]), POINTS[point][1]


def where_outside(point: str) -> tuple[str, str]:
    """Wrong: not all of them run in the runtime's namespaces."""
    return POINTS[point][0], "runtime"


# ---- 11c ----
NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def kinds_to_join_blank(pid: int) -> set[str]:
    """The untouched exercise."""
    return set()


def kinds_to_join(pid: int) -> set[str]:
    """Return the names of the namespaces that `pid` does not share with us."""
    return {
        name
        for name in NAMES
        if os.path.exists(f"/proc/self/ns/{name}")
        and os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    }


def kinds_to_join_all(pid: int) -> set[str]:
    """Wrong: it joins what it is in already."""
    return set(NAMES)


def kinds_to_join_host(pid: int) -> set[str]:
    """Wrong: it compares with the first process, not with the caller."""
    return {
        name
        for name in ("ipc", "net", "pid")
        if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/1/ns/{name}")
    }


def pid_inside_blank(pid: int) -> int:
    """The untouched exercise."""
    return 0


def pid_inside(pid: int) -> int:
    """Return the pid of `pid` as its own pid namespace counts."""
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("NSpid:"))
    return int(line.split()[-1])


def pid_inside_first(pid: int) -> int:
    """Wrong: the first number of the line is the outermost pid."""
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("NSpid:"))
    return int(line.split()[1])


# ---- 11d ----


def write_whole_blank(path: str, text: str) -> None:
    """The untouched exercise."""


def write_whole(path: str, text: str) -> None:
    """Replace the file `path` by `text`, whole or not at all."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


def write_whole_in_place(path: str, text: str) -> None:
    """Wrong: it empties the file before it has anything to put in."""
    with open(path, "w") as file:
        file.write(text)


def write_whole_twice(path: str, text: str) -> None:
    """Wrong: it keeps a copy, and nobody removes it."""
    with open(f"{path}.old", "w") as file:
        file.write(text)
    write_whole(path, text)


def same_process_blank(pid: int, started: int) -> bool:
    """The untouched exercise."""
    return False


def same_process(pid: int, started: int) -> bool:
    """Return whether `pid` is still the process that was started at `started`."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X") and int(fields[19]) == started


def same_process_pid(pid: int, started: int) -> bool:
    """Wrong: a number is not a process."""
    return os.path.exists(f"/proc/{pid}")


def same_process_split(pid: int, started: int) -> bool:
    """Wrong: it cuts the line at spaces, and the name has some."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().split()
    except OSError:
        return False
    return fields[2] != "Z" and fields[21] == str(started)


def same_process_zombie(pid: int, started: int) -> bool:
    """Wrong: it forgets the dead that still have a number."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[19]) == started
    except OSError:
        return False


# ---- 11e ----


def status_for_blank(text: str) -> int:
    """The untouched exercise."""
    return 0


def status_for(text: str) -> int:
    """Return docker's exit status for an error text of the runtime."""
    return SENTENCES[text]


def status_for_short(text: str) -> int:
    """Wrong: it knows one of the two sentences for a missing file."""
    return 127 if "not found in $PATH" in text else SENTENCES[text] if "stat" not in text else 125


def status_for_exec(text: str) -> int:
    """Wrong: it takes every other sentence about exec for a missing file."""
    return 127 if text.startswith("exec") else 125


MEMORY_POLICY: dict[str, Any] = {
    "mode!": ("MPOL_DEFAULT", "MPOL_BIND"),
    "nodes": "string",
    "flags": ["string"],
}


def check_memory_policy(form: dict[str, Any]) -> Any:
    """Check a form with the function of the chapter."""
    return check_form(form, holds)


# ---- 11f ----
Mappings = list[dict[str, int]]


def translate_blank(number: int, mappings: Mappings) -> int | None:
    """The untouched exercise."""
    return None


def translate(number: int, mappings: Mappings) -> int | None:
    """Return the host's number of `number`, or None."""
    for mapping in mappings:
        offset = number - mapping["containerID"]
        if 0 <= offset < mapping["size"]:
            return mapping["hostID"] + offset
    return None


def translate_first(number: int, mappings: Mappings) -> int | None:
    """Wrong: it knows the first range only."""
    return mappings[0]["hostID"] + number - mappings[0]["containerID"]


def translate_endless(number: int, mappings: Mappings) -> int | None:
    """Wrong: ranges have an end."""
    for mapping in reversed(mappings):
        if number >= mapping["containerID"]:
            return mapping["hostID"] + number - mapping["containerID"]
    return None


# ---- 11g ----


def reply_blank(number: int, decision: int | str) -> bytes:
    return b""


def reply(number: int, decision: int | str) -> bytes:
    if decision == "continue":
        return struct.pack("=QqiI", number, 0, 0, 1)
    if isinstance(decision, str):
        return struct.pack("=QqiI", number, 0, -getattr(errno, decision), 0)
    return struct.pack("=QqiI", number, decision, 0, 0)


def reply_positive(number: int, decision: int | str) -> bytes:
    error = getattr(errno, decision, 0) if isinstance(decision, str) else 0
    value = decision if isinstance(decision, int) else 0
    return struct.pack("=QqiI", number, value, error, int(decision == "continue"))


def reply_without_flag(number: int, decision: int | str) -> bytes:
    return reply(number, 0 if decision == "continue" else decision)


EXERCISES = [
    Exercise(
        "plan_umask",
        check_plan_umask,
        blank=plan_umask_blank,
        solution=plan_umask,
        wrong=[(plan_umask_acts, "changed while planning"), (plan_umask_always, "without the key")],
    ),
    Exercise(
        "verdict_of",
        check_verdict_of,
        blank=verdict_of_blank,
        solution=verdict_of,
        wrong=[(verdict_of_first_byte, "execve was refused"), (verdict_of_end, "killed before")],
    ),
    Exercise(
        "status_of",
        check_status_of,
        blank=status_of_blank,
        solution=status_of,
        wrong=[(status_of_file, "nobody has it open"), (status_of_pid, "a zombie")],
    ),
    Exercise(
        "where",
        check_where,
        blank=where_blank,
        solution=where,
        wrong=[(where_by_name, "prestart: which of"), (where_outside, "whose namespaces")],
    ),
    Exercise(
        "kinds_to_join",
        check_kinds_to_join,
        blank=kinds_to_join_blank,
        solution=kinds_to_join,
        wrong=[(kinds_to_join_all, "EINVAL"), (kinds_to_join_host, "uts differ")],
    ),
    Exercise(
        "pid_inside",
        check_pid_inside,
        blank=pid_inside_blank,
        solution=pid_inside,
        wrong=[(pid_inside_first, "as we count")],
    ),
    Exercise(
        "write_whole",
        check_write_whole,
        blank=write_whole_blank,
        solution=write_whole,
        wrong=[(write_whole_in_place, "the old text is lost"), (write_whole_twice, "beside it")],
    ),
    Exercise(
        "same_process",
        check_same_process,
        blank=same_process_blank,
        solution=same_process,
        wrong=[
            (same_process_pid, "it is another one"),
            (same_process_split, "brackets"),
            (same_process_zombie, "a zombie has ended"),
        ],
    ),
    Exercise(
        "status_for",
        check_status_for,
        blank=status_for_blank,
        solution=status_for,
        wrong=[(status_for_short, "so 127"), (status_for_exec, "so 126")],
    ),
    Exercise(
        "memory_policy",
        check_memory_policy,
        blank={},
        solution=MEMORY_POLICY,
        wrong=[
            ({**MEMORY_POLICY, "flags": "string"}, "a good value is refused"),
            ({"mode": ("MPOL_DEFAULT", "MPOL_BIND")}, "without a mode"),
        ],
    ),
    Exercise(
        "translate",
        check_translate,
        blank=translate_blank,
        solution=translate,
        wrong=[(translate_first, "the second begins at 1"), (translate_endless, "in no range")],
    ),
    Exercise(
        "reply",
        check_reply,
        blank=reply_blank,
        solution=reply,
        wrong=[(reply_positive, "positive"), (reply_without_flag, "packed as")],
    ),
]
