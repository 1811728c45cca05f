"""Checks of chapter 1: threads, children and clocks decide."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_gettid(answer: Callable[[], int]) -> Verdict:
    """Check a gettid by number."""
    if answer() != threading.get_native_id():
        return failed(f"in this thread the kernel's answer is another one than {answer()}")
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend((answer(), threading.get_native_id())))
    thread.start()
    thread.join()
    if len(seen) < 2:
        return failed("in a second thread your function raised an exception")
    if seen[0] == os.getpid():
        return failed("in a second thread you return the process's id: that is getpid")
    if seen[0] != seen[1]:
        return failed("in a second thread your answer is not the kernel's: was it remembered from the first?")
    return passed("two threads, two answers")


def _child(seconds: float, code: int) -> int:
    """Start a child that ends after `seconds` with `code`."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(code)
    return pid


def _end(pid: int) -> bool:
    """Kill and reap the child; return whether it was still there to be reaped."""
    try:
        alive = os.waitpid(pid, os.WNOHANG) == (0, 0)
        if alive:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        return alive
    except ChildProcessError:
        return False


@check
def check_wait_for(answer: Callable[[int, float], int | None]) -> Verdict:
    """Check a wait with a timeout."""
    pid = _child(60, 0)
    try:
        began = time.monotonic()
        result = answer(pid, 0.3)
        took = time.monotonic() - began
    finally:
        alive = _end(pid)
    if result is not None:
        return failed(f"the child still slept, and you returned {result!r}: None means not yet")
    if not alive:
        return failed("at the timeout the child was killed or reaped; it should have been left alone")
    if not 0.25 < took < 10:
        return failed(f"a timeout of 0.3 s took {took:.1f} s")
    pid = _child(0.2, 7)
    cpu, began = time.process_time(), time.monotonic()
    result = answer(pid, 30)
    busy = time.process_time() - cpu
    if result != 7:
        _end(pid)
        return failed(f"the child ended with 7, and you returned {result!r}")
    if time.monotonic() - began > 20:
        return failed("the child ended after 0.2 s, and you waited for the whole timeout")
    if _end(pid):
        return failed("the child has ended and is still a zombie: nobody waited for it")
    if busy > 0.15:
        return failed("you kept a CPU busy while waiting: that is a polling loop")
    return passed("the code in time, None when it is not, and no CPU burnt")
