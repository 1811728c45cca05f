# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#network-files
"""The files of all networks of a data root: their records, the leased addresses, the containers' ends."""

from __future__ import annotations

import fcntl
import json
import os

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import NoSuchNetwork
from mini_docker.engine.ipam import Subnet, parse_cidr
from mini_docker.linux.files import write_atomically
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Record = dict[str, Any]

# NETWORK DIRECTORY
#   lock                      held for every change
#   ID/network.json           the record of a network, written last when it is made, removed first
#   ID/leases/IP -> CONTAINER an address and whose it is
#   ID/endpoints/CONTAINER    a container's end: addresses, names, ports, the name of its cable
#
# Each step towards a connection is one of these files or one message to the kernel, and each can be undone
# by whoever finds it: a lease and an endpoint carry the container's id, a cable is named in the endpoint.


class NetworkFiles:
    """What the disk knows of networks. Each change is made under the lock; a reader needs none."""

    def __init__(self, directory: str) -> None:
        """Name the directory; it is made when something is written."""
        self.directory = directory

    def locked(self) -> Locked:
        """Return the lock of all networks, for a `with` statement."""
        return Locked(f"{self.directory}/lock")

    def ids(self) -> list[str]:
        """Return the names of all networks' directories, half-made ones too."""
        return [name for name in names(self.directory) if len(name) == 64]

    # --- networks

    def records(self) -> list[Record]:
        """Return the records of all networks, the oldest first; a half-made one is none."""
        found = map(self.read, self.ids())
        return sorted((record for record in found if record), key=lambda record: record["Created"])

    def read(self, network_id: str) -> Record | None:
        """Return a network's record; None where it is not there, or not whole."""
        return read_json(f"{self.directory}/{network_id}/network.json")

    def write(self, record: Record) -> None:
        """Write a network's record, after its directories. Raises OSError."""
        home = f"{self.directory}/{record['Id']}"
        for name in ("leases", "endpoints"):
            os.makedirs(f"{home}/{name}", mode=0o700, exist_ok=True)
        write_atomically(f"{home}/network.json", json.dumps(record).encode(), 0o600)

    def disown(self, network_id: str) -> None:
        """Remove a network's record: from now on the network is a half-made one."""
        remove_file(f"{self.directory}/{network_id}/network.json")

    def erase(self, network_id: str) -> None:
        """Remove all files of a network, its record first."""
        self.disown(network_id)
        remove_tree(f"{self.directory}/{network_id}")

    def find(self, reference: str) -> Record:
        """Return the record of the network with this id, name or unique start of an id.

        Raises NoSuchNetwork, InvalidRequest (ambiguous).
        """
        reference = "bridge" if reference == "default" else reference
        records = self.records()
        for key in ("Id", "Name"):
            for record in records:
                if record[key] == reference:
                    return record
        found = [record for record in records if reference and record["Id"].startswith(reference)]
        if len(found) > 1:
            matches = f"{len(found)} matches found based on ID prefix"
            raise InvalidRequest(f"network {reference} is ambiguous ({matches})")
        if not found:
            raise NoSuchNetwork(f"network {reference} not found")
        return found[0]

    def subnets(self) -> list[Subnet]:
        """Return the subnets of all networks."""
        return [parse_cidr(pool["Subnet"]) for record in self.records() for pool in record["Pools"]]

    # --- endpoints

    def endpoint_path(self, network_id: str, container_id: str) -> str:
        """Return where a container's end of a network is written."""
        return f"{self.directory}/{network_id}/endpoints/{container_id}"

    def endpoint(self, network_id: str, container_id: str) -> Record | None:
        """Return a container's end of a network, if it has one."""
        return read_json(self.endpoint_path(network_id, container_id))

    def write_endpoint(self, endpoint: Record) -> None:
        """Write an endpoint, or write it anew. Raises OSError."""
        write_json(self.endpoint_path(endpoint["NetworkID"], endpoint["Container"]), endpoint)

    def ends(self, network_id: str) -> list[str]:
        """Return the ids of the containers that have an end of a network, whole or not."""
        return names(f"{self.directory}/{network_id}/endpoints")

    def endpoints(self, network_id: str) -> dict[str, Record]:
        """Return {container id: endpoint} of a network."""
        found = {name: self.endpoint(network_id, name) for name in self.ends(network_id)}
        return {name: endpoint for name, endpoint in found.items() if endpoint}

    def endpoints_of(self, container_id: str) -> dict[str, Record]:
        """Return {network id: endpoint} of a container."""
        found = {network_id: self.endpoint(network_id, container_id) for network_id in self.ids()}
        return {network_id: endpoint for network_id, endpoint in found.items() if endpoint}

    def all_endpoints(self) -> Iterator[Record]:
        """Give the endpoints of all networks."""
        for network_id in self.ids():
            yield from self.endpoints(network_id).values()

    # --- leases

    def leases(self, network_id: str) -> dict[str, str]:
        """Return {address: container id} of a network."""
        found, directory = {}, f"{self.directory}/{network_id}/leases"
        for ip in names(directory):
            try:
                found[ip] = os.readlink(f"{directory}/{ip}")
            except FileNotFoundError:  # given back meanwhile
                continue
        return found

    def lease(self, network_id: str, ip: str, container_id: str) -> None:
        """Say whose an address is. Raises OSError."""
        os.symlink(container_id, f"{self.directory}/{network_id}/leases/{ip}")

    def give_back(self, network_id: str, ip: str) -> None:
        """Free an address."""
        remove_file(f"{self.directory}/{network_id}/leases/{ip}")


# %% notebooks/15_networks.ipynb#network-files-helpers
class Locked:
    """An exclusive flock(2), held inside a `with` statement, by one thread of one process."""

    def __init__(self, path: str) -> None:
        """Name the file; it is made when first locked."""
        self.path = path

    def __enter__(self) -> None:
        """Wait for the lock."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        os.close(self.fd)


def read_json(path: str) -> Record | None:
    """Return what a file holds; None where there is none, or no JSON in it."""
    try:
        with open(path, "rb") as file:
            found: Record = json.loads(file.read())
            return found
    except (OSError, ValueError):
        return None


def write_json(path: str, value: Record) -> None:
    """Write a file whole or not at all. A crash of the machine may lose it: then the cable is gone too."""
    directory, name = os.path.split(path)
    temporary = f"{os.path.dirname(directory)}/{name}.new"
    with open(temporary, "w") as file:
        file.write(json.dumps(value))
    os.rename(temporary, path)


def names(directory: str) -> list[str]:
    """Return the names in a directory; none where there is no directory."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_file(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
