"""The machine that stays up between commands: a process of its own holds it, and dies with it.

caller --fork--> holder: boots the machine, says so by a pipe, waits for SIGTERM
RUN/resident     "PID-BIRTH PORT", there from the moment that commands can be run
"""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from labs.machine.machine import Machine, run_by_ssh, shut_off
from labs.machine.settings import ROOT, Settings
from labs.machine.tasks import Trouble, is_alive, own_name, say


class Resident(NamedTuple):
    """The machine that is up."""

    name: str  # of the holding process, "PID-BIRTH"
    port: int
    root: Path  # the checkout it has


def note_of(settings: Settings) -> Path:
    """Return the file that says which machine is up."""
    return settings.run / "resident"


def find_resident(settings: Settings) -> Resident | None:
    """Return the machine that is up, if there is one. A note whose process is gone counts for nothing."""
    try:
        name, port, root = note_of(settings).read_text().split(" ", 2)
    except (FileNotFoundError, ValueError):
        return None
    return Resident(name, int(port), Path(root)) if is_alive(name) else None


def run_in_resident(resident: Resident, settings: Settings, command: str) -> int:
    """Run `command` in the machine that is up; when its time is over, the machine goes down with it."""
    if resident.root != ROOT:
        raise Trouble(
            f"the machine that is up has another checkout, {resident.root}. Remedy: labs/vm down"
        )
    directory = settings.run / resident.name
    try:
        status = run_by_ssh(directory, resident.port, command, settings.limit)
    except Trouble:
        shut_off(resident.name)
        raise
    if status == 255 and not is_alive(resident.name):
        raise Trouble("the machine went down while the command ran")
    return status


def bring_up(image: Path, settings: Settings, until: str = "") -> None:
    """Boot a machine that stays, or goes when the process `until` ends; return when it takes commands."""
    ready, says_ready = os.pipe()
    caller_lives, caller = os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(ready)
        os.close(caller)
        hold(image, settings, says_ready, caller_lives, until)
    os.close(says_ready)
    os.close(caller_lives)
    if os.read(ready, 1) != b"!":
        os.waitpid(holder, 0)
        raise Trouble("")  # the holder has said why


def hold(image: Path, settings: Settings, says_ready: int, caller_lives: int, until: str) -> None:
    """Be the holder, to the end of the process; what the caller had open, a lock for instance, is let go."""
    os.setsid()
    kept = sorted((2, says_ready, caller_lives))
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    status = 0
    try:
        with Machine(image, settings) as machine:
            machine.boot(wanted=lambda: is_wanted(caller_lives, until))
            write_note(settings, machine.port)
            os.write(says_ready, b"!")
            go_quiet(says_ready)
            while machine.is_up() and (not until or is_alive(until)):
                time.sleep(0.2)
    except Trouble as trouble:
        say(str(trouble))
        status = 125
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
        status = 125
    finally:
        if (found := find_resident(settings)) and found.name == own_name():
            note_of(settings).unlink()
        os._exit(status)


def is_wanted(caller_lives: int, until: str) -> bool:
    """Tell whether the caller still waits, at the other end of a pipe, and the process `until` lives."""
    gone = select.select([caller_lives], [], [], 0)[0]
    return not gone and (not until or is_alive(until))


def write_note(settings: Settings, port: int) -> None:
    """Say in RUN/resident that the calling process holds a machine."""
    note = note_of(settings)
    new = note.with_name(f"new-{own_name()}")
    new.write_text(f"{own_name()} {port} {ROOT}")
    new.rename(note)


def go_quiet(says_ready: int) -> None:
    """Let go of the caller's terminal and pipes."""
    os.close(says_ready)
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
