"""labs/vm: arguments to exit status. 125 is a failure of ours, everything else the command's own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from labs.machine import resident
from labs.machine.box import make_box
from labs.machine.image import built_image, ensure_image
from labs.machine.machine import Machine, clear_stale, hardware, shut_off
from labs.machine.settings import ROOT, Settings, read_settings
from labs.machine.tasks import Trouble, birth, say

FAILED = 125
ABOUT = """\
The labs' virtual machine, without Vagrant: Debian packages, booted by qemu, this checkout at /book.

  labs/vm build [--again]   make the image; a second call finds it
  labs/vm run COMMAND       run a shell command in a fresh machine, or in the one that is up; its exit status
  labs/vm shell             look around in there
  labs/vm up [--with PID]   keep a machine up, until "down" or until the process PID ends
  labs/vm down              take it down
  labs/vm status            what is there
  labs/vm box               make build/mini_docker.box of the image, for Vagrant with libvirt

A fresh machine forgets what it wrote to its own disk; /book is this checkout. A failure of the machine, and
not of the command, is exit status 125.
"""
SETTINGS = """\
settings, with what holds without them:
  MINI_DOCKER_VM_CACHE=/var/cache/mini_docker/vm   where images are kept
  MINI_DOCKER_VM_ACCEL=auto                        kvm, tcg (software emulation), auto: see which works
  MINI_DOCKER_VM_CPUS=2   MINI_DOCKER_VM_MEMORY=4096 (MB)
  MINI_DOCKER_VM_PORT=                             a port of 127.0.0.1 that leads to the machine's 8888
  MINI_DOCKER_VM_LIMIT=3600                        seconds for a command, then machine and all are stopped
  MINI_DOCKER_VM_BOOT_LIMIT=300                    seconds for the start
  MINI_DOCKER_VM_VIRTIOFSD=                        the program that shares /book; set to nothing: copy it
"""


def build(settings: Settings, words: list[str]) -> int:
    """Make the image, or say that it is there."""
    again = words == ["--again"]
    expect_no(words[again:])
    if (image := built_image(settings.cache)) and not again:
        say(f"image: already there ({image})")
    else:
        ensure_image(settings.cache, again)
    return 0


def run(settings: Settings, words: list[str]) -> int:
    """Run the command in the machine that is up, or in one of its own."""
    command = " ".join(words).strip()
    if not command:
        raise Trouble("run what? labs/vm run 'uname -r'")
    return run_somewhere(settings, command)


def shell(settings: Settings, words: list[str]) -> int:
    """Give a login shell in the machine."""
    expect_no(words)
    return run_somewhere(settings, "exec bash -l")


def run_somewhere(settings: Settings, command: str) -> int:
    """Run `command` in the machine that is up, or in a fresh one."""
    if found := resident.find_resident(settings):
        return resident.run_in_resident(found, settings, command)
    hardware()
    image = ensure_image(settings.cache)
    with Machine(image, settings) as machine:
        machine.boot()
        return machine.run(command, settings.limit)


def up(settings: Settings, words: list[str]) -> int:
    """Boot a machine that stays up; with `--with PID` until that process ends."""
    pid = words.pop() if len(words) == 2 and words[0] == "--with" and words[1].isdecimal() else ""
    expect_no(words[bool(pid) :])
    until = f"{pid}-{birth(int(pid))}" if pid else ""
    if resident.find_resident(settings):
        say("machine: already up")
        return 0
    hardware()
    resident.bring_up(ensure_image(settings.cache), settings, until)
    return 0


def down(settings: Settings, words: list[str]) -> int:
    """Take down the machine that is up."""
    expect_no(words)
    if found := resident.find_resident(settings):
        shut_off(found.name)
        say("machine: down")
    else:
        say("machine: none is up")
    clear_stale(settings.run)
    return 0


def status(settings: Settings, words: list[str]) -> int:
    """Say what is there; 1 if no machine is up."""
    expect_no(words)
    image, found = built_image(settings.cache), resident.find_resident(settings)
    print(f"image: {image or 'not built (labs/vm build)'}")
    print(
        f"machine: up, ssh at 127.0.0.1:{found.port}, {found.root}"
        if found
        else "machine: none is up"
    )
    return 0 if found else 1


def box(settings: Settings, words: list[str]) -> int:
    """Make a Vagrant box of the image."""
    expect_no(words)
    make_box(ensure_image(settings.cache), ROOT / "build" / "mini_docker.box")
    return 0


def expect_no(words: list[str]) -> None:
    """Raise Trouble if there are words left over."""
    if words:
        raise Trouble(f"what is {words[0]!r}? See labs/vm --help")


VERBS = {
    "build": build,
    "run": run,
    "shell": shell,
    "up": up,
    "down": down,
    "status": status,
    "box": box,
}


def main(arguments: Sequence[str]) -> int:
    """Do what `arguments` say; return the exit status."""
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        print(ABOUT, SETTINGS, sep="\n", end="")
        return 0
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)
    os.umask(0o022)
    try:
        return call(arguments[0], list(arguments[1:]))
    except Trouble as trouble:
        if words := str(trouble):
            say(f"labs/vm: {words}")
    except KeyboardInterrupt:
        say("\nlabs/vm: interrupted")
        return 130
    except OSError as error:
        say(f"labs/vm: {error}")
    return FAILED


def call(verb: str, words: list[str]) -> int:
    """Do one verb."""
    if verb not in VERBS:
        expect_no([verb])
    if os.geteuid() != 0:
        raise Trouble(f"this needs root: sudo labs/vm {verb}")
    return VERBS[verb](read_settings(), words)


def terminate(number: int, frame: object) -> NoReturn:
    """Leave by the way that cleans up."""
    sys.exit(128 + number)
