# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#endpoints
"""Containers plugged into networks and out of them, while they run."""

from __future__ import annotations

from mini_docker.engine import bridge as bridges
from mini_docker.engine.cables import lead_out, plug, rank
from mini_docker.engine.endpoint_record import (
    addresses_in,
    check_config,
    choose_address,
    new_endpoint,
    settings_of,
)
from mini_docker.engine.errors import Forbidden, NetworkFailure
from mini_docker.engine.network_files import NetworkFiles, remove_file
from mini_docker.engine.network_record import HOST_BINDING
from mini_docker.engine.ports import Binding, bound, hold, parse_wishes
from mini_docker.engine.segments import Segments
from mini_docker.linux.netlink import Netlink, wait_for_carrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from mini_docker.engine.network_files import Record


class Endpoints:
    """The containers' ends of the networks in `files`. What is there is asked, not remembered."""

    def __init__(self, files: NetworkFiles, segments: Segments) -> None:
        """Say where the records are, and who has the bridges."""
        self.files, self.segments = files, segments
        self.held: dict[str, list[Any]] = {}  # by container: the sockets that keep its ports

    def find(self, reference: str) -> Record:
        """Return the record of the network with this id, name or unique start of an id.

        Raises NoSuchNetwork, InvalidRequest (ambiguous).
        """
        self.segments.prepare()
        return self.files.find(reference)

    def attach(
        self,
        netns_fd: int,
        container_id: str,
        name: str,
        network: str = "bridge",
        config: Mapping[str, Any] | None = None,
        port_bindings: Mapping[str, Any] | None = None,
    ) -> Record:
        """Give the network namespace `netns_fd` an end of a network; return Docker's EndpointSettings.

        `name` is the container's, `config` an element of EndpointsConfig (IPAMConfig, Aliases, Links,
        MacAddress), `port_bindings` what is to be published by this network. Raises NoSuchNetwork,
        InvalidRequest, Forbidden, NetworkFailure, OSError; nothing is half made then.
        """
        wanted = dict(config or {})
        wishes = parse_wishes(port_bindings or {})
        self.find(network)
        with self.files.locked(), Netlink() as netlink:
            record = self.files.find(network)
            check_config(record, wanted)
            if container_id in self.files.ends(record["Id"]):
                words = f"endpoint with name {name} already exists in network {record['Name']}"
                raise Forbidden(words)
            try:
                bridge = self.segments.ensure(netlink, record)
                endpoint = self._leased(record, new_endpoint(record, container_id, name, wanted))
                endpoint["Bindings"] = self._publish(endpoint, wishes, record)
                self.files.write_endpoint(endpoint)
                if endpoint["Bindings"]:
                    self.segments.write_rules()
                endpoint["Interface"] = plug(netlink, record, bridge, endpoint, netns_fd)
                self.files.write_endpoint(endpoint)
                lead_out(self.files.endpoints_of(container_id).values(), netns_fd)
                wait_for_carrier(netlink, endpoint["Link"], record["Bridge"])
            except BaseException:
                self._drop(netlink, record["Id"], container_id, unplug=True)
                raise
        return settings_of(endpoint)

    def attach_all(
        self,
        netns_fd: int,
        container_id: str,
        name: str,
        configs: Mapping[str, Any],
        port_bindings: Mapping[str, Any] | None = None,
    ) -> dict[str, Record]:
        """Attach a container to each network of `configs` ({name: config}); return {name: EndpointSettings}.

        Its ports are published by the network that has its default route. Raises as `attach` does; then
        it is on none of them.
        """
        settings: dict[str, Record] = {}
        records = {network: self.find(network) for network in configs}
        bridged = [n for n, r in records.items() if r["Driver"] == "bridge" and not r["Internal"]]
        outward = sorted(bridged, key=lambda n: rank(records[n]["Name"], records[n]["EnableIPv6"]))
        try:
            for network, config in configs.items():
                if records[network]["Driver"] != "bridge":
                    settings[network] = settings_of({**config, "NetworkID": records[network]["Id"]})
                    continue
                wanted = port_bindings if network in outward[:1] else None
                settings[network] = self.attach(
                    netns_fd, container_id, name, network, config, wanted
                )
        except BaseException:
            self.release(container_id, unplug=True)
            raise
        return settings

    def bindings(self, container_id: str) -> list[Binding]:
        """Return the published ports of a container that is attached."""
        endpoints = self.files.endpoints_of(container_id).values()
        return [Binding(*entry) for endpoint in endpoints for entry in endpoint["Bindings"]]

    def hold_ports(self, alive: Collection[str]) -> list[str]:
        """Bind the host's ports of living containers again, after a restart of the process that held them.

        Returns one line for each port that somebody else has taken meanwhile.
        """
        lost = []
        for endpoint in self.files.all_endpoints():
            container_id = endpoint["Container"]
            if container_id not in alive or container_id in self.held:
                continue
            for binding in map(Binding._make, endpoint["Bindings"]):
                try:
                    kept = bound(binding.host_ip, binding.host_port, binding.protocol)
                    self.held.setdefault(container_id, []).append(kept)
                except NetworkFailure as error:
                    lost.append(f"{endpoint['Name']}: {error}")
        return lost

    def endpoints_of(self, container_id: str) -> dict[str, Record]:
        """Return {network id: endpoint} of a container."""
        return self.files.endpoints_of(container_id)

    def _leased(self, record: Record, endpoint: Record) -> Record:
        """Return an endpoint with an address of each pool, which is leased now."""
        ipam, network_id = endpoint["IPAMConfig"] or {}, record["Id"]
        for pool in record["Pools"]:
            ip = choose_address(record, pool, ipam, self.files.leases(network_id))
            self.files.lease(network_id, ip, endpoint["Container"])
            endpoint = endpoint | addresses_in(record, pool, ip)
        mac = endpoint["MacAddress"] or bridges.mac_of(endpoint["IPAddress"])
        return endpoint | {"MacAddress": mac}

    def _publish(self, endpoint: Record, wishes: Iterable[Any], record: Record) -> list[Binding]:
        """Claim the host's ports for a container; an internal network publishes none."""
        bindings: list[Binding] = []
        if record["Internal"]:
            return bindings
        taken = [Binding(*entry) for e in self.files.all_endpoints() for entry in e["Bindings"]]
        default = record["Options"].get(HOST_BINDING, "")
        for wish in wishes:
            chosen = wish._replace(host_ip=wish.host_ip or default.replace("0.0.0.0", ""))
            try:
                got, sockets = hold(chosen, taken + bindings, bool(endpoint["GlobalIPv6Address"]))
            except NetworkFailure as error:
                who = f"endpoint {endpoint['Name']} ({endpoint['EndpointID']})"
                words = f"driver failed programming external connectivity on {who}: {error}"
                raise NetworkFailure(words) from None
            bindings += got
            self.held.setdefault(endpoint["Container"], []).extend(sockets)
        return bindings

    def detach(
        self, container_id: str, network: str, netns_fd: int | None = None, force: bool = False
    ) -> None:
        """Take a container off a network: its cable, its ports, its addresses.

        `netns_fd` is the living container's, whose default route then leads by what is left. Raises
        NoSuchNetwork, NetworkFailure (not connected; never with `force`).
        """
        self.find(network)
        with self.files.locked(), Netlink() as netlink:
            record = self.files.find(network)
            if not self._drop(netlink, record["Id"], container_id, unplug=True) and not force:
                words = f"container {container_id} is not connected to network {record['Name']}"
                raise NetworkFailure(words)
            if netns_fd is not None:
                lead_out(self.files.endpoints_of(container_id).values(), netns_fd)

    def rename(self, container_id: str, name: str) -> None:
        """Give the ends of a container another name; the name server reads it there."""
        with self.files.locked():
            for endpoint in self.files.endpoints_of(container_id).values():
                self.files.write_endpoint({**endpoint, "Name": name})

    def release(self, container_id: str, unplug: bool = False) -> None:
        """Free all that a container that has ended had; one that had nothing is fine.

        Its cables went with its network namespace; `unplug` removes them where somebody else is still in
        there. The kernel takes some 20 ms for that.
        """
        mine = [known for known in self.files.ids() if container_id in self.files.ends(known)]
        if not mine:
            return
        with self.files.locked(), Netlink() as netlink:
            for network_id in mine:
                self._drop(netlink, network_id, container_id, unplug)

    def _drop(self, netlink: Netlink, network_id: str, container_id: str, unplug: bool) -> bool:
        """Undo `attach`, in the other direction; say whether there was anything. Under the lock."""
        endpoint = self.files.endpoint(network_id, container_id)
        if endpoint and unplug:
            bridges.unplug(netlink, endpoint["Link"])
        remove_file(self.files.endpoint_path(network_id, container_id))
        if endpoint is None or endpoint["Bindings"]:
            for kept in self.held.pop(container_id, ()):
                kept.close()
        if endpoint and endpoint["Bindings"]:
            self.segments.write_rules()
        for ip, owner in self.files.leases(network_id).items():
            if owner == container_id:
                self.files.give_back(network_id, ip)
        return endpoint is not None

    def sweep(self, network_id: str, alive: Collection[str]) -> list[str]:
        """Remove the endpoints and leases of containers that do not live; return what was removed."""
        removed = []
        for container_id in self.files.ends(network_id):
            if container_id not in alive:
                remove_file(self.files.endpoint_path(network_id, container_id))
                removed.append(f"endpoint of {container_id[:12]}")
        there = self.files.ends(network_id)
        for ip, owner in self.files.leases(network_id).items():
            if owner not in there:
                self.files.give_back(network_id, ip)
                removed.append(f"lease of {ip}")
        return removed

    def sweep_cables(self, netlink: Netlink, records: Iterable[Record]) -> list[str]:
        """Remove the cables on these networks' bridges that no endpoint has; return what was removed."""
        kept = {endpoint["Link"] for endpoint in self.files.all_endpoints()}
        plugged = [name for r in records for name in bridges.ports(netlink, r["Bridge"])]
        stray = [name for name in plugged if name not in kept]
        for name in stray:
            bridges.unplug(netlink, name)
        return [f"link {name}" for name in stray]
