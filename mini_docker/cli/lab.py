# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#lab-module
"""The commands of the lab: prepare, check and clean up this machine. They speak to no daemon."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.command import Command
from mini_docker.cli.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#lab
def data_root(call: Call) -> str:
    """Return where images and containers are kept; "" is the default."""
    return call.settings.one("data-root") or os.environ.get("MINI_DOCKER_ROOT", "")


def setup(call: Call, parsed: Parsed) -> int:
    """Make the embedded image, and unpack it, so that the first run is as fast as the second."""
    from mini_docker.cli.inprocess import open_engine
    from mini_docker.images.busybox import install_busybox
    from mini_docker.images.layout import ImageError
    from mini_docker.images.unpack import unpack_layer

    store = open_engine(data_root(call)).store
    try:
        with store.lock():
            install_busybox(store.layout)
            image = store.layout.image("busybox")
            for layer, diff_id in zip(
                image.layers, image.config["rootfs"]["diff_ids"], strict=True
            ):
                unpack_layer(store.layout, layer, diff_id, f"{store.root}/layers")
    except ImageError as error:
        raise CommandError(f"mini_docker: {error}") from None
    print(f"image busybox:latest is ready in {store.root} ({image.digest[7:19]})")
    return 0


def doctor(call: Call, parsed: Parsed) -> int:
    """Become the lab's doctor: as Docker's plugins, it is a program of its own."""
    launcher = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
        "runpy.run_module('mini_docker.lab.doctor', run_name='__main__', alter_sys=True)"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.stdout.flush()
    words = ["--json"] if parsed.on("json") else []
    return os.execv(sys.executable, [sys.executable, "-c", launcher, root, *words])


def reset(call: Call, parsed: Parsed) -> int:
    """Remove every container, network and control group of ours; twice is the same as once."""
    from mini_docker.cli.inprocess import open_engine

    removed = open_engine(data_root(call)).reset()
    print("".join(f"removed {line}\n" for line in removed) or "nothing to remove\n", end="")
    return 0


# %% notebooks/G_object_commands.ipynb#lab-table
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
        "Remove all containers and networks of ours; images stay",
        "",
        reset,
        0,
        0,
        ("reset",),
    ),
)
