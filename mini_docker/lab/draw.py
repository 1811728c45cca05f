# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#draw-head
"""Pictures drawn from the machine: who shares which namespace, and graphs for other chapters.

A picture is SVG where graphviz' `dot` is installed, and always lines of text with the same facts.
Neither holds a number that changes from run to run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
COLOURS = ("#dbe9f6", "#fde0c5", "#d9efd7", "#eadcf0", "#fbd9d7", "#f6f0c4")


@dataclass(frozen=True, repr=False)
class Picture:
    """A picture: `source` in graphviz' dot language, and `text` that says the same in lines."""

    source: str
    text: str

    def __repr__(self) -> str:
        """Return the text."""
        return self.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        svg = self.svg()
        return {"text/plain": self.text, **({"image/svg+xml": svg} if svg else {})}

    def svg(self) -> str | None:
        """Return the drawing as an <svg> element, or None where `dot` is not installed."""
        dot = shutil.which("dot")
        if dot is None:
            return None
        run = subprocess.run([dot, "-Tsvg"], input=self.source, capture_output=True, text=True)
        # Prolog and comments name the version of graphviz.
        return re.sub(r"<!--.*?-->\n?", "", run.stdout[run.stdout.find("<svg") :], flags=re.DOTALL)


# %% notebooks/A_lab_kit.ipynb#draw-namespaces
def namespaces_of(pid: int | str = "self") -> dict[str, int]:
    """Return the namespaces of a process: {"pid": inode number, "mnt": ...}, from /proc/PID/ns.

    Raises FileNotFoundError for a pid that is not there, PermissionError for one we may not look at.
    """
    found = {}
    for kind in KINDS:
        path = f"/proc/{pid}/ns/{kind}"
        if os.path.lexists(path) or kind == "pid":  # a kernel may lack a kind; none lacks pid
            found[kind] = int(re.sub(r"\D", "", os.readlink(path)))
    return found


def draw_namespaces(
    processes: Mapping[str, int | str], kinds: Sequence[str] = ("pid", "mnt")
) -> Picture:
    """Draw which namespaces living processes share: {"host shell": "self", "container": pid}."""
    members = {label: namespaces_of(pid) for label, pid in processes.items()}
    return draw_membership(members, kinds)


def draw_membership(
    members: Mapping[str, Mapping[str, int]], kinds: Sequence[str] | None = None
) -> Picture:
    """Draw memberships that were collected with `namespaces_of`: {label: {kind: inode number}}.

    `kinds` defaults to all kinds that every member has. Letters stand for the inode numbers.
    """
    common = set.intersection(*(set(spaces) for spaces in members.values()))
    chosen = [kind for kind in (kinds or KINDS) if kind in common]
    groups = {kind: group(members, kind) for kind in chosen}
    return Picture(membership_dot(members, groups), membership_text(groups))


def group(members: Mapping[str, Mapping[str, int]], kind: str) -> dict[str, list[str]]:
    """Return {letter: labels} for one kind of namespace; letters in the order of first appearance."""
    spaces: dict[int, list[str]] = {}
    for label, own in members.items():
        spaces.setdefault(own[kind], []).append(label)
    return {chr(ord("A") + index): labels for index, labels in enumerate(spaces.values())}


def membership_text(groups: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Return one line a kind, such as `pid     A: host shell   B: container`."""
    return "\n".join(
        f"{kind:<7} " + "   ".join(f"{letter}: {', '.join(who)}" for letter, who in spaces.items())
        for kind, spaces in groups.items()
    )


def membership_dot(
    members: Iterable[str], groups: Mapping[str, Mapping[str, Sequence[str]]]
) -> str:
    """Return the dot source: processes on the left, namespaces on the right, a line for "is in"."""
    lines = [f"  {quote(label)} [shape=box];" for label in members]
    for kind, spaces in groups.items():
        for index, (letter, labels) in enumerate(spaces.items()):
            node = quote(f"{kind} {letter}")
            colour = COLOURS[index % len(COLOURS)]
            lines.append(f'  {node} [shape=ellipse, style=filled, fillcolor="{colour}"];')
            lines += [f"  {quote(label)} -> {node} [arrowhead=none];" for label in labels]
    return digraph(lines)


# %% notebooks/A_lab_kit.ipynb#draw-graph
def draw_graph(
    nodes: Mapping[str, str] | Sequence[str],
    edges: Iterable[tuple[str, ...]],
    groups: Mapping[str, Sequence[str]] | None = None,
    direction: str = "LR",
) -> Picture:
    """Draw boxes and arrows.

    `nodes` are names, or {name: label}; `edges` are (from, to) or (from, to, label); `groups` are
    {title: names} and become frames; `direction` is graphviz' rankdir.
    """
    labels = dict(nodes) if isinstance(nodes, Mapping) else {name: name for name in nodes}
    arrows = [(*edge, "")[:3] for edge in edges]
    lines = [f"  {quote(name)} [shape=box, label={quote(text)}];" for name, text in labels.items()]
    for index, (title, names) in enumerate((groups or {}).items()):
        inside = " ".join(f"{quote(name)};" for name in names)
        lines.append(f"  subgraph cluster_{index} {{ label={quote(title)}; {inside} }}")
    lines += [f"  {quote(a)} -> {quote(b)} [label={quote(text)}];" for a, b, text in arrows]
    return Picture(digraph(lines, direction), graph_text(labels, arrows, groups or {}))


def graph_text(
    labels: Mapping[str, str],
    arrows: Sequence[tuple[str, ...]],
    groups: Mapping[str, Sequence[str]],
) -> str:
    """Return the graph as lines: the boxes that say more than a name, the frames, the arrows, the rest."""
    name = {key: label.split("\n")[0] for key, label in labels.items()}
    touched = {key for a, b, _ in arrows for key in (a, b)}.union(*groups.values())
    lines = [label.replace("\n", ": ", 1) for label in labels.values() if "\n" in label]
    lines = [line.replace("\n", " ") for line in lines]
    lines += [f"[{title}] {', '.join(name[key] for key in keys)}" for title, keys in groups.items()]
    lines += [f"{name[a]} -> {name[b]}" + (f"   ({text})" if text else "") for a, b, text in arrows]
    alone = [key for key in labels if key not in touched and "\n" not in labels[key]]
    return "\n".join(lines + [name[key] for key in alone])


def digraph(lines: Iterable[str], direction: str = "LR") -> str:
    """Wrap dot statements into a directed graph in the book's style."""
    head = f'  rankdir={direction}; node [fontname="sans-serif", fontsize=11];'
    edge = '  edge [fontname="sans-serif", fontsize=10, color="#555555"];'
    frame = '  graph [fontname="sans-serif", fontsize=11, color="#999999", style=rounded];'
    return "\n".join(["digraph {", head, edge, frame, *lines, "}", ""])


def quote(text: str) -> str:
    """Return `text` as a quoted string of the dot language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
