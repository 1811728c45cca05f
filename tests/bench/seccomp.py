"""What Docker's seccomp policy costs: to compile, to take from the cache, to install, at each system call.

    /usr/bin/python3 tests/bench/seccomp.py

Prints numbers, asserts nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mini_docker.linux.process import PR_SET_NO_NEW_PRIVS, prctl, seccomp_set_filter
from mini_docker.security.capabilities import DEFAULT
from mini_docker.security.compiler import compile_policy
from mini_docker.security.policy import default_policy
from mini_docker.security.seccomp import cached_program

MACHINE = os.uname().machine
BATCHES, CALLS = 20, 10_000


def milliseconds(call: Callable[[], object], rounds: int = 30) -> float:
    """Return the median of `rounds` calls."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def nanoseconds_a_call() -> float:
    """Return what getppid(2) takes in the quickest of some batches, Python's loop included."""
    getppid = ctypes.CDLL(None).getppid
    times = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(CALLS):
            getppid()
        times.append((time.perf_counter() - began) / CALLS * 1e9)
    return min(times)


def under(program: bytes) -> tuple[float, float]:
    """Return (milliseconds to install a program, nanoseconds a call under it), measured in a child."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        began = time.perf_counter()
        seccomp_set_filter(program, 4)
        install = (time.perf_counter() - began) * 1e3
        os.write(write_fd, f"{install} {nanoseconds_a_call()}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    words = os.read(read_fd, 100).split()
    return float(words[0]), float(words[1])


def main() -> None:
    document = default_policy(list(DEFAULT), MACHINE)
    program = compile_policy(document)
    print(f"{len(program) // 8} instructions for {', '.join(document['architectures'])}")
    print(f"compile      {milliseconds(lambda: compile_policy(document)):6.2f} ms")
    with tempfile.TemporaryDirectory() as directory:
        cached_program(directory, document, json.dumps)
        cached = milliseconds(lambda: cached_program(directory, document, json.dumps))
    print(f"from cache   {cached:6.2f} ms")
    install, call = under(program)
    print(f"install      {install:6.2f} ms")
    print(f"a call       {nanoseconds_a_call():6.0f} ns bare, {call:.0f} ns under the filter")


if __name__ == "__main__":
    main()
