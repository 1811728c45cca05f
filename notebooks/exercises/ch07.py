"""Checks of chapter 7: real user namespaces say who is who."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.process import CLONE_NEWUSER, clone3
from mini_docker.namespaces.user import write_id_maps

Mappings = list[dict[str, int]]
NOBODYS = {"containerID": 0, "hostID": 65534, "size": 1}


def host_uids(mappings: Mappings, inside: Sequence[int]) -> tuple[str, list[int | None]]:
    """Return the kernel's uid_map of these mappings, and what each id inside is on the host.

    A process in a new user namespace becomes each of them; its /proc/PID/status is read from outside.
    """
    id_map, found = "", list[int | None]()
    for uid in inside:
        go_fd, go_write_fd = os.pipe()
        done_fd, done_write_fd = os.pipe()
        pid, _ = clone3(CLONE_NEWUSER)
        if pid == 0:
            os.close(go_write_fd)
            become(uid, go_fd, done_write_fd)
        write_id_maps(pid, {"linux": {"uidMappings": mappings, "gidMappings": [NOBODYS]}})
        os.write(go_write_fd, b"!")
        became = os.read(done_fd, 1) == b"y"
        with open(f"/proc/{pid}/status") as file:
            (line,) = (line for line in file if line.startswith("Uid:"))
        with open(f"/proc/{pid}/uid_map") as file:
            id_map = file.read()
        found.append(int(line.split()[1]) if became else None)
        os.close(go_write_fd)
        os.waitpid(pid, 0)
        for fd in (go_fd, done_fd, done_write_fd):
            os.close(fd)
    return id_map, found


def become(uid: int, go_fd: int, done_fd: int) -> None:
    """Be the process: wait for the maps, become `uid`, say whether it worked, wait for the end."""
    try:
        os.read(go_fd, 1)
        os.setresuid(uid, uid, uid)
        os.write(done_fd, b"y")
    except OSError:
        os.write(done_fd, b"n")
    finally:
        os.read(go_fd, 1)
        os._exit(0)


@check
def check_host_id(answer: Callable[[str, int], int | None]) -> Verdict:
    """Check the translation against what the kernel says of processes with these ids."""
    if answer("0 100000 65536\n", 0) is None:
        return failed("in the map '0 100000 65536' id 0 is 100000 outside, and you find nothing")
    size, gap, start = random.randint(10, 90), random.randint(1, 9), random.randint(1, 20) * 10_000
    mappings = [
        {"containerID": 0, "hostID": start, "size": size},
        {"containerID": size + gap, "hostID": start + 500, "size": 3},
    ]
    inside = [0, size - 1, size, size + gap, size + gap + 2, size + gap + 3]
    outcome = run_in_child(host_uids, mappings, inside)
    if outcome.value is None:
        return failed(f"the kernel did not take the map: {outcome.error or outcome.output.strip()}")
    id_map, truth = outcome.value
    for uid, real in zip(inside, truth, strict=True):
        said = answer(id_map, uid)
        if said == real:
            continue
        shown = f"in the map {' | '.join(' '.join(line.split()) for line in id_map.splitlines())}, id {uid}"
        if real is None:
            return failed(
                f"{shown} has no number outside: no process can become it; you say {said}"
            )
        if said is None:
            return failed(f"{shown} is {real} outside, and you find nothing")
        return failed(
            f"{shown} is {real} outside: a process with it was seen there; you say {said}"
        )
    return passed("six ids, and the kernel agrees on each")


@check
def check_rootless_map(answer: Callable[[int, str, str], Mappings]) -> Verdict:
    """Check a rootless container's mappings by making a user namespace of them."""
    first, second = random.randint(2, 9) * 100_000, random.randint(20, 29) * 100_000
    others = "mallory:3000000:65536\n"
    alone = answer(1000, "ada", others)
    if any(mapping["hostID"] >= 3000000 for mapping in alone):
        return failed("ada has no line of her own, and you give her the ids of mallory")
    if alone != [{"containerID": 0, "hostID": 1000, "size": 1}]:
        return failed(
            f"without a line in subuid ada can be nobody but herself, as id 0; you return {alone}"
        )
    text = f"{others}ada:{first}:1000\n1000:{second}:1000\n"
    inside = [0, 1, 1000, 1001, 2000, 2001]
    wanted = [1000, first, first + 999, second, second + 999, None]
    outcome = run_in_child(host_uids, answer(1000, "ada", text), inside)
    if outcome.value is None:
        return failed(f"the map is refused: {outcome.error or outcome.output.strip()}")
    for uid, real, want in zip(inside, outcome.value[1], wanted, strict=True):
        if real == want:
            continue
        if uid == 0:
            return failed(
                f"root of the container is {real} outside, and not ada: her own files are not hers inside"
            )
        if want is None:
            return failed(f"id {uid} is {real} outside, and nobody gave ada so many ids")
        line = "ada's line" if want < second else "the line that calls her 1000"
        return failed(
            f"id {uid} should be {want} outside, by {line}; a process with it is {real or 'impossible'}"
        )
    return passed("herself as root, then every id that was lent to her")
