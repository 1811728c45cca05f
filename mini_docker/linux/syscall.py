# Exported from notebooks/01_system_calls.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/01_system_calls.ipynb#numbers
"""A system call from Python: its number, its typed arguments, errno turned into OSError."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NUMBERS: dict[str, tuple[int, int]] = {
    # name: (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h
    "rt_sigaction": (13, 134),
    "fstatfs": (138, 44),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
    "prctl": (157, 167),
    "capget": (125, 90),
    "capset": (126, 91),
    "unshare": (272, 97),
    "setns": (308, 268),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
}
MACHINE = os.uname().machine
ARCHITECTURES = ("x86_64", "aarch64")


# %% notebooks/01_system_calls.ipynb#number
def number(name: str, machine: str = MACHINE) -> int:
    """Return the number of the system call `name` on `machine` ("x86_64" or "aarch64").

    Raises OSError(ENOSYS) for any other machine: guessing a number would call something else.
    Source: syscalls(2).
    """
    if machine not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise OSError(errno.ENOSYS, f"no system call numbers for {machine}, only for {known}")
    return NUMBERS[name][ARCHITECTURES.index(machine)]


# %% notebooks/01_system_calls.ipynb#system-call
libc = ctypes.CDLL(None, use_errno=True)


def system_call(name: str, *argtypes: Any) -> Callable[..., int]:
    """Return a Python function for the system call `name` whose arguments have the ctypes `argtypes`.

    The function returns what the kernel returned; -1 becomes the OSError of its errno, whose text names
    the call. The types matter: without them ctypes passes every int as 32 bits. On a machine that we have
    no numbers for, the call (not the definition) raises OSError(ENOSYS). Source: syscall(2).
    """
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)
    function = prototype(("syscall", libc))

    def call(*arguments: Any) -> int:
        result: int = function(number(name), *arguments)
        if result == -1:
            error = ctypes.get_errno()
            raise OSError(error, f"{name}: {os.strerror(error)}")
        return result

    call.__name__ = name
    return call
