# Exported from notebooks/09b_seccomp.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09b_seccomp.ipynb#seccomp-module
"""Seccomp: the document's linux.seccomp as a step, compiled here or brought along."""

from __future__ import annotations

import errno
import os
from binascii import crc32

from mini_docker.linux.process import seccomp_set_filter
from mini_docker.linux.step import Step
from mini_docker.linux.syscall import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# a machine's own ABI first, then those of older programs that it runs too; OCI's names
NATIVE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
TSYNC, NEW_LISTENER, WAIT_KILLABLE_RECV = 1, 8, 32
NOTIFY = "SCMP_ACT_NOTIFY"


# %% notebooks/09b_seccomp.ipynb#plan-seccomp
def filter_flags(document: dict[str, Any]) -> int:
    """Return linux.seccomp.flags as bits; without any, SPEC_ALLOW as runc has it. Raises ValueError.

    SPEC_ALLOW: no slowing protection against speculative reads just because of this filter. A filter that
    asks a listener returns its descriptor, so TSYNC, which returns something else and does nothing for
    one thread, is left out; WAIT_KILLABLE_RECV means nothing to any other filter. Source: seccomp(2).
    """
    flags = document.get("flags")
    if flags is None:
        flags = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",)
    for index, flag in enumerate(flags):
        if flag not in FLAGS:
            words = ", ".join(FLAGS)
            raise ValueError(f"linux.seccomp.flags[{index}]: '{flag}' is none of {words}")
    bits = sum(FLAGS[flag] for flag in set(flags))
    return bits & ~TSYNC | NEW_LISTENER if asks_listener(document) else bits & ~WAIT_KILLABLE_RECV


def has_seccomp_flag(bit: int) -> bool:
    """Ask the kernel whether it knows a flag: it looks at the flags first, then for a program, seccomp(2)."""
    listener = NEW_LISTENER if bit == WAIT_KILLABLE_RECV else 0
    try:
        seccomp_set_filter(None, bit | listener)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


def asks_listener(document: dict[str, Any]) -> bool:
    """Say whether a policy lets somebody outside decide. Raises ValueError if it does not say who.

    Source: OCI config-linux.md "Seccomp", listenerPath and listenerMetadata.
    """
    if document.get("listenerMetadata") and not document.get("listenerPath"):
        raise ValueError("linux.seccomp.listenerMetadata: needs a listenerPath")
    if not any(entry.get("action") == NOTIFY for entry in document.get("syscalls") or ()):
        return False
    if not document.get("listenerPath"):
        raise ValueError("linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs one")
    return True


def plan_seccomp(spec: dict[str, Any], program: bytes | None = None) -> list[Step]:
    """Plan linux.seccomp: one program, installed for this thread and all that come from it.

    `program` is what compile_policy made of the same document, where a caller has kept it. With
    process.noNewPrivileges it is the last step of all; else it needs CAP_SYS_ADMIN, and so comes before
    the capabilities go. Raises ValueError. Source: OCI config-linux.md, seccomp(2).
    """
    document = spec.get("linux", {}).get("seccomp")
    if not document:
        return []
    if program is None:
        from mini_docker.security.compiler import compile_policy

        program = compile_policy(document)
    arguments = (program, filter_flags(document))
    return [Step("filter system calls", seccomp_set_filter, arguments)]


# %% notebooks/09b_seccomp.ipynb#cached-program
# what of a policy its program depends on
COMPILED = ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")


def cached_program(
    directory: str,
    document: dict[str, Any],
    dumps: Callable[[Any], str],
    machine: str = MACHINE,
) -> bytes:
    """Return the program for linux.seccomp from `directory`, compiled and put there the first time.

    A file holds, by `dumps`, what it was made of, and is believed only if that is the same. Its name is a
    checksum: of two documents with the same one, the later keeps the file. Raises ValueError, OSError.
    """
    key = dumps([machine, *(document.get(name) for name in COMPILED)]).encode() + b"\n"
    path = f"{directory}/{crc32(key):08x}"
    try:
        with open(path, "rb") as file:
            found = file.read()
        if found.startswith(key):
            return found[len(key) :]
    except FileNotFoundError:
        os.makedirs(directory, 0o700, exist_ok=True)
    from mini_docker.linux.files import write_atomically
    from mini_docker.security.compiler import compile_policy

    program = compile_policy(document, machine)
    write_atomically(path, key + program)  # many may do so at once
    return program
