# Exported from notebooks/H_the_command_itself.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/H_the_command_itself.ipynb#draw-module
"""`draw`: networks, layers and namespaces as pictures, from what the daemon says of them."""

from __future__ import annotations

from collections import namedtuple

from mini_docker.cli.client import quote
from mini_docker.cli.command import Command
from mini_docker.cli.errors import CommandError
from mini_docker.cli.text import decimal_size, ellipsis, quoted, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple

    from mini_docker.cli.client import Client
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed

    class Frame(NamedTuple):
        """A box of a picture: its title, and a row (name, what is said of it) for each thing inside."""

        title: str
        rows: list[tuple[str, str]]

else:
    Frame = namedtuple("Frame", ("title", "rows"))


# %% notebooks/H_the_command_itself.ipynb#draw-look
def network_frames(client: Client, names: list[str]) -> list[Frame]:
    """Return a box for each network: its subnets, and the containers in it with their addresses."""
    frames = []
    for one in client.json("GET", "/networks"):
        if names and one["Name"] not in names:
            continue
        whole = client.json("GET", f"/networks/{one['Id']}")
        pools = [pool.get("Subnet", "") for pool in (whole.get("IPAM") or {}).get("Config") or []]
        members = sorted((whole.get("Containers") or {}).values(), key=lambda m: str(m["Name"]))
        rows = [(m["Name"], m.get("IPv4Address", "").partition("/")[0]) for m in members]
        frames.append(Frame(" ".join([one["Name"], one["Driver"], *pools]), rows))
    missing = set(names) - {frame.title.split()[0] for frame in frames}
    if missing:
        raise CommandError(f"network {sorted(missing)[0]} not found")
    return sorted(frames)


def layer_frames(client: Client, names: list[str]) -> list[Frame]:
    """Return a box for each image: what made each layer, and its size; the newest on top."""
    found = names or [
        name for one in client.json("GET", "/images/json") for name in one.get("RepoTags") or []
    ]
    frames = []
    for name in found:
        history = client.json("GET", f"/images/{quote(name, '/:@')}/history")
        rows = [
            (
                ellipsis(quoted(one.get("CreatedBy", ""))[1:-1], 50) or "-",
                decimal_size(one["Size"], 3),
            )
            for one in history
        ]
        frames.append(Frame(name, rows))
    return frames


# which word of HostConfig says what a container shares, and what it means when it is empty
KINDS = {
    "network": ("NetworkMode", "default"),
    "pid": ("PidMode", ""),
    "ipc": ("IpcMode", "private"),
    "uts": ("UTSMode", ""),
    "user": ("UsernsMode", "host"),
    "cgroup": ("CgroupnsMode", "private"),
}


def namespace_frames(client: Client, names: list[str]) -> list[Frame]:
    """Return a box for each running container: which of its namespaces are its own."""
    found = names or [one["Id"] for one in client.json("GET", "/containers/json")]
    frames = []
    for name in found:
        one = client.json("GET", f"/containers/{quote(name)}/json")
        config = one["HostConfig"]
        rows = [(kind, _whose(config.get(key) or usual)) for kind, (key, usual) in KINDS.items()]
        frames.append(Frame(f"{one['Name'].strip('/')} {short_id(one['Id'])}", rows))
    return frames


def _whose(mode: str) -> str:
    """Return whose a namespace is, from the mode of a container."""
    if mode == "host":
        return "the host's"
    if mode.startswith("container:"):
        return f"that of {mode.partition(':')[2][:12]}"
    return (
        "its own"
        if mode in ("", "default", "private", "shareable", "none", "bridge")
        else f"in {mode}"
    )


# %% notebooks/H_the_command_itself.ipynb#draw-show
def as_text(frames: list[Frame]) -> str:
    """Return boxes drawn with the characters that terminals have for it."""
    lines = []
    for title, rows in frames:
        left = max((len(name) for name, _ in rows), default=0)
        inside = [f"{name.ljust(left)}  {said}".rstrip() for name, said in rows] or ["(nobody)"]
        width = max(len(title) + 2, *map(len, inside)) + 2
        lines.append(f"┌─ {title} {'─' * (width - len(title) - 3)}┐")
        lines += [f"│ {line.ljust(width - 1)}│" for line in inside]
        lines.append(f"└{'─' * width}┘")
    return "".join(f"{line}\n" for line in lines)


def as_dot(frames: list[Frame]) -> str:
    """Return the source of a graph for graphviz: a node for each box, an edge to each thing inside.

    A thing with the same name in two boxes is one node, so that a container joins its networks.
    """
    lines = [
        "graph {",
        "  rankdir=LR; node [shape=box, fontname=sans]; edge [fontname=sans, fontsize=10]",
    ]
    for title, rows in frames:
        lines.append(f"  {_dot(title)} [style=rounded]")
        lines += [f"  {_dot(title)} -- {_dot(name)} [label={_dot(said)}]" for name, said in rows]
    return "\n".join([*lines, "}"]) + "\n"


def _dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def as_svg(frames: list[Frame]) -> str:
    """Return the graph as SVG, by graphviz' dot(1). Raises CommandError when it is not there."""
    import subprocess

    try:
        done = subprocess.run(
            ["dot", "-Tsvg"], input=as_dot(frames), capture_output=True, text=True
        )
    except FileNotFoundError:
        raise CommandError("dot is not installed; remedy: apt-get install graphviz") from None
    if done.returncode:
        raise CommandError(f"dot: {done.stderr.strip()}")
    return done.stdout


# %% notebooks/H_the_command_itself.ipynb#draw
SUBJECTS: dict[str, Callable[[Client, list[str]], list[Frame]]] = {
    "networks": network_frames,
    "layers": layer_frames,
    "namespaces": namespace_frames,
}
DRAW_FLAGS = """
    --dot  Print the source of the graph for graphviz
    --svg  Print the graph as SVG
"""


def draw(call: Call, parsed: Parsed) -> int:
    """Draw what the first word says, of all objects or of those that are named."""
    subject, *names = parsed.words
    if subject not in SUBJECTS:
        raise CommandError(f"cannot draw {subject!r}; there are: {', '.join(SUBJECTS)}")
    frames = SUBJECTS[subject](call.client, names)
    show = as_svg if parsed.on("svg") else as_dot if parsed.on("dot") else as_text
    print(show(frames), end="")
    return 0


# %% notebooks/H_the_command_itself.ipynb#draw-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "draw",
        "[OPTIONS] networks|layers|namespaces [NAME...]",
        "Draw networks, layers of images, or namespaces of containers",
        DRAW_FLAGS,
        draw,
        1,
        None,
        ("draw networks", "draw layers busybox", "draw --svg namespaces web > web.svg"),
    ),
)
