# Exported from notebooks/19e_dashboard.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19e_dashboard.ipynb#netmap-module
"""A map of the networks: containers, bridges, addresses, published ports, the way out; drawn from the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mini_docker.cli.client import Client
from mini_docker.lab.draw import COLOURS, Picture, digraph, graph_text, quote
from mini_docker.lab.live import Live, show, widgets

WORLD = "the world"


# %% notebooks/19e_dashboard.ipynb#netmap-look
class Network(NamedTuple):
    """A network: `ends` are (container, address) of those that run; `away`: there is a way out."""

    name: str
    driver: str
    subnets: tuple[str, ...]
    away: bool
    ends: tuple[tuple[str, str], ...]


class NetMap(NamedTuple):
    """What a map shows; `ports` are (host's end, container, container's end)."""

    networks: tuple[Network, ...]
    ports: tuple[tuple[str, str, str], ...]


def look_at_networks(client: Client, names: Sequence[str] = ()) -> NetMap:
    """Ask for the networks that have members or are named, and for published ports. Raises CommandError."""
    found = []
    for one in client.json("GET", "/networks"):
        network = network_of(client.json("GET", f"/networks/{one['Id']}"))
        if network.name in names if names else network.ends:
            found.append(network)
    members = {name for network in found for name, _ in network.ends}
    containers = client.json("GET", "/containers/json")
    ports = {port for one in containers for port in ports_of(one) if port[1] in members}
    return NetMap(tuple(sorted(found)), tuple(sorted(ports)))


def network_of(answer: dict[str, Any]) -> Network:
    """Return a network from `GET /networks/ID`."""
    pools = (answer.get("IPAM") or {}).get("Config") or []
    ends = []
    for end in (answer.get("Containers") or {}).values():
        addresses = [end.get("IPv4Address", ""), end.get("IPv6Address", "")]
        ends.append((end["Name"], "\n".join(a.partition("/")[0] for a in addresses if a)))
    return Network(
        answer["Name"],
        answer["Driver"],
        tuple(pool["Subnet"] for pool in pools),
        answer["Driver"] in ("bridge", "host") and not answer["Internal"],
        tuple(sorted(ends)),
    )


def ports_of(container: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the published ports of a container from `GET /containers/json`."""
    name = container["Names"][0].lstrip("/")
    found = []
    for port in container.get("Ports") or []:
        if port.get("PublicPort"):
            everywhere = port.get("IP", "") in ("0.0.0.0", "::", "")
            host = "" if everywhere else f"{port['IP']} "
            found.append(
                (f"{host}port {port['PublicPort']}", name, f"{port['PrivatePort']}/{port['Type']}")
            )
    return found


# %% notebooks/19e_dashboard.ipynb#netmap-draw
def draw_map(found: NetMap) -> Picture:
    """Draw a map: ports of the host on the left, networks and the way out on the right."""
    members = sorted({name for network in found.networks for name, _ in network.ends})
    labels = {f"port {host}": host for host, _, _ in found.ports}
    labels |= {f"container {name}": name for name in members}
    labels |= {
        f"network {n.name}": "\n".join([f"{n.name} ({n.driver})", *n.subnets])
        for n in found.networks
    }
    arrows = [(f"port {host}", f"container {name}", inside) for host, name, inside in found.ports]
    arrows += [
        (f"container {name}", f"network {n.name}", address)
        for n in found.networks
        for name, address in n.ends
    ]
    out = [(f"network {n.name}", WORLD, "") for n in found.networks if n.away]
    labels |= {WORLD: WORLD} if out else {}
    return Picture(map_dot(labels, arrows + out), graph_text(labels, arrows + out, {}))


SHAPES = {"port": "cds", "container": "box", "network": "ellipse", "the": "doubleoctagon"}
FILLS = dict(zip(SHAPES, COLOURS, strict=False))


def map_dot(labels: dict[str, str], arrows: Sequence[tuple[str, str, str]]) -> str:
    """Return the source for graphviz: the first word of a node's name says its shape and colour."""
    lines = []
    for name, label in labels.items():
        kind = name.split()[0]
        look = f'shape={SHAPES[kind]}, style=filled, fillcolor="{FILLS[kind]}"'
        lines.append(f"  {quote(name)} [label={quote(label)}, {look}];")
    lines += [f"  {quote(a)} -> {quote(b)} [label={quote(text)}];" for a, b, text in arrows]
    return digraph(lines)


# %% notebooks/19e_dashboard.ipynb#netmap
class NetworkMap:
    """The map as a widget, drawn again when it has changed."""

    def __init__(self, host: str = "", name: str = "network-map") -> None:
        """Show the networks of the daemon at `host` until `close`."""
        self.found: NetMap | None = None
        self.box = widgets(name).HTML(model_id=name)
        self.live = Live(host, self.look)

    def look(self, client: Client | None) -> None:
        """Ask for the networks; draw them if they are not as before. Raises CommandError."""
        found = None if client is None else look_at_networks(client)
        if found == self.found and self.box.value:
            return
        self.found = found
        picture = None if found is None else draw_map(found)
        self.box.value = "no daemon answers" if picture is None else picture_html(picture)

    def close(self) -> None:
        """End the threads; the map stays as it was last."""
        self.live.close()

    def show(self) -> None:
        """Display the map below the cell that is running."""
        show(self.box, "(a map of the networks)")


def picture_html(picture: Picture) -> str:
    """Return a picture for a page: the drawing, or its text where graphviz is not installed."""
    from html import escape

    return picture.svg() or f"<pre>{escape(picture.text)}</pre>"
