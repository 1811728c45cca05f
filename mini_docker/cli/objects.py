# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#objects-module
"""The small commands: ps, rm, images, setup, doctor, reset, version."""

from __future__ import annotations

import os
import sys
import time

from mini_docker.cli.flags import UsageError, switch
from mini_docker.cli.main import CommandError, open_engine, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


# %% notebooks/19_command_line.ipynb#ps
def command_ps(data_root: str, arguments: list[str]) -> int:
    """List containers: the running ones, or all with -a."""
    flags = (
        switch("all", "Show all containers (default shows just running)", "a"),
        switch("quiet", "Only display container IDs", "q"),
        switch("no-trunc", "Don't truncate output"),
    )
    parsed = read("ps", "[OPTIONS]", flags, arguments)
    if parsed is None:
        return 0
    store = open_engine(data_root).store
    alive = store.running()
    records = sorted(store.records(), key=lambda record: -float(record["Created"]))
    shown = [record for record in records if parsed.on("all") or record["Id"] in alive]
    width = 64 if parsed.on("no-trunc") else 12
    if parsed.on("quiet"):
        print("".join(f"{record['Id'][:width]}\n" for record in shown), end="")
        return 0
    rows = [_container_row(record, width, record["Id"] in alive) for record in shown]
    print(
        columns(("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"), rows),
        end="",
    )
    return 0


def _container_row(record: dict[str, Any], width: int, alive: bool) -> tuple[str, ...]:
    words = " ".join(record["Command"])
    command = words if width == 64 or len(words) <= 20 else words[:19] + "…"
    state = record["State"]
    if alive:
        status = f"Up {ago(state.get('At', record['Created']))}"
    elif state["Status"] == "created":
        status = "Created"
    else:
        status = f"Exited ({state['ExitCode']}) {ago(state['At'])} ago"
    created = f"{ago(record['Created'])} ago"
    image = record["Image"].removesuffix(":latest")
    return (record["Id"][:width], image, f'"{command}"', created, status, "", record["Name"])


def ago(moment: float) -> str:
    """Return how long ago `moment` (seconds since 1970) was, in Docker's words: "5 minutes", go-units."""
    seconds = int(time.time() - moment)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{seconds} second{'s' * (seconds > 1)}"
    if seconds < 3600:
        return "About a minute" if seconds < 120 else f"{seconds // 60} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for unit, length, until in (("days", 24, 336), ("weeks", 168, 1440), ("months", 720, 17520)):
        if hours < until:
            return f"{hours // length} {unit}"
    return f"{hours // 24 // 365} years"


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Docker prints it: left-aligned, three spaces between columns."""
    table = [heads, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    lines = (
        "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
    return "".join(f"{line}\n" for line in lines)


# %% notebooks/19_command_line.ipynb#small-commands
def command_rm(data_root: str, arguments: list[str]) -> int:
    """Remove containers; each that cannot be removed is an error line, and the status is 1."""
    from mini_docker.engine.store import Conflict, NoSuchContainer

    flags = (switch("force", "Force the removal of a running container (uses SIGKILL)", "f"),)
    parsed = read("rm", "[OPTIONS] CONTAINER [CONTAINER...]", flags, arguments)
    if parsed is None:
        return 0
    if not parsed.words:
        raise UsageError("'mini_docker rm' requires at least 1 argument")
    engine = open_engine(data_root)
    status = 0
    for reference in parsed.words:
        try:
            engine.remove(reference, parsed.on("force"))
            print(reference)
        except NoSuchContainer as error:
            status = status if parsed.on("force") else 1
            print(f"Error response from daemon: {error}", file=sys.stderr)
        except Conflict as error:
            status = 1
            print(f"Error response from daemon: {error}", file=sys.stderr)
    return status


def command_images(data_root: str, arguments: list[str]) -> int:
    """List the images of the store."""
    from mini_docker.images.layout import ImageError

    parsed = read("images", "", (switch("quiet", "Only show image IDs", "q"),), arguments)
    if parsed is None:
        return 0
    layout = open_engine(data_root).store.layout
    rows = []
    try:
        for name in layout.names():
            image = layout.image(name)
            repository, _, tag = name.rpartition(":")
            size = sum(layer.size for layer in image.layers)
            rows.append(
                (repository, tag, image.digest.partition(":")[2][:12], f"{size / 1e6:.3g}MB")
            )
    except ImageError as error:
        raise CommandError(str(error)) from None
    if parsed.on("quiet"):
        print("".join(f"{row[2]}\n" for row in rows), end="")
    else:
        print(columns(("REPOSITORY", "TAG", "IMAGE ID", "SIZE"), rows), end="")
    return 0


def command_setup(data_root: str, arguments: list[str]) -> int:
    """Make the embedded image, and unpack it, so that the first run is as fast as the second."""
    from mini_docker.images.busybox import install_busybox
    from mini_docker.images.layout import ImageError
    from mini_docker.images.unpack import unpack_layer

    if read("setup", "", (), arguments) is None:
        return 0
    store = open_engine(data_root).store
    try:
        with store.lock():
            install_busybox(store.layout)
            image = store.layout.image("busybox")
            for layer, diff_id in zip(
                image.layers, image.config["rootfs"]["diff_ids"], strict=True
            ):
                unpack_layer(store.layout, layer, diff_id, f"{store.root}/layers")
    except ImageError as error:
        raise CommandError(str(error)) from None
    print(f"image busybox:latest is ready in {store.root} ({image.digest[7:19]})")
    return 0


def command_doctor(data_root: str, arguments: list[str]) -> int:
    """Become the lab's doctor: as Docker's plugins, it is a program of its own."""
    json = switch("json", "Print the checks as JSON")
    if read("doctor", "[OPTIONS]", (json,), arguments) is None:
        return 0
    launcher = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
        "runpy.run_module('mini_docker.lab.doctor', run_name='__main__', alter_sys=True)"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.stdout.flush()
    return os.execv(sys.executable, [sys.executable, "-c", launcher, root, *arguments])


def command_daemon(data_root: str, arguments: list[str]) -> int:
    """Become the daemon, which needs what the launcher leaves out: the machine's h11."""
    launcher = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); "
        "from mini_docker.api.daemon import main; sys.exit(main(sys.argv[1:]))"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [sys.executable, "-E", "-c", launcher, root]
    words += ["--data-root", data_root] if data_root else []
    sys.stdout.flush()
    return os.execv(sys.executable, [*words, *arguments])


def command_reset(data_root: str, arguments: list[str]) -> int:
    """Remove every container, network and control group of ours; twice is the same as once."""
    if read("reset", "", (), arguments) is None:
        return 0
    removed = open_engine(data_root).reset()
    print("".join(f"removed {line}\n" for line in removed) or "nothing to remove\n", end="")
    return 0


def command_version(data_root: str, arguments: list[str]) -> int:
    """Print the version."""
    if read("version", "", (), arguments) is None:
        return 0
    from mini_docker import __version__

    print(f"mini_docker version {__version__}")
    return 0
