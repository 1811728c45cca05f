"""Solutions of chapters 15, 15b and 15c, and the wrong answers that their checks must recognise."""

from __future__ import annotations

import re

from exercises.ch15 import check_guard, check_pools, check_publish, check_shop
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


def guard() -> str:
    """Return nft commands that leave port 8080 to 203.0.113.9 alone."""
    return guarded(
        "forward",
        "meta l4proto tcp ct original proto-dst 8080 ct direction original ip saddr != 203.0.113.9 drop",
    )


def guard_input() -> str:
    """Wrong: the packet is not for the host any more."""
    return guarded("input", "tcp dport 8080 ip saddr != 203.0.113.9 drop")


def guard_port() -> str:
    """Wrong: port 80 is everybody's."""
    return guarded("forward", "tcp dport 80 ip saddr != 203.0.113.9 drop")


def guard_all() -> str:
    """Wrong: the answers are dropped as well."""
    return guarded("forward", "meta l4proto tcp ct original proto-dst 8080 drop")


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
            (guard_all, "cannot come in any more"),
        ],
    ),
]
