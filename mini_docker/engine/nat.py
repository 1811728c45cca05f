# Exported from notebooks/15b_ports.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15b_ports.ipynb#nat-table
"""The one table of packet rules of a data root, written anew from the records at each change."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NamedTuple

    from mini_docker.engine.ports import Binding

    class Segment(NamedTuple):
        """A network as the rules see it: its bridge, its subnets, and whether packets may leave it."""

        bridge: str
        subnets: tuple[str, ...]
        internal: bool
        masquerade: bool

    class Target(NamedTuple):
        """A container with published ports: its addresses ("" for none) on its bridge."""

        bridge: str
        ipv4: str
        ipv6: str
        bindings: tuple[Binding, ...]

else:
    Segment = namedtuple("Segment", ("bridge", "subnets", "internal", "masquerade"))
    Target = namedtuple("Target", ("bridge", "ipv4", "ipv6", "bindings"))

# What happens to a packet, in this order:
#
#   raw           from a bridge to 127.0.0.0/8: dropped (route_localnet would let it in)
#   prerouting    to an address of the host: `published` may give it another destination
#   output        the same for what the host itself sends
#   forward       who may pass from link to link
#   postrouting   whose source becomes the host's


def table(name: str, segments: Sequence[Segment], targets: Iterable[Target]) -> str:
    """Return the nft commands that put the table of these networks in place of an older one, nft(8).

    One transaction: no packet ever meets half of it. Pure.
    """
    bridges = ", ".join(f'"{segment.bridge}"' for segment in segments)
    published = [line for target in targets for line in published_rules(target)]
    chains = {
        "raw": [
            "type filter hook prerouting priority raw; policy accept;",
            "iifname @bridges ip daddr 127.0.0.0/8 drop",
        ],
        "published": ["ip6 daddr ::1 return", *published],
        "prerouting": ["type nat hook prerouting priority dstnat; policy accept;", TO_HOST],
        "output": ["type nat hook output priority -100; policy accept;", TO_HOST],
        "forward": forward_rules(segments),
        "postrouting": postrouting_rules(segments),
    }
    elements = f"elements = {{ {bridges} }}; " if bridges else ""
    lines = [f"set bridges {{ type ifname; {elements}}}"]
    for chain, contents in chains.items():
        lines += [f"chain {chain} {{", *(f"    {line}" for line in contents), "}"]
    body = "\n".join(f"    {line}" for line in lines)
    return f"table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{body}\n}}\n"


TO_HOST = "fib daddr type local jump published"


# %% notebooks/15b_ports.ipynb#nat-rules
def published_rules(target: Target) -> list[str]:
    """Return a rule for each published port: the destination becomes the container's."""
    lines = []
    for binding in target.bindings:
        six = ":" in binding.host_ip
        family, ip = ("ip6", target.ipv6) if six else ("ip", target.ipv4)
        if not ip:
            continue
        to = f"[{ip}]:{binding.port}" if six else f"{ip}:{binding.port}"
        every = binding.host_ip in ("0.0.0.0", "::")
        where = (
            f"meta nfproto ipv{6 if six else 4}" if every else f"{family} daddr {binding.host_ip}"
        )
        port = f"{binding.protocol} dport {binding.host_port}"
        lines.append(f"{where} {port} dnat {family} to {to}")
    return lines


def forward_rules(segments: Iterable[Segment]) -> list[str]:
    """Return who may pass: neighbours, answers, what was published, and out; nobody else comes in.

    An internal network has no way out and none in. A `drop` in any table is final, while an `accept`
    ends the search in its own chain only.
    """
    lines = ["type filter hook forward priority filter; policy accept;"]
    for segment in segments:
        bridge = f'"{segment.bridge}"'
        lines.append(f"iifname {bridge} oifname {bridge} accept")
        if segment.internal:
            lines += [f"iifname {bridge} drop", f"oifname {bridge} drop"]
    return [
        *lines,
        "oifname @bridges ct state established,related accept",
        "oifname @bridges ct status dnat accept",
        "oifname @bridges drop",
    ]


def postrouting_rules(segments: Iterable[Segment]) -> list[str]:
    """Return whose source is rewritten: what leaves for the world, and what has to come back by us.

    Two kinds of the latter: a neighbour on the same bridge who came by a published port (the answer would
    go past the host, and nobody would know it), and the host's own loopback, which no other machine can
    answer. (IPv6 lets nothing from ::1 leave the host: there, a client is refused and takes 127.0.0.1.)
    """
    lines = ["type nat hook postrouting priority srcnat; policy accept;"]
    for segment in segments:
        if segment.internal:
            continue
        for subnet in segment.subnets:
            family = "ip6" if ":" in subnet else "ip"
            source = f"{family} saddr {subnet}"
            if segment.masquerade:
                lines.append(f'{source} oifname != "{segment.bridge}" masquerade')
            lines.append(f'{source} oifname "{segment.bridge}" ct status dnat masquerade')
    return [
        *lines,
        "oifname @bridges ip saddr 127.0.0.0/8 masquerade",
    ]
