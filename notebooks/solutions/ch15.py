"""Solutions of chapters 15, 15b and 15c, and the wrong answers that their checks must recognise."""

from __future__ import annotations

import re

from exercises.ch15 import (
    check_guard,
    check_pools,
    check_publish,
    check_read_name,
    check_shop,
    check_who_knows,
)
from mini_docker.engine.ipam import overlap, parse_cidr
from mini_docker.engine.networks import Networks
from mini_docker.lab import Exercise

WEB, DATABASE = "a" * 64, "b" * 64


def pools_blank(used: list[str]) -> str | None:
    """The untouched exercise."""
    return None


def pools(used: list[str]) -> str | None:
    """Return the first /24 of 192.168.0.0/16 that is free."""
    taken = [parse_cidr(text) for text in used]
    for third in range(256):
        text = f"192.168.{third}.0/24"
        if not any(overlap(parse_cidr(text), subnet) for subnet in taken):
            return text
    return None


def pools_by_text(used: list[str]) -> str | None:
    """Wrong: compares texts."""
    texts = (f"192.168.{third}.0/24" for third in range(256))
    return next((text for text in texts if text not in used), None)


def pools_never_none(used: list[str]) -> str | None:
    """Wrong: goes on to another range."""
    return pools(used) or "10.0.0.0/24"


def shop_blank(networks: Networks, web_fd: int, database_fd: int) -> tuple[str, str]:
    """The untouched exercise."""
    return "", ""


def shop(networks: Networks, web_fd: int, database_fd: int) -> tuple[str, str]:
    """Connect the web server to two networks, the database to the internal one."""
    networks.create({"Name": "front"})
    networks.create({"Name": "back", "Internal": True})
    web = networks.attach_all(web_fd, WEB, "web", {"front": {}, "back": {}})
    database = networks.attach(database_fd, DATABASE, "database", "back")
    return web["front"]["IPAddress"], database["IPAddress"]


def shop_open(networks: Networks, web_fd: int, database_fd: int) -> tuple[str, str]:
    """Wrong: one open network for both."""
    networks.create({"Name": "front"})
    web = networks.attach(web_fd, WEB, "web", "front")
    database = networks.attach(database_fd, DATABASE, "database", "front")
    return web["IPAddress"], database["IPAddress"]


def shop_closed(networks: Networks, web_fd: int, database_fd: int) -> tuple[str, str]:
    """Wrong: one internal network for both."""
    networks.create({"Name": "back", "Internal": True})
    web = networks.attach(web_fd, WEB, "web", "back")
    database = networks.attach(database_fd, DATABASE, "database", "back")
    return web["IPAddress"], database["IPAddress"]


def shop_apart(networks: Networks, web_fd: int, database_fd: int) -> tuple[str, str]:
    """Wrong: no network in common."""
    networks.create({"Name": "front"})
    networks.create({"Name": "back", "Internal": True})
    web = networks.attach(web_fd, WEB, "web", "front")
    database = networks.attach(database_fd, DATABASE, "database", "back")
    return web["IPAddress"], database["IPAddress"]


def shop_guests(networks: Networks, web_fd: int, database_fd: int) -> tuple[str, str]:
    """Wrong: the web server is a guest too."""
    networks.create({"Name": "back", "Internal": True})
    web = networks.attach_all(web_fd, WEB, "web", {"guests": {}, "back": {}})
    database = networks.attach(database_fd, DATABASE, "database", "back")
    return web["guests"]["IPAddress"], database["IPAddress"]


def publish_blank(text: str) -> tuple[str, str, int, str]:
    """The untouched exercise."""
    return "", "", 0, ""


def publish(text: str) -> tuple[str, str, int, str]:
    """Return (host_ip, host_port, port, protocol) of a value of -p."""
    pattern = r"(?:(?:(\[[0-9a-f:]+\]|[0-9.]+):)?(\d*):)?(\d+)(?:/(tcp|udp|sctp))?"
    found = re.fullmatch(pattern, text)
    if not found or not 0 < int(found[3]) <= 65535:
        raise ValueError(f"invalid port specification: {text}")
    return (found[1] or "").strip("[]"), found[2] or "", int(found[3]), found[4] or "tcp"


def publish_split(text: str) -> tuple[str, str, int, str]:
    """Wrong: IPv6 addresses have colons too."""
    rest, _, protocol = text.partition("/")
    *front, port = rest.split(":")
    host_port = front.pop() if front else ""
    return ":".join(front), host_port, int(port), protocol or "tcp"


def publish_lax(text: str) -> tuple[str, str, int, str]:
    """Wrong: any word is a protocol."""
    bare, _, protocol = text.partition("/")
    return (*publish(bare)[:3], protocol or "tcp")


def guard_blank() -> str:
    """The untouched exercise."""
    return ""


def guarded(hook: str, rule: str) -> str:
    """Return a table with one chain of one rule."""
    chain = f"type filter hook {hook} priority filter; policy accept; {rule}"
    return f"table inet guard {{ chain c {{ {chain}; }}; }}\n"


VISIT = "meta l4proto tcp ct original proto-dst 8080 ct direction original"


def guard() -> str:
    """Return nft commands that leave port 8080 to 203.0.113.9 alone."""
    return guarded(
        "forward",
        f"ct status dnat {VISIT} ip saddr != 203.0.113.9 drop",
    )


def guard_input() -> str:
    """Wrong: the packet is not for the host any more."""
    return guarded("input", "tcp dport 8080 ip saddr != 203.0.113.9 drop")


def guard_out() -> str:
    """Wrong: who goes out to a port 8080 is no visitor."""
    return guarded("forward", f"{VISIT} ip saddr != 203.0.113.9 drop")


def guard_port() -> str:
    """Wrong: port 80 is everybody's."""
    return guarded("forward", "tcp dport 80 ip saddr != 203.0.113.9 drop")


def guard_all() -> str:
    """Wrong: the answers are dropped as well."""
    return guarded("forward", "meta l4proto tcp ct original proto-dst 8080 drop")


Shops = dict[str, dict[str, list[str]]]


def name_blank(data: bytes, offset: int) -> str:
    """The untouched exercise."""
    return ""


def read_name(data: bytes, offset: int) -> str:
    """Return the DNS name that starts at `offset`, compressed or not."""
    labels: list[str] = []
    size, jumps = 0, 0
    while True:
        if offset >= len(data):
            raise ValueError("no end")
        length = data[offset]
        if length == 0:
            return ".".join(labels)
        if length >= 192:
            jumps += 1
            if offset + 1 >= len(data) or jumps > 64:
                raise ValueError("pointers in a circle")
            offset = (length & 63) << 8 | data[offset + 1]
            continue
        size += 1 + length
        if length > 63 or size > 254 or offset + 1 + length > len(data):
            raise ValueError("too long")
        labels.append(data[offset + 1 : offset + 1 + length].decode("latin-1"))
        offset += 1 + length


def name_plain(data: bytes, offset: int) -> str:
    """Wrong: knows no pointers."""
    labels = []
    while data[offset]:
        labels.append(data[offset + 1 : offset + 1 + data[offset]].decode("latin-1"))
        offset += 1 + data[offset]
    return ".".join(labels)


def name_low_byte(data: bytes, offset: int) -> str:
    """Wrong: a pointer of eight bits."""
    if data[offset] >= 192:
        return read_name(data, data[offset + 1])
    return read_name(data, offset)


def name_trusting(data: bytes, offset: int) -> str:
    """Wrong: follows every pointer."""
    labels = []
    while offset < len(data) and data[offset]:
        if data[offset] >= 192:
            offset = (data[offset] & 63) << 8 | data[offset + 1]
            continue
        labels.append(data[offset + 1 : offset + 1 + data[offset]].decode("latin-1"))
        offset += 1 + data[offset]
    if offset >= len(data):
        raise ValueError("no end")
    return ".".join(labels)


def who_blank(networks: Shops, asker: str, name: str) -> list[str]:
    """The untouched exercise."""
    return []


def who_is(networks: Shops, asker: str, name: str) -> list[str]:
    """Return the containers that `asker` finds under `name`."""
    found = set()
    for network, members in networks.items():
        if asker in members:
            wanted = name.removesuffix(f".{network}")
            found |= {who for who, aliases in members.items() if wanted in (who, *aliases)}
    return sorted(found)


def who_everywhere(networks: Shops, asker: str, name: str) -> list[str]:
    """Wrong: looks at networks that the asker is not on."""
    pairs = [pair for members in networks.values() for pair in members.items()]
    return sorted({who for who, aliases in pairs if name in (who, *aliases)})


def who_first(networks: Shops, asker: str, name: str) -> list[str]:
    """Wrong: stops at the first network."""
    for members in networks.values():
        if asker in members:
            return sorted(who for who, aliases in members.items() if name in (who, *aliases))
    return []


def who_no_network(networks: Shops, asker: str, name: str) -> list[str]:
    """Wrong: knows no name.network."""
    return who_is(networks, asker, name) if "." not in name else []


EXERCISES = [
    Exercise(
        "pools",
        check_pools,
        blank=pools_blank,
        solution=pools,
        wrong=[(pools_by_text, "overlaps something"), (pools_never_none, "still found one")],
    ),
    Exercise(
        "shop",
        check_shop,
        blank=shop_blank,
        solution=shop,
        wrong=[
            (shop_open, "its network is not internal"),
            (shop_closed, "does not reach the world"),
            (shop_apart, "no network in common"),
            (shop_guests, "the guest reaches the shop"),
        ],
    ),
    Exercise(
        "publish",
        check_publish,
        blank=publish_blank,
        solution=publish,
        wrong=[(publish_split, "'[::1]:8080:80' means"), (publish_lax, "8080:80/icmp")],
    ),
    Exercise(
        "guard",
        check_guard,
        blank=guard_blank,
        solution=guard,
        wrong=[
            (guard_input, "passes `forward`"),
            (guard_port, "port 8081 is closed too"),
            (guard_out, "that is no visitor"),
            (guard_all, "cannot come in any more"),
        ],
    ),
    Exercise(
        "read_name",
        check_read_name,
        blank=name_blank,
        solution=read_name,
        wrong=[
            (name_plain, "a pointer to 'front'"),
            (name_low_byte, "a pointer has 14 bits"),
            (name_trusting, "for ever"),
        ],
    ),
    Exercise(
        "who_is",
        check_who_knows,
        blank=who_blank,
        solution=who_is,
        wrong=[
            (who_everywhere, "for who is there"),
            (who_first, "on several networks"),
            (who_no_network, "asks one network alone"),
        ],
    ),
]
