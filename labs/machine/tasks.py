"""Children that die with us, and long steps that show that they live."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SIGN_OF_LIFE = 5.0  # seconds


class Trouble(Exception):
    """What went wrong and what to do, in words for the person who called."""


def say(text: str, end: str = "\n") -> None:
    """Print progress: to stderr, for stdout belongs to the command in the machine."""
    print(text, end=end, file=sys.stderr, flush=True)


def guarded(argv: Sequence[str | Path]) -> list[str]:
    """Return `argv` such that the kernel kills it when we die, kill -9 included."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, argv)]


def contained(argv: Sequence[str | Path]) -> list[str]:
    """Return `argv` in its own mounts and processes: whatever it mounts or starts ends with it."""
    return [*"unshare --mount --pid --fork --kill-child=KILL --mount-proc".split(), *map(str, argv)]


def start(
    argv: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a guarded child that reads nothing, writes to the end of `log` and hears no Ctrl-C."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            guarded(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the child to end, insist after 5 s, reap it."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_lines(log: Path, count: int = 12) -> str:
    """Return the end of `log`, indented; nothing, if there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "".join(f"\n    {line.rstrip()}" for line in lines[-count:])


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print `title ... 12.3 s` around a step."""
    began = time.monotonic()
    say(f"{title} ... ", end="")
    try:
        yield
    except BaseException:
        say(f"failed ({time.monotonic() - began:.1f} s)")
        raise
    say(f"{time.monotonic() - began:.1f} s")


def pulse() -> Iterator[None]:
    """Wait a tenth of a second at each `next`, and print a dot every 5 s."""
    shown = time.monotonic()
    while True:
        if time.monotonic() - shown >= SIGN_OF_LIFE:
            shown = time.monotonic()
            say(".", end="")
        time.sleep(0.1)
        yield


def run_logged(argv: Sequence[str | Path], log: Path, limit: float) -> None:
    """Run `argv` contained, its words in `log`; Trouble when it fails or takes more than `limit` s."""
    with open(log, "ab") as output:
        output.write(f"\n$ {' '.join(map(str, argv))}\n".encode())
    process = start(contained(argv), log)
    try:
        wait(process, time.monotonic() + limit)
        if process.returncode != 0:
            raise Trouble(f"{Path(argv[0]).name} failed:{last_lines(log)}\nThe whole log: {log}")
    finally:
        end(process)


def wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    """Wait for the child with a sign of life; Trouble at the deadline (time.monotonic())."""
    beat = pulse()
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise Trouble("it takes too long. Remedy: is the network up? Then run it again")
        next(beat)


def birth(pid: int) -> int | None:
    """Return when process `pid` started, in clock ticks since boot; None if there is no such process.

    A number alone may have gone to somebody else: pid and birth together name one process, proc_pid_stat(5).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(name: str) -> bool:
    """Tell whether the process called "PID-BIRTH" (see `own_name`) is still there."""
    pid, _, born = name.partition("-")
    return pid.isdecimal() and born == str(birth(int(pid)))


def own_name() -> str:
    """Return "PID-BIRTH" of the calling process."""
    return f"{os.getpid()}-{birth(os.getpid())}"
