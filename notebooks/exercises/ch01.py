"""Checks of chapter 1: numbers are spied on, and processes really wait, end and are counted."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.syscall import MACHINE, libc

Call = Callable[[int], int]
GETTID = {"x86_64": 186, "aarch64": 178}
STRANGERS = ("riscv64", "s390x", "")
PATIENCE = 0.3  # seconds that the answer is told to wait


class Spy:
    """A syscall(2) that calls nothing: it writes the numbers down and returns what we can recognise."""

    RESULT = 4242

    def __init__(self) -> None:
        """Begin with an empty list."""
        self.numbers: list[int] = []

    def __call__(self, number: int) -> int:
        """Note the number."""
        self.numbers.append(number)
        return self.RESULT


def _diagnose_number(answer: Callable[[str, Call], int], machine: str) -> str:
    """Return what is wrong with the answer for a machine that we know, or ""."""
    spy = Spy()
    result = answer(machine, spy)
    if not spy.numbers:
        return f"on {machine} no system call was made: the answer came from somewhere else"
    if spy.numbers != [GETTID[machine]]:
        made = ", ".join(str(number) for number in spy.numbers)
        return f"on {machine} you made call number {made}, and there that is not gettid"
    if result != Spy.RESULT:
        return f"the kernel answered {Spy.RESULT} and your function returned {result}"
    return ""


def _diagnose_stranger(answer: Callable[[str, Call], int], machine: str) -> str:
    """Return what is wrong with the answer for a machine that nobody told it about, or ""."""
    spy = Spy()
    try:
        answer(machine, spy)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            return f"for machine '{machine}' the error is {error!r}: its errno does not say ENOSYS"
    except Exception as error:
        return f"for machine '{machine}' it raised {type(error).__name__}, which is not an OSError"
    else:
        return f"for machine '{machine}' there was no error"
    if spy.numbers:
        return f"for machine '{machine}' call {spy.numbers[0]} was made, whatever it is there"
    return ""


def _in_a_thread(answer: Callable[[str, Call], int]) -> tuple[int, int]:
    """Return (what the answer says, the truth) in a thread that is not the first."""
    found: list[tuple[int, int]] = []

    def ask() -> None:
        found.append((answer(MACHINE, libc.syscall), threading.get_native_id()))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


@check
def check_gettid(answer: Callable[[str, Call], int]) -> Verdict:
    """Check `answer(machine, call)` by spies for each machine, then by the kernel in a second thread."""
    diagnoses = [_diagnose_number(answer, machine) for machine in GETTID]
    diagnoses += [_diagnose_stranger(answer, machine) for machine in STRANGERS]
    if wrong := [words for words in diagnoses if words]:
        return failed(wrong[0])
    said, truth = _in_a_thread(answer)
    if said != truth:
        return failed(f"in a second thread the kernel knows another id than you return ({said})")
    return passed(
        "the right number on both machines, nothing called on a third, and the kernel agrees"
    )


def _child(act: Callable[[], object]) -> int:
    """Fork a child that acts and then waits for ever."""
    pid = os.fork()
    if pid == 0:
        act()
        signal.pause()
    return pid


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _ends(answer: Callable[[int, float], int | None]) -> str:
    """Return what is wrong with the answer for children that end, or ""."""
    for act, code in (
        (lambda: os._exit(7), 7),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 137),
    ):
        pid = _child(act)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        said = answer(pid, 5.0)
        if said != code:
            return f"a child ended and a shell would show {code} for it; you returned {said}"
        if os.path.exists(f"/proc/{pid}"):
            return "the child that ended is still in /proc: it was never reaped"
    return ""


def _ends_later(answer: Callable[[int, float], int | None]) -> str:
    """Return what is wrong with the answer for a child that ends while it is waited for, or ""."""
    pid = _child(lambda: (time.sleep(0.1), os._exit(3)))
    said = answer(pid, 5.0)
    return "" if said == 3 else f"a child ended with 3 while you waited; you returned {said}"


def _wanted() -> float:
    """Return the seconds in which this thread ran or wanted to: on a busy machine, a loop waits for its turn."""
    with open("/proc/thread-self/schedstat") as file:
        ran, waited, _ = map(int, file.read().split())
    return (ran + waited) / 1e9


def _stays(answer: Callable[[int, float], int | None]) -> str:
    """Return what is wrong with the answer for a child that does not end, or ""."""
    pid = _child(lambda: None)
    began, cpu, wanted = time.monotonic(), time.process_time(), _wanted()
    said = answer(pid, PATIENCE)
    took, burnt = time.monotonic() - began, time.process_time() - cpu
    wanted = _wanted() - wanted - max(0.0, took - PATIENCE)  # who wakes up has to wait, too
    with open(f"/proc/{pid}/stat") as file:
        state = file.read().rpartition(") ")[2][0]
    if state == "Z":
        return "the child had not ended, and after your function it is dead: waiting must not kill"
    if said is not None:
        return f"the child still runs, and you returned {said} for it"
    if took < PATIENCE * 0.9:
        return f"told to wait {PATIENCE} s for a child that runs, you gave up earlier"
    if took > PATIENCE + 2:
        return f"told to wait {PATIENCE} s for a child that runs, you came back seconds later"
    if burnt > PATIENCE / 10 or wanted > PATIENCE / 2:
        return "while waiting, the processor was busy with your loop most of the time"
    return ""


def _wait_for(answer: Callable[[int, float], int | None]) -> str:
    """Return the first thing that is wrong, or ""."""
    fds = _open_fds()
    wrong = _ends(answer) or _stays(answer) or _ends_later(answer)
    if not wrong and _open_fds() > fds:
        wrong = (
            "after your calls more descriptors are open than before: each wait leaves one behind"
        )
    return wrong


@check
def check_wait_for(answer: Callable[[int, float], int | None]) -> Verdict:
    """Check `answer(pid, seconds)` with children that end, one that is killed and one that stays."""
    outcome = run_in_child(_wait_for, answer, timeout=15.0)
    if outcome.timed_out:
        return failed("your function did not come back: it waits for ever for a child that runs")
    if outcome.error:
        return failed(f"your function raised {outcome.error}")
    if outcome.value is None:
        return failed("your function ended the process that called it")
    if outcome.value:
        return failed(outcome.value)
    return passed("in time, reaped, nothing left open, nobody killed")
