"""Solutions of chapter 9b, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from typing import Any

from exercises.ch09b import check_local_sockets, check_no_code_from_data
from mini_docker.lab import Exercise


def policy(
    names: list[str], *arguments: tuple[int, str, int, int], errno: int = 13
) -> dict[str, Any]:
    """Return a policy that refuses `names`, if (index, operator, value, second) hold."""
    args = [
        {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second}
        for index, operator, value, second in arguments
    ]
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def blank() -> dict[str, Any]:
    """The untouched exercise."""
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}


def local_sockets() -> dict[str, Any]:
    """Return a linux.seccomp under which socket(2) makes local sockets only."""
    return policy(["socket"], (0, "NE", 1, 0))


def local_sockets_listed() -> dict[str, Any]:
    """Wrong: it lists one family that is not allowed."""
    return policy(["socket"], (0, "EQ", 2, 0))


def local_sockets_half() -> dict[str, Any]:
    """Wrong: two ranges that leave a gap above 32 bits."""
    found = policy(["socket"], (0, "EQ", 0, 0))
    more = [{"index": 0, "op": "SCMP_CMP_EQ", "value": family} for family in range(2, 64)]
    found["syscalls"][0]["args"] += more
    return found


def local_sockets_eperm() -> dict[str, Any]:
    """Wrong: another error."""
    return policy(["socket"], (0, "NE", 1, 0), errno=1)


CALLS = ["mmap", "mprotect", "pkey_mprotect"]


def no_code_from_data() -> dict[str, Any]:
    """Return a linux.seccomp that refuses memory which is writable and executable."""
    return policy(CALLS, (2, "MASKED_EQ", 6, 6))


def no_code_exact() -> dict[str, Any]:
    """Wrong: only read, write and execute together."""
    return policy(CALLS, (2, "EQ", 7, 0))


def no_code_either() -> dict[str, Any]:
    """Wrong: two conditions on one argument are alternatives."""
    return policy(CALLS, (2, "MASKED_EQ", 2, 2), (2, "MASKED_EQ", 4, 4))


def no_code_mmap() -> dict[str, Any]:
    """Wrong: memory can be made executable later."""
    return policy(["mmap"], (2, "MASKED_EQ", 6, 6))


EXERCISES = [
    Exercise(
        "local_sockets",
        check_local_sockets,
        blank=blank,
        solution=local_sockets,
        wrong=[
            (local_sockets_listed, "other than AF_INET"),
            (local_sockets_half, "attack two works"),
            (local_sockets_eperm, "EACCES"),
        ],
    ),
    Exercise(
        "no_code_from_data",
        check_no_code_from_data,
        blank=blank,
        solution=no_code_from_data,
        wrong=[
            (no_code_exact, "you compare all bits"),
            (no_code_either, "no program can even start"),
            (no_code_mmap, "mprotect with"),
        ],
    ),
]
