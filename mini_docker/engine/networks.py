# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#networks-class
"""Networks of one's own, as Docker's clients see them; and what puts them right after a crash."""

from __future__ import annotations

from mini_docker.engine import bridge as bridges
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.endpoint_record import addresses_of
from mini_docker.engine.endpoints import Endpoints
from mini_docker.engine.errors import (
    Forbidden,
    NameTaken,
    NetworkFailure,
    NoSuchNetwork,
    NoSuchPlugin,
)
from mini_docker.engine.filters import check_filters, has_labels, matches
from mini_docker.engine.moments import SECOND, parse_moment, parse_until
from mini_docker.engine.network_files import NetworkFiles, names
from mini_docker.engine.network_record import PREDEFINED, new_record
from mini_docker.engine.segments import Segments, routed
from mini_docker.linux.netlink import Netlink, list_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from mini_docker.engine.network_files import Record

FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
PRUNE_FILTERS = ("label", "label!", "until")


class Networks(Endpoints):
    """The networks of one data root. Many processes, and many threads of one, may have their own."""

    def __init__(self, root: str, bridge: str = "mini_docker0", table: str = "mini_docker") -> None:
        """Name the data root, the default network's bridge, and the nft table of all networks."""
        files = NetworkFiles(f"{root}/network")
        super().__init__(files, Segments(files, bridge, table))

    # --- Docker's operations

    def create(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Make a network from the body of POST /networks/create; return its Id and a Warning.

        Raises InvalidRequest, Forbidden, NameTaken, NoSuchPlugin, NetworkFailure, OSError; nothing is
        half made then.
        """
        name, driver = str(request.get("Name") or ""), str(request.get("Driver") or "bridge")
        refuse_kind(name, driver, request)
        self.segments.prepare()
        with self.files.locked(), Netlink() as netlink:
            if any(record["Name"] == name for record in self.files.records()):
                raise NameTaken(f"network with name {name} already exists")
            record = new_record(request, self.files.subnets(), routed(netlink))
            self._refuse_same_bridge(netlink, record)
            try:
                self.files.write(record)
                self.segments.ensure(netlink, record)
            except BaseException:
                self.segments.dismantle(netlink, record)
                raise
        return {"Id": record["Id"], "Warning": ""}

    def _refuse_same_bridge(self, netlink: Netlink, record: Record) -> None:
        """Refuse a bridge that another network has, or that is not ours. Raises Forbidden."""
        bridge = record["Bridge"]
        words = f"cannot create network {record['Id']} ({bridge}): conflicts with"
        for other in self.files.records():
            if other["Bridge"] == bridge:
                who = f"network {other['Id']} ({bridge})"
                raise Forbidden(f"{words} {who}: networks have same bridge name")
        if any(link.name == bridge for link in list_links(netlink)):
            raise Forbidden(f"{words} a link of this machine: it has that name")

    def inspect(self, reference: str) -> Record:
        """Return Docker's JSON of a network. Raises NoSuchNetwork, InvalidRequest."""
        record = self.find(reference)
        return shown(record, self.files.endpoints(record["Id"]))

    def listing(self, filters: Mapping[str, Collection[str]] | None = None) -> list[Record]:
        """Return Docker's JSON of all networks that pass the filters. Raises InvalidRequest."""
        wanted = dict(filters or {})
        check_filters(wanted, FILTERS)
        kinds, dangling = _kinds(wanted.get("type", ())), _dangling(wanted.get("dangling", ()))
        self.segments.prepare()
        records = [record for record in self.files.records() if passes(record, wanted, kinds)]
        if dangling is not None:
            records = [record for record in records if dangling == self._unused(record)]
        return [shown(record, {}) for record in records]

    def _unused(self, record: Record) -> bool:
        return record["Name"] not in PREDEFINED and not self.files.ends(record["Id"])

    def remove(self, reference: str) -> str:
        """Remove a network that no running container is on; return its id.

        Raises NoSuchNetwork, Forbidden.
        """
        self.find(reference)
        with self.files.locked(), Netlink() as netlink:
            record = self.files.find(reference)
            if record["Name"] in PREDEFINED:
                raise Forbidden(f"{record['Name']} is a pre-defined network and cannot be removed")
            if self.files.endpoints(record["Id"]):
                who = f"network {record['Name']} id {record['Id']}"
                raise Forbidden(f"error while removing network: {who} has active endpoints")
            self.segments.dismantle(netlink, record)
        return str(record["Id"])

    def prune(
        self, filters: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, list[str] | None]:
        """Remove the networks that no running container is on. Raises InvalidRequest."""
        wanted = dict(filters or {})
        check_filters(wanted, PRUNE_FILTERS)
        until, removed = parse_until(wanted.get("until", ())), []
        for record in self.files.records():
            old = parse_moment(record["Created"]) / SECOND < until
            refused = any(has_labels(record["Labels"], [text]) for text in wanted.get("label!", ()))
            if record["Name"] in PREDEFINED or refused or not old:
                continue
            if not has_labels(record["Labels"], wanted.get("label", ())):
                continue
            try:
                self.remove(record["Id"])
                removed.append(record["Name"])
            except (Forbidden, NoSuchNetwork):  # in use, or somebody was faster
                continue
        return {"NetworksDeleted": removed or None}

    # --- after a crash, and at the end

    def recover(self, alive: Collection[str]) -> list[str]:
        """Make the machine what the records say, for the containers in `alive`; return what was removed.

        Whatever was killed at whatever moment: half-made networks, endpoints, leases and cables of
        containers that do not live go; bridges and rules that are missing come. Take `alive` under the
        lock under which containers are made.
        """
        if not names(self.files.directory):
            return []
        with self.files.locked(), Netlink() as netlink:
            removed = self._recover_networks(netlink)
            records = [record for record in self.files.records() if record["Driver"] == "bridge"]
            for record in records:
                removed += self.sweep(record["Id"], alive)
            self.segments.write_rules()
            for record in records:
                if record["Name"] != "bridge" or self.files.endpoints(record["Id"]):
                    self.segments.ensure(netlink, record)
            return removed + self.sweep_cables(netlink, records)

    def _recover_networks(self, netlink: Netlink) -> list[str]:
        half_made = [known for known in self.files.ids() if self.files.read(known) is None]
        for network_id in half_made:
            bridges.unplug(netlink, f"md-{network_id[:12]}")
            self.files.erase(network_id)
        return [f"half-made network {network_id[:12]}" for network_id in half_made]

    def leave(self) -> None:
        """Take bridges and rules off the machine, for an engine that goes; `recover` makes them anew.

        They stay where a container that lives needs one of them.
        """
        if not names(self.files.directory):
            return
        with self.files.locked(), Netlink() as netlink:
            if not any(self.files.endpoints(network_id) for network_id in self.files.ids()):
                self.segments.withdraw(netlink)

    def reset(self) -> list[str]:
        """Remove all networks, cables, leases and rules of this data root; return what was removed.

        Repeating it removes nothing. Forwarding stays on: others may have come to rely on it.
        """
        removed = self.recover(())
        with self.files.locked(), Netlink() as netlink:
            return removed + self.segments.clear(netlink)


# %% notebooks/15_networks.ipynb#networks-helpers
NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
    "node to swarm and try again."
)
NO_SWARM_SCOPE = "cannot create a swarm scoped network when swarm is not active"


def refuse_kind(name: str, driver: str, request: Mapping[str, Any]) -> None:
    """Refuse networks that cannot be made here.

    Raises Forbidden, InvalidRequest, NetworkFailure, NoSuchPlugin.
    """
    if name in (*PREDEFINED, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not name.strip():
        raise InvalidRequest(f"invalid name: {name}")
    if request.get("Scope") == "swarm":
        raise Forbidden(NO_SWARM_SCOPE)
    if driver == "overlay" or request.get("Scope") not in (None, "", "local"):
        raise NetworkFailure(NO_SWARM)
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver != "bridge":
        raise NoSuchPlugin(f'plugin "{driver}" not found')
    if request.get("Ingress"):
        raise Forbidden("Ingress network can only be global scope network")
    if request.get("ConfigOnly") or (request.get("ConfigFrom") or {}).get("Network"):
        words = "configuration networks are not supported; say of each network what it needs"
        raise InvalidRequest(words)


def passes(record: Record, wanted: Mapping[str, Collection[str]], kinds: Collection[str]) -> bool:
    """Say whether a network passes the filters that ask its record alone."""
    kind = "builtin" if record["Name"] in PREDEFINED else "custom"
    return (
        all(matches(record[key.capitalize()], wanted.get(key, ())) for key in ("name", "id"))
        and all(
            not wanted.get(key) or record[key.capitalize()] in wanted[key]
            for key in ("driver", "scope")
        )
        and has_labels(record["Labels"], wanted.get("label", ()))
        and (not kinds or kind in kinds)
    )


def shown(record: Record, endpoints: Mapping[str, Record]) -> Record:
    """Return Docker's JSON of a network and its containers."""
    containers = {}
    for container_id, endpoint in sorted(endpoints.items()):
        pairs = {":" in ip: f"{ip}/{prefix}" for ip, prefix in addresses_of(endpoint)}
        containers[container_id] = {
            "Name": endpoint["Name"],
            "EndpointID": endpoint["EndpointID"],
            "MacAddress": endpoint["MacAddress"],
            "IPv4Address": pairs.get(False, ""),
            "IPv6Address": pairs.get(True, ""),
        }
    shown = {key: value for key, value in record.items() if key not in ("Bridge", "Pools")}
    return {**shown, "Containers": containers}


def _kinds(values: Collection[str]) -> Collection[str]:
    for value in values:
        if value not in ("builtin", "custom"):
            raise InvalidRequest(f"invalid filter: 'type'='{value}'")
    return values


def _dangling(values: Collection[str]) -> bool | None:
    for value in values:
        if value not in ("1", "true", "0", "false"):
            words = "invalid value for filter 'dangling', must be"
            raise InvalidRequest(f'{words} "true" (or "1"), or "false" (or "0")')
        return value in ("1", "true")
    return None
