# Exported from notebooks/19e_dashboard.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19e_dashboard.ipynb#dashboard-module
"""A dashboard of containers: rows with live numbers, buttons, and the end of a log; a client of the API."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from mini_docker.cli.client import Client
from mini_docker.cli.errors import CommandError
from mini_docker.cli.stats import cpu_percent, memory_used
from mini_docker.cli.streams import Frames
from mini_docker.cli.text import binary_size
from mini_docker.lab.live import Live, show, widgets

POINTS = 30  # samples that a curve shows, one a second
STOP_SECONDS = 2  # of grace, when somebody is looking


# %% notebooks/19e_dashboard.ipynb#dashboard-rows
class Row(NamedTuple):
    """A container, as one line says it: `cpu` in percent of one processor, oldest first; memory in bytes."""

    id: str
    name: str
    image: str
    state: str
    status: str
    cpu: tuple[float, ...] = ()
    memory: int = 0


class Meter:
    """Remembers each container's last sample, because a share is a difference."""

    def __init__(self) -> None:
        """Begin without a sample."""
        self.last: dict[str, dict[str, Any]] = {}
        self.cpu: dict[str, deque[float]] = {}

    def rows(self, client: Client) -> list[Row]:
        """Return a row for each container, by name; numbers for those that run. Raises CommandError."""
        listed = client.json("GET", "/containers/json", {"all": True})
        here = {one["Id"] for one in listed}
        for gone in set(self.last) - here:
            del self.last[gone], self.cpu[gone]
        return sorted((self._row(client, one) for one in listed), key=lambda row: row.name)

    def _row(self, client: Client, one: dict[str, Any]) -> Row:
        name = one["Names"][0].lstrip("/")
        row = Row(one["Id"], name, one["Image"], one["State"], one["Status"])
        if row.state != "running":
            return row
        try:
            sample = client.json(
                "GET", f"/containers/{row.id}/stats", {"stream": "0", "one-shot": "1"}
            )
        except CommandError:
            return row  # it ended since it was listed
        curve = self.cpu.setdefault(row.id, deque(maxlen=POINTS))
        before = self.last.get(row.id, {}).get("cpu_stats", {})
        curve.append(cpu_percent({**sample, "precpu_stats": before}) if before else 0.0)
        self.last[row.id] = sample
        return row._replace(cpu=tuple(curve), memory=memory_used(sample.get("memory_stats") or {}))


def log_tail(client: Client, container: str, lines: int = 12) -> str:
    """Return the last lines that a container wrote, both streams together. Raises CommandError."""
    tty = client.json("GET", f"/containers/{container}/json")["Config"]["Tty"]
    query = {"stdout": True, "stderr": True, "tail": str(lines)}
    data = client.call("GET", f"/containers/{container}/logs", query).read()
    text = data if tty else b"".join(piece for _, piece in Frames().feed(data))
    return text.decode("utf-8", "replace")


# %% notebooks/19e_dashboard.ipynb#dashboard-html
LIGHTS = {"running": "#2e7d32", "paused": "#b26a00", "restarting": "#b26a00", "exited": "#777777"}
VERBS = {"running": ("stop", "pause", "restart"), "paused": ("unpause",), "restarting": ("stop",)}
AT_REST = ("start", "remove")
ROW = "display:flex;align-items:center;gap:6px;height:32px;margin-right:8px;white-space:nowrap"
CELL = "flex:none;overflow:hidden;text-overflow:ellipsis;text-align:"


def verbs(state: str) -> tuple[str, ...]:
    """Return what one may ask of a container in a state."""
    return (*VERBS.get(state, AT_REST), "logs")


def curve(points: Sequence[float]) -> str:
    """Return a small curve as SVG, its top at the highest point but not below 10."""
    top = max(10.0, *points, 0.0)
    dots = " ".join(f"{2 * i},{18 - 16 * y / top:.1f}" for i, y in enumerate(points))
    line = f'<polyline points="{dots}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>'
    return f'<svg width="{2 * POINTS}" height="20">{line}</svg>'


def row_html(row: Row) -> str:
    """Return a row as HTML; what the container chose itself is escaped."""
    colour = LIGHTS.get(row.state, "#777777")
    numbers = (f"{row.cpu[-1]:.1f} %", binary_size(row.memory)) if row.cpu else ("", "")
    cells = [
        (f'<span style="color:{colour}">●</span> <b>{escape(row.name)}</b>', 6, "left"),
        (escape(row.image), 5, "left"),
        (escape(row.status), 14, "left"),
        (curve(row.cpu) if row.cpu else "", 5, "left"),
        (numbers[0], 4, "right"),
        (numbers[1], 5, "right"),
    ]
    inside = "".join(
        f'<span style="{CELL}{side};width:{em}em">{text}</span>' for text, em, side in cells
    )
    names = f'data-name="{escape(row.name)}" data-state="{escape(row.state)}"'
    return f'<div {names} style="{ROW}">{inside}</div>'


def log_html(name: str, text: str) -> str:
    """Return the end of a log as HTML."""
    style = "background:#f6f6f6;padding:6px;min-height:3em;max-height:15em;overflow:auto;margin:0"
    return f'<pre data-log="{escape(name)}" style="{style}">{escape(text)}</pre>'


# %% notebooks/19e_dashboard.ipynb#dashboard-act
def act(client: Client, verb: str, container: str) -> None:
    """Do what a button says. Raises CommandError in the daemon's words."""
    if verb == "remove":
        client.call("DELETE", f"/containers/{container}", {"v": True}).read()
        return
    query = {"t": str(STOP_SECONDS)} if verb in ("stop", "restart") else {}
    client.call("POST", f"/containers/{container}/{verb}", query).read()


# %% notebooks/19e_dashboard.ipynb#dashboard
class Dashboard:
    """The window: a widget for each row, one for the log, one sentence on top."""

    def __init__(self, host: str = "", name: str = "dashboard") -> None:
        """Show the daemon at `host`, or the one that the docker command speaks to, until `close`."""
        self.host = host
        self.meter = Meter()
        self.library = widgets(name)
        self.lines: dict[str, Line] = {}
        self.chosen = ""
        self.said = ""
        self.top, self.log = self.library.HTML(), self.library.HTML()
        self.rows = self.library.VBox([])
        self.box = self.library.VBox([self.top, self.rows, self.log], model_id=name)
        self.live = Live(host, self.look)

    def look(self, client: Client | None) -> None:
        """Fetch what is true, and change what differs. Raises CommandError."""
        if client is None:
            self.top.value = "no daemon answers"
            return
        rows = self.meter.rows(client)
        running = sum(row.state in ("running", "paused") for row in rows)
        text = f"{len(rows)} containers, {running} running. {self.said}"
        self.top.value = f"<b>{escape(text)}</b>"
        old = self.lines
        self.lines = {row.id: old.get(row.id) or Line(self, row) for row in rows}
        for row in rows:
            self.lines[row.id].show(row)
        if list(old) != list(self.lines):
            self.rows.children = [line.box for line in self.lines.values()]
        self._look_at_log(client, rows)

    def _look_at_log(self, client: Client, rows: list[Row]) -> None:
        names = {row.id: row.name for row in rows}
        if self.chosen not in names:
            self.chosen = next(iter(names), "")
        if self.chosen:
            name = names[self.chosen]
            title = f"<div>log of <b>{escape(name)}</b></div>"
            self.log.value = title + log_html(name, log_tail(client, self.chosen))
        else:
            self.log.value = ""

    def press(self, verb: str, container: str) -> None:
        """Do what a button says; a refusal becomes the sentence on top."""
        self.said = ""
        self.chosen = container
        try:
            if verb != "logs":
                act(self.live.client(), verb, container)
        except CommandError as error:
            self.said = str(error)
        self.live.again.set()

    def close(self) -> None:
        """End the threads; the widget stays as it was last."""
        self.live.close()

    def show(self) -> None:
        """Display the window below the cell that is running."""
        show(self.box, "(a dashboard: containers, buttons, a log)")


class Line:
    """A row's widgets, which change only where the row has."""

    def __init__(self, window: Dashboard, row: Row) -> None:
        """Make the widgets of a container."""
        self.window = window
        self.state = ""
        self.id = row.id
        self.text = window.library.HTML()
        self.buttons = window.library.HBox([])
        line = {"align_items": "center", "border_bottom": "1px solid #e6e6e6"}
        self.box = window.library.HBox([self.text, self.buttons], layout=line)

    def show(self, row: Row) -> None:
        """Show a row; its buttons are those of its state."""
        self.text.value = row_html(row)
        if row.state != self.state:
            self.state = row.state
            self.buttons.children = [self._button(verb, row.name) for verb in verbs(row.state)]

    def _button(self, verb: str, name: str) -> Any:
        layout = {"width": "68px", "padding": "0"}
        button = self.window.library.Button(
            description=verb, tooltip=f"{verb} {name}", layout=layout
        )
        button.on_click(lambda _: self.window.press(verb, self.id))
        return button
