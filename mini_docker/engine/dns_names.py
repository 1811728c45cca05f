# Exported from notebooks/15c_names.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15c_names.ipynb#dns-names-module
"""Who finds whom under which name: read from the files of networks, at the moment of the question."""

from __future__ import annotations

import json
import os
import random
import socket
import time

from mini_docker.engine.dns_messages import (
    AAAA,
    ANY,
    IN,
    NOERROR,
    NOTIMP,
    OPCODE,
    PTR,
    A,
    Question,
    address_of_pointer,
    answer,
    pack_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/15c_names.ipynb#dns-names
class Names:
    """Who has which name, read from the endpoints that chapter 15 writes; it keeps no state of its own."""

    def __init__(self, directory: str) -> None:
        """Name the network directory of the data root."""
        self.directory = directory
        self.cache: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def neighbours(self, container_id: str) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Return (the container's own endpoint, all endpoints) of each network that it is on."""
        found = []
        for network in sorted(_names(self.directory)):
            if os.path.exists(f"{self.directory}/{network}/endpoints/{container_id}"):
                endpoints = self._endpoints(network)
                own = [one for one in endpoints if one["Container"] == container_id]
                if own and own[0]["NetworkName"] != "bridge":
                    found.append((own[0], endpoints))
        return found

    def _endpoints(self, network: str) -> list[dict[str, Any]]:
        """Return the endpoints of a network; the directory's time says whether they changed.

        A change within the same tick of the clock would not show: what is younger than 20 ms is not kept.
        """
        path = f"{self.directory}/{network}/endpoints"
        try:
            changed = os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return []
        kept = self.cache.get(network)
        if kept and kept[0] == changed:
            return kept[1]
        found = [endpoint for name in sorted(_names(path)) if (endpoint := _read(f"{path}/{name}"))]
        if time.time_ns() - changed > 20_000_000:
            self.cache[network] = (changed, found)
        return found

    def addresses(self, container_id: str, name: str) -> tuple[list[str], list[str]] | None:
        """Return the IPv4 and IPv6 addresses of a name, in the eyes of a container; None for a stranger."""
        four: list[str] = []
        six: list[str] = []
        for own, endpoints in self.neighbours(container_id):
            wanted = name.removesuffix(f".{str(own['NetworkName']).lower()}")
            wanted = _links(own).get(wanted, wanted)
            for endpoint in endpoints:
                if wanted in _names_of(endpoint):
                    four += [endpoint["IPAddress"]] if endpoint["IPAddress"] else []
                    six += [endpoint["GlobalIPv6Address"]] if endpoint["GlobalIPv6Address"] else []
        return (four, six) if four or six else None

    def pointer(self, container_id: str, ip: str) -> str | None:
        """Return the name of an address: "web.front", the container's and its network's."""
        for own, endpoints in self.neighbours(container_id):
            for endpoint in endpoints:
                if ip in (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]):
                    return f"{endpoint['Name']}.{own['NetworkName']}"
        return None

    def has_way_out(self, container_id: str) -> bool:
        """Say whether a container is on a network that is not internal: only then it may ask the world."""
        return any(not own["Internal"] for own, _ in self.neighbours(container_id))


def _names_of(endpoint: dict[str, Any]) -> set[str]:
    names = [endpoint["Name"], *(endpoint["Aliases"] or ())]
    return {str(name).lower() for name in names}


def _links(endpoint: dict[str, Any]) -> dict[str, str]:
    """Return {alias: name} of a container's links on a network: "db:database", "web"."""
    pairs = (str(link).lower().strip("/").partition(":") for link in endpoint["Links"] or ())
    return {alias.rpartition("/")[2] or name: name for name, _, alias in pairs}


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = json.loads(file.read())
            return found
    except (OSError, ValueError):
        return None


# %% notebooks/15c_names.ipynb#dns-resolve
def resolve(names: Names, container_id: str, data: bytes, question: Question) -> bytes | None:
    """Return the answer to a query about our own names; None for one that is to be forwarded.

    A name of ours without an address of the asked kind is an empty answer and not a stranger: forwarded,
    it would come back as NXDOMAIN, and the client would give up before it asked for the other kind.
    """
    if question.flags & OPCODE:
        return answer(data, question, NOTIMP)
    if question.klass not in (IN, ANY):
        return None
    if question.type == PTR:
        ip = address_of_pointer(question.name)
        name = names.pointer(container_id, ip) if ip else None
        return answer(data, question, NOERROR, [(PTR, pack_name(name))]) if name else None
    found = names.addresses(container_id, question.name)
    if found is None:
        return None
    four, six = (random.sample(ips, len(ips)) for ips in found)
    records = [(A, socket.inet_aton(ip)) for ip in four if question.type in (A, ANY)]
    records += [
        (AAAA, socket.inet_pton(socket.AF_INET6, ip)) for ip in six if question.type in (AAAA, ANY)
    ]
    return answer(data, question, NOERROR, records)
