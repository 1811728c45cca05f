# Exported from notebooks/09b_seccomp.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09b_seccomp.ipynb#filters-module
"""Seccomp programs from outside: run one on paper, print one, read the one that a process lives under."""

from __future__ import annotations

import ctypes
import functools
import operator
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TESTS = {0x15: operator.eq, 0x25: operator.gt, 0x35: operator.ge}
SIGNS = {0x15: "==", 0x25: ">", 0x35: ">=", 0x45: "&"}
VERDICTS = {
    0x00000000: "kill the thread",
    0x80000000: "kill the process",
    0x00030000: "trap",
    0x00050000: "errno",
    0x7FF00000: "trace",
    0x7FFC0000: "log",
    0x7FFF0000: "allow",
}


@functools.lru_cache(8)
def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return (code, jump if true, jump if false, k) of each instruction."""
    return list(struct.iter_unpack("=HBBI", program))


# %% notebooks/09b_seccomp.ipynb#run-filter
def run_filter(program: bytes, audit: int, number: int, arguments: Sequence[int] = ()) -> int:
    """Return a program's verdict about one system call, as the kernel would compute it.

    `audit` is the AUDIT_ARCH_*, `arguments` up to six numbers of 64 bits. Source: seccomp(2), bpf.h.
    """
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", number, audit, 0, *padded)
    code, at, accumulator = instructions(program), 0, 0
    while True:
        kind, if_true, if_false, k = code[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif kind == 0x54:
            accumulator &= k
        elif kind == 0x05:
            at += k
        elif kind == 0x45:
            at += if_true if accumulator & k else if_false
        elif kind == 0x06:
            return k
        else:
            at += if_true if TESTS[kind](accumulator, k) else if_false


# %% notebooks/09b_seccomp.ipynb#print-filter
def verdict_words(value: int) -> str:
    """Return a verdict as words: "allow", "errno 1"."""
    words = VERDICTS.get(value & 0xFFFF0000, f"{value:#x}")
    return f"{words} {value & 0xFFFF}" if words in ("errno", "trace") else words


def print_filter(program: bytes) -> None:
    """Print a program, an instruction a line, jumps with the line that they lead to."""
    for at, (code, if_true, if_false, k) in enumerate(instructions(program)):
        text = {
            0x20: f"load word at {k}",
            0x54: f"and {k:#x}",
            0x05: f"go to {at + 1 + k}",
            0x06: verdict_words(k),
        }.get(code)
        if text is None:
            text = f"{SIGNS[code]} {k:#x} ?  {at + 1 + if_true} : {at + 1 + if_false}"
        print(f"{at:4}  {text}")


# %% notebooks/09b_seccomp.ipynb#filter-of
PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SECCOMP_GET_FILTER = 16, 17, 0x420C


def filter_of(pid: int, index: int = 0) -> bytes:
    """Return the program that the process `pid` lives under, ptrace(2); the newest has index 0.

    Raises OSError: ENOENT if there is none, EACCES without CAP_SYS_ADMIN.
    """
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ptrace.restype = ctypes.c_long

    def call(request: int, address: int, buffer: object) -> int:
        result: int = ptrace(request, pid, address, buffer)
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"ptrace: {os.strerror(error)}")
        return result

    call(PTRACE_ATTACH, 0, None)
    try:
        os.waitpid(pid, getattr(os, "WUNTRACED", 0) | 0x40000000)  # __WALL: it is no child of ours
        count = call(PTRACE_SECCOMP_GET_FILTER, index, None)
        buffer = ctypes.create_string_buffer(8 * count)
        call(PTRACE_SECCOMP_GET_FILTER, index, buffer)
        return buffer.raw
    finally:
        call(PTRACE_DETACH, 0, None)
