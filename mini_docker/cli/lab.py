# Exported from notebooks/H_the_command_itself.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/H_the_command_itself.ipynb#lab-module
"""The commands of the lab: prepare, check and clean up this machine. They speak to no daemon."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.command import Command
from mini_docker.cli.context import data_root
from mini_docker.cli.daemon import LAUNCHER, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/H_the_command_itself.ipynb#lab
def upkeep(action: str, call: Call) -> int:
    """Become the program that looks after a data root: as Docker's plugins, it is no part of the client."""
    words = program(LAUNCHER.format("mini_docker.engine.upkeep"))
    sys.stdout.flush()
    return os.execv(words[0], [*words, action, data_root(call.settings.values)])


def setup(call: Call, parsed: Parsed) -> int:
    """Make the embedded image, so that the first run is as fast as the second."""
    return upkeep("setup", call)


def doctor(call: Call, parsed: Parsed) -> int:
    """Become the lab's doctor: as Docker's plugins, it is a program of its own."""
    words = program(LAUNCHER.format("mini_docker.lab.doctor"))
    sys.stdout.flush()
    return os.execv(words[0], [*words, *(["--json"] if parsed.on("json") else [])])


def reset(call: Call, parsed: Parsed) -> int:
    """Remove every container, network and control group of ours, and end the daemon; twice is as once."""
    return upkeep("reset", call)


# %% notebooks/H_the_command_itself.ipynb#lab-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "setup",
        "",
        "Make the embedded image from this machine's busybox",
        "",
        setup,
        0,
        0,
        ("setup",),
    ),
    Command(
        "doctor",
        "[OPTIONS]",
        "Show which chapters can run on this machine, and why not",
        "--json  Print the checks as JSON",
        doctor,
        0,
        0,
        ("doctor", "doctor --json"),
    ),
    Command(
        "reset",
        "",
        "End the daemon, remove all containers and networks of ours; images and volumes stay",
        "",
        reset,
        0,
        0,
        ("reset",),
    ),
)
