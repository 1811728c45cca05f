# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#networks-module
"""Networks of one's own: their records, their bridges, and the ends of the containers' cables."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time

from mini_docker.engine import bridge as bridges
from mini_docker.engine import nat
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import (
    Forbidden,
    NameTaken,
    NetworkFailure,
    NoSuchNetwork,
    NoSuchPlugin,
)
from mini_docker.engine.ipam import Subnet, contains, first_free, parse_cidr, plan_pools, show
from mini_docker.engine.ports import Binding, bound, hold, parse_wishes
from mini_docker.images.layout import write_atomically
from mini_docker.linux import nft
from mini_docker.linux.bridge_port import bridge_port_set, route_delete_default
from mini_docker.linux.netlink import (
    RT_TABLE_LOCAL,
    Netlink,
    address_add,
    find_link,
    link_new_bridge,
    link_new_veth,
    link_set,
    list_addresses,
    list_links,
    list_routes,
    pack_mac,
    route_add_default,
    wait_for_carrier,
)
from mini_docker.namespaces.net import netlink_in
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
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


# %% notebooks/15_networks.ipynb#network-record
PREDEFINED = ("bridge", "host", "none")
BUILT_IN_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}
OPTION = "com.docker.network."
MTU, NAME = f"{OPTION}driver.mtu", f"{OPTION}bridge.name"
ICC, MASQUERADE = f"{OPTION}bridge.enable_icc", f"{OPTION}bridge.enable_ip_masquerade"
HOST_BINDING = f"{OPTION}bridge.host_binding_ipv4"
NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
    "node to swarm and try again."
)
NO_SWARM_SCOPE = "cannot create a swarm scoped network when swarm is not active"
TRUE = ("", "1", "t", "T", "true", "True", "TRUE")
FALSE = ("0", "f", "F", "false", "False", "FALSE")


def now() -> str:
    """Return the time as Docker writes it: RFC 3339 in UTC, with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{date}.{nanoseconds:09}".rstrip("0").rstrip(".") + "Z"


def new_record(
    request: Mapping[str, Any], used: Collection[Subnet], hidden: Collection[Subnet]
) -> Record:
    """Return the record of a new network from the body of Docker's POST /networks/create.

    Raises InvalidRequest, Forbidden, NoSuchPlugin, NetworkFailure in Docker's words.
    """
    network_id = os.urandom(32).hex()
    ipam = request.get("IPAM") or {}
    config = [dict(entry) for entry in ipam.get("Config") or ()]
    config.sort(
        key=lambda entry: ":" in str(entry.get("Subnet"))
    )  # IPv4 first, as Docker lists them
    if (ipam.get("Driver") or "default") not in ("default", "null"):
        raise NoSuchPlugin(f'plugin "{ipam["Driver"]}" not found')
    options = {str(k): str(v) for k, v in (request.get("Options") or {}).items()}
    ipv6 = bool(request.get("EnableIPv6"))
    pools = plan_pools(config, ipv6, used, hidden)
    chosen = [pool for pool in pools if pool.get("Chosen")]
    config[:0] = [{"Subnet": pool["Subnet"], "Gateway": pool["Gateway"]} for pool in chosen]
    check_options(options)
    return {
        **blank_record(str(request["Name"]), network_id, "bridge"),
        "EnableIPv6": ipv6,
        "IPAM": {"Driver": "default", "Options": ipam.get("Options"), "Config": config},
        "Internal": bool(request.get("Internal")),
        "Attachable": bool(request.get("Attachable")),
        "Options": options,
        "Labels": dict(request.get("Labels") or {}),
        "Bridge": options.get(NAME) or f"md-{network_id[:12]}",
        "Pools": pools,
    }


def blank_record(name: str, network_id: str, driver: str) -> Record:
    """Return a record in the order of Docker's JSON; `Bridge` and `Pools` are ours."""
    return {
        "Name": name,
        "Id": network_id,
        "Created": now(),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
        "Bridge": "",
        "Pools": [],
    }


def check_options(options: Mapping[str, str]) -> None:
    """Refuse options that nobody could obey. Raises InvalidRequest."""
    mtu = options.get(MTU, "0")
    if not (mtu.isascii() and mtu.isdigit() and int(mtu) <= 65535):
        parsing = f'strconv.Atoi: parsing "{mtu}": invalid syntax'
        raise InvalidRequest(f"failed to parse {MTU} value: {mtu} ({parsing})")
    bridge = options.get(NAME, "bridge")
    if not 0 < len(os.fsencode(bridge)) <= 15 or not re.fullmatch(r"[\w.@-]+", bridge):
        raise InvalidRequest(
            f"invalid bridge name: '{bridge}': 1 to 15 letters, digits and . _ - @"
        )
    for key in (ICC, MASQUERADE):
        if options.get(key, "") not in (*TRUE, *FALSE):
            parsing = f'strconv.ParseBool: parsing "{options[key]}": invalid syntax'
            raise InvalidRequest(f"failed to parse {key} value: {options[key]} ({parsing})")


def segment_of(record: Record) -> nat.Segment:
    """Return a network as the packet rules see it."""
    subnets = tuple(pool["Subnet"] for pool in record["Pools"])
    masquerade = record["Options"].get(MASQUERADE, "") in TRUE
    return nat.Segment(record["Bridge"], subnets, record["Internal"], masquerade)


# %% notebooks/15_networks.ipynb#networks-filters
FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
PRUNE_FILTERS = ("label", "label!", "until")


def check_filters(filters: Mapping[str, Collection[str]], known: Collection[str]) -> None:
    """Refuse a filter that is not there. Raises InvalidRequest."""
    for key in filters:
        if key not in known:
            raise InvalidRequest(f"Invalid filter '{key}'")


def matches(text: str, patterns: Collection[str]) -> bool:
    """Say whether a text is one of the patterns or has a part that one of them describes."""
    try:
        return not patterns or any(text == p or re.search(p, text) for p in patterns)
    except re.error:
        return False


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Say whether all of "key" or "key=value" are among the labels."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def parse_until(texts: Iterable[str]) -> float:
    """Return the moment before which things are old, for the filter `until`, in seconds since 1970.

    Raises InvalidRequest for what is neither a time stamp nor a duration such as "1h30m".
    """
    moments = []
    for text in texts:
        parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", text)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            moments.append(float(text))
        elif text and parts:
            hours, minutes, seconds = (float(part or 0) for part in parts.groups())
            moments.append(time.time() - hours * 3600 - minutes * 60 - seconds)
        else:
            moments.append(parse_time(text))
    return min(moments, default=float("inf"))


def parse_time(text: str) -> float:
    """Return an RFC 3339 time ("2026-11-25T16:08:21.5Z", a date alone) in seconds since 1970."""
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(\.\d+)?(Z|[+-]\d\d:\d\d)?)?", text
    )
    try:
        if not found:
            raise ValueError
        date, clock, fraction, zone = found.groups(default="")
        clock = (clock or "00:00") + ":00" * (clock.count(":") < 2)
        from calendar import timegm  # what takes this filter is not on the run path

        seconds = timegm(time.strptime(f"{date}T{clock}", "%Y-%m-%dT%H:%M:%S"))
        hours, _, minutes = zone[1:].partition(":") if len(zone) > 1 else ("0", "", "0")
        offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if zone[:1] == "-" else 1)
        return seconds + float(fraction or 0) - offset
    except (ValueError, OverflowError):
        words = f'failed to parse value as time or duration: "{text}"'
        raise InvalidRequest(words) from None


# %% notebooks/15_networks.ipynb#networks-class
class Networks:
    """The networks of one data root. Many processes, and many threads of one, may have their own."""

    def __init__(self, root: str, bridge: str = "mini_docker0", table: str = "mini_docker") -> None:
        """Name the data root, the default network's bridge, and the nft table of all networks."""
        self.directory = f"{root}/network"
        self.bridge, self.table = bridge, table
        self.held: dict[str, list[Any]] = {}  # by container: the sockets that keep its ports

    def locked(self) -> Locked:
        """Return the lock of all networks, for a `with` statement."""
        return Locked(f"{self.directory}/lock")

    # --- records

    def records(self) -> list[Record]:
        """Return the records of all networks, the oldest first; a half-made one is none."""
        found = map(self._read, _names(self.directory))
        return sorted((record for record in found if record), key=lambda record: record["Created"])

    def _read(self, network_id: str) -> Record | None:
        return _read_json(f"{self.directory}/{network_id}/network.json")

    def _write(self, record: Record) -> None:
        home = f"{self.directory}/{record['Id']}"
        for name in ("leases", "endpoints"):
            os.makedirs(f"{home}/{name}", mode=0o700, exist_ok=True)
        write_atomically(f"{home}/network.json", json.dumps(record).encode(), 0o600)

    def _erase(self, record: Record) -> None:
        _remove_file(f"{self.directory}/{record['Id']}/network.json")
        remove_tree(f"{self.directory}/{record['Id']}")

    def prepare(self) -> None:
        """Have the records of bridge, host and none. Repeating it changes nothing. Raises OSError."""
        if {record["Name"] for record in self.records()}.issuperset(PREDEFINED):
            return
        with self.locked():
            known = {record["Name"] for record in self.records()}
            for name in PREDEFINED:
                if name not in known:
                    blank = blank_record(name, os.urandom(32).hex(), BUILT_IN_DRIVERS[name])
                    self._write(self._default(blank) if name == "bridge" else blank)

    def _default(self, blank: Record) -> Record:
        """Return the record of the default network: on the bridge that is there, or a free subnet."""
        with Netlink() as netlink:
            there = bridges.find_bridge(netlink, self.bridge)
            if there and there.gateway:
                gateway, subnet = there.gateway, show(parse_cidr(f"{there.gateway}/{there.prefix}"))
            else:
                used = [
                    (subnet.first, subnet.prefix)
                    for subnet in self._used() + _routed(netlink)
                    if subnet.bits == 32
                ]
                subnet = bridges.free_subnet(used)
                gateway = bridges.ip_text(parse_cidr(subnet).first + 1)
        options = {
            f"{OPTION}bridge.default_bridge": "true",
            ICC: "true",
            MASQUERADE: "true",
            HOST_BINDING: "0.0.0.0",
            NAME: self.bridge,
            MTU: "1500",
        }
        pool = {"Subnet": subnet, "Gateway": gateway, "Reserved": []}
        config = [{"Subnet": subnet, "Gateway": gateway}]
        ipam = {"Driver": "default", "Options": None, "Config": config}
        return {**blank, "IPAM": ipam, "Options": options, "Bridge": self.bridge, "Pools": [pool]}

    def _used(self) -> list[Subnet]:
        """Return the subnets of all networks."""
        return [parse_cidr(pool["Subnet"]) for record in self.records() for pool in record["Pools"]]

    def find(self, reference: str) -> Record:
        """Return the record of the network with this id, name or unique start of an id.

        Raises NoSuchNetwork, InvalidRequest (ambiguous).
        """
        self.prepare()
        return self._lookup(reference)

    def _lookup(self, reference: str) -> Record:
        """Do what `find` does, for a caller who may have the lock."""
        reference = "bridge" if reference == "default" else reference
        records = self.records()
        for key in ("Id", "Name"):
            for record in records:
                if record[key] == reference:
                    return record
        found = [record for record in records if reference and record["Id"].startswith(reference)]
        if len(found) > 1:
            words = (
                f"network {reference} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
            raise InvalidRequest(words)
        if not found:
            raise NoSuchNetwork(f"network {reference} not found")
        return found[0]

    # --- Docker's operations

    def create(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Make a network from the body of POST /networks/create; return its Id and a Warning.

        Raises InvalidRequest, Forbidden, NameTaken, NoSuchPlugin, NetworkFailure, OSError; nothing is
        half made then.
        """
        name, driver = str(request.get("Name") or ""), str(request.get("Driver") or "bridge")
        if name in PREDEFINED:
            raise Forbidden(f"operation is not permitted on predefined {name} network ")
        if not name.strip():
            raise InvalidRequest("invalid name: ")
        if driver == "overlay" or request.get("Scope") == "swarm":
            raise Forbidden(NO_SWARM if driver == "overlay" else NO_SWARM_SCOPE)
        if driver in ("host", "null"):
            raise Forbidden(f'only one instance of "{driver}" network is allowed')
        if driver != "bridge":
            raise NoSuchPlugin(f'plugin "{driver}" not found')
        if request.get("Ingress"):
            raise Forbidden("Ingress network can only be global scope network")
        self.prepare()
        with self.locked(), Netlink() as netlink:
            if any(record["Name"] == name for record in self.records()):
                raise NameTaken(f"network with name {name} already exists")
            record = new_record(request, self._used(), _routed(netlink))
            self._refuse_same_bridge(netlink, record)
            try:
                self._write(record)
                self._ensure(netlink, record)
            except BaseException:
                self._dismantle(netlink, record)
                raise
        return {"Id": record["Id"], "Warning": ""}

    def _refuse_same_bridge(self, netlink: Netlink, record: Record) -> None:
        """Refuse a bridge that another network has, or that is not ours. Raises Forbidden."""
        bridge = record["Bridge"]
        words = f"cannot create network {record['Id']} ({bridge}): conflicts with"
        for other in self.records():
            if other["Bridge"] == bridge:
                who = f"network {other['Id']} ({bridge})"
                raise Forbidden(f"{words} {who}: networks have same bridge name")
        if any(link.name == bridge for link in list_links(netlink)):
            raise Forbidden(f"{words} a link of this machine: it has that name")

    def inspect(self, reference: str) -> Record:
        """Return Docker's JSON of a network. Raises NoSuchNetwork, InvalidRequest."""
        record = self.find(reference)
        return _shown(record, self.endpoints(record["Id"]))

    def listing(self, filters: Mapping[str, Collection[str]] | None = None) -> list[Record]:
        """Return Docker's JSON of all networks that pass the filters. Raises InvalidRequest."""
        wanted = dict(filters or {})
        check_filters(wanted, FILTERS)
        kinds, dangling = _kinds(wanted.get("type", ())), _dangling(wanted.get("dangling", ()))
        self.prepare()
        found = []
        for record in self.records():
            predefined = record["Name"] in PREDEFINED
            passes = (
                all(
                    matches(record[key.capitalize()], wanted.get(key, ())) for key in ("name", "id")
                )
                and all(
                    not wanted.get(key) or record[key.capitalize()] in wanted[key]
                    for key in ("driver", "scope")
                )
                and has_labels(record["Labels"], wanted.get("label", ()))
                and (not kinds or ("builtin" if predefined else "custom") in kinds)
            )
            unused = not predefined and not _names(f"{self.directory}/{record['Id']}/endpoints")
            if passes and (dangling is None or dangling == unused):
                found.append(_shown(record, {}))
        return found

    def remove(self, reference: str) -> str:
        """Remove a network that no running container is on; return its id.

        Raises NoSuchNetwork, Forbidden.
        """
        self.find(reference)
        with self.locked(), Netlink() as netlink:
            record = self._lookup(reference)
            if record["Name"] in PREDEFINED:
                raise Forbidden(f"{record['Name']} is a pre-defined network and cannot be removed")
            if self.endpoints(record["Id"]):
                who = f"network {record['Name']} id {record['Id']}"
                raise Forbidden(f"error while removing network: {who} has active endpoints")
            self._dismantle(netlink, record)
        return str(record["Id"])

    def prune(
        self, filters: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, list[str] | None]:
        """Remove the networks that no running container is on. Raises InvalidRequest."""
        wanted = dict(filters or {})
        check_filters(wanted, PRUNE_FILTERS)
        until, removed = parse_until(wanted.get("until", ())), []
        for record in self.records():
            old = parse_time(record["Created"]) < until
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

    # --- bridges

    def _ensure(self, netlink: Netlink, record: Record) -> int:
        """Have a network's bridge with its addresses, forwarding, and the table; return the bridge's index.

        Under the lock. What is there is asked, not remembered: somebody may have flushed the rules.
        """
        index = self._ready(netlink, record)
        if index and nft.has_table(self.table, NFPROTO_INET):
            return index
        self.write_rules()
        bridges.pass_docker(record["Bridge"])
        bridges.forward()
        return index or self._make_bridge(netlink, record)

    def _ready(self, netlink: Netlink, record: Record) -> int:
        """Return the index of a bridge that is up and has its addresses, else 0."""
        bridge = bridges.find_bridge(netlink, record["Bridge"])
        if bridge is None or not bridge.up or not bridges.forwards():
            return 0
        mine = {a.ip for a in list_addresses(netlink, 0) if a.ifindex == bridge.ifindex}
        complete = mine.issuperset(pool["Gateway"] for pool in record["Pools"])
        return bridge.ifindex if complete else 0

    def _make_bridge(self, netlink: Netlink, record: Record) -> int:
        """Make what is missing of a bridge; its addresses come last and say that the rest is there."""
        name = record["Bridge"]
        if bridges.find_bridge(netlink, name) is None:
            netlink.request(link_new_bridge(name, bridges.mac_of(record["Pools"][0]["Gateway"])))
        index = find_link(netlink, name).ifindex
        mtu = int(record["Options"].get(MTU) or 0) or None
        netlink.request(link_set(index, up=True, mtu=mtu))
        _write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")
        if record["EnableIPv6"]:
            _write_sysctl("ipv6/conf/all/forwarding", "1")
        mine = {a.ip for a in list_addresses(netlink, 0) if a.ifindex == index}
        for pool in record["Pools"]:
            if pool["Gateway"] not in mine:
                prefix = parse_cidr(pool["Subnet"]).prefix
                netlink.request(address_add(index, pool["Gateway"], prefix))
        return index

    def _dismantle(self, netlink: Netlink, record: Record) -> None:
        """Remove a network's record, rules and bridge. Under the lock; repeating it is fine."""
        _remove_file(f"{self.directory}/{record['Id']}/network.json")
        bridges.unpass_docker(record["Bridge"])
        self.write_rules()
        bridges.unplug(netlink, record["Bridge"])
        self._erase(record)

    def write_rules(self) -> None:
        """Put the table that the records ask for in place of the one that is there; without networks, none.

        Under the lock.
        """
        segments, targets = [], []
        for record in self.records():
            if record["Driver"] != "bridge":
                continue
            segments.append(segment_of(record))
            for endpoint in self.endpoints(record["Id"]).values():
                if bindings := tuple(Binding(*entry) for entry in endpoint["Bindings"]):
                    ipv4, ipv6 = endpoint["IPAddress"], endpoint["GlobalIPv6Address"]
                    targets.append(nat.Target(record["Bridge"], ipv4, ipv6, bindings))
        if segments:
            nft.run(nat.table(self.table, segments, targets))
        elif nft.has_table(self.table, NFPROTO_INET):
            nft.run(f"delete table inet {self.table}")

    # --- endpoints

    def endpoints(self, network_id: str) -> dict[str, Record]:
        """Return {container id: endpoint} of a network."""
        directory = f"{self.directory}/{network_id}/endpoints"
        found = {name: _read_json(f"{directory}/{name}") for name in _names(directory)}
        return {name: endpoint for name, endpoint in found.items() if endpoint}

    def endpoints_of(self, container_id: str) -> dict[str, Record]:
        """Return {network id: endpoint} of a container."""
        found = {}
        for network_id in _names(self.directory):
            if endpoint := _read_json(f"{self.directory}/{network_id}/endpoints/{container_id}"):
                found[network_id] = endpoint
        return found

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
        with self.locked(), Netlink() as netlink:
            record = self._lookup(network)
            check_config(record, wanted)
            home = f"{self.directory}/{record['Id']}"
            if os.path.exists(f"{home}/endpoints/{container_id}"):
                words = f"endpoint with name {name} already exists in network {record['Name']}"
                raise Forbidden(words)
            try:
                index = self._ensure(netlink, record)
                endpoint = self._new_endpoint(record, container_id, name, wanted)
                endpoint["Bindings"] = self._publish(container_id, endpoint, wishes, record)
                _write_json(f"{home}/endpoints/{container_id}", endpoint)
                if endpoint["Bindings"]:
                    self.write_rules()
                endpoint["Interface"] = self._plug(netlink, record, index, endpoint, netns_fd)
                _write_json(f"{home}/endpoints/{container_id}", endpoint)
                self._choose_gateway(container_id, netns_fd)
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
        endpoints = self.endpoints_of(container_id).values()
        return [Binding(*entry) for endpoint in endpoints for entry in endpoint["Bindings"]]

    def hold_ports(self, alive: Collection[str]) -> list[str]:
        """Bind the host's ports of living containers again, after a restart of the process that held them.

        Returns one line for each port that somebody else has taken meanwhile.
        """
        lost = []
        for endpoint in self._all_endpoints():
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

    def _new_endpoint(
        self, record: Record, container_id: str, name: str, wanted: Mapping[str, Any]
    ) -> Record:
        """Lease the addresses and return the endpoint, which is nowhere written yet."""
        endpoint_id = os.urandom(32).hex()
        aliases = [*(wanted.get("Aliases") or ())]
        if record["Name"] != "bridge":
            aliases += [container_id[:12]] * (container_id[:12] not in aliases)
        endpoint = {
            "Container": container_id,
            "Name": name,
            "NetworkName": record["Name"],
            "NetworkID": record["Id"],
            "Internal": record["Internal"],
            "EndpointID": endpoint_id,
            "Link": f"{bridges.LINK_PREFIX}{endpoint_id[:13]}",
            "IPAMConfig": wanted.get("IPAMConfig"),
            "Links": wanted.get("Links"),
            "Aliases": aliases or None,
            "DriverOpts": wanted.get("DriverOpts"),
            **blank_addresses(),
            "Bindings": [],
        }
        for pool in record["Pools"]:
            six = ":" in pool["Subnet"]
            ip = self._lease(record, pool, container_id, wanted.get("IPAMConfig") or {})
            prefix = parse_cidr(pool["Subnet"]).prefix
            keys = ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway")
            keys = keys if six else ("IPAddress", "IPPrefixLen", "Gateway")
            gateway = "" if record["Internal"] and six else pool["Gateway"]
            endpoint |= dict(zip(keys, (ip, prefix, gateway), strict=True))
        endpoint["MacAddress"] = wanted.get("MacAddress") or bridges.mac_of(endpoint["IPAddress"])
        return endpoint

    def _lease(
        self, record: Record, pool: Record, container_id: str, ipam: Mapping[str, Any]
    ) -> str:
        """Claim an address of a pool: the asked one, or the lowest free one."""
        directory = f"{self.directory}/{record['Id']}/leases"
        taken = {*_names(directory), *pool["Reserved"], pool["Gateway"]}
        subnet = parse_cidr(pool["Subnet"])
        asked = ipam.get("IPv6Address" if subnet.bits == 128 else "IPv4Address") or ""
        if asked:
            if not contains(subnet, asked):
                words = (
                    f"Invalid address {asked}: It does not belong to any of this network's subnets"
                )
                raise InvalidRequest(words)
            ip = show(parse_cidr(f"{asked}/{subnet.bits}")).partition("/")[0]
            if ip in taken:
                raise Forbidden("Address already in use")
        else:
            within = parse_cidr(pool["IPRange"]) if pool.get("IPRange") else None
            free = first_free(subnet, within, taken)
            if free is None:
                where = f"{record['Name']} ({record['Id']})"
                kind = "IPv6" if subnet.bits == 128 else "IPv4"
                words = f"no available {kind} addresses on this network's address pools: {where}"
                raise NetworkFailure(words)
            ip = free
        os.symlink(container_id, f"{directory}/{ip}")
        return ip

    def _publish(
        self, container_id: str, endpoint: Record, wishes: Iterable[Any], record: Record
    ) -> list[Binding]:
        """Claim the host's ports for a container; an internal network publishes none."""
        bindings: list[Binding] = []
        if record["Internal"]:
            return bindings
        taken = [Binding(*entry) for e in self._all_endpoints() for entry in e["Bindings"]]
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
            self.held.setdefault(container_id, []).extend(sockets)
        return bindings

    def _all_endpoints(self) -> Iterator[Record]:
        for network_id in _names(self.directory):
            yield from self.endpoints(network_id).values()

    def _plug(
        self, netlink: Netlink, record: Record, bridge: int, endpoint: Record, netns_fd: int
    ) -> str:
        """Lay the cable and return the name of its inner end: one message makes both ends, one datagram
        configures the inner one."""
        mtu = int(record["Options"].get(MTU) or 0) or None
        with netlink_in(netns_fd) as inside:
            names = {link.name for link in list_links(inside)}
            name = next(f"eth{n}" for n in range(len(names) + 1) if f"eth{n}" not in names)
            netlink.request(
                link_new_veth(endpoint["Link"], name, netns_fd, bridge, endpoint["MacAddress"])
            )
            isolated = record["Options"].get(ICC, "") in FALSE
            if isolated or endpoint["Bindings"]:
                hairpin = bool(endpoint["Bindings"])
                netlink.request(bridge_port_set(endpoint["Link"], hairpin, isolated))
            if mtu and mtu != 1500:
                netlink.request(link_set(endpoint["Link"], mtu=mtu))
            index = find_link(inside, name).ifindex
            messages = [link_set("lo", up=True), link_set(index, up=True, mtu=mtu)]
            for ip, prefix in addresses_of(endpoint):
                messages.append(address_add(index, ip, prefix))
            inside.request(*messages)
        return name

    def _choose_gateway(self, container_id: str, netns_fd: int) -> None:
        """Have the default routes lead by the network that `rank` puts first."""
        mine = self.endpoints_of(container_id).values()
        outward = [endpoint for endpoint in mine if not endpoint["Internal"]]
        outward.sort(key=lambda e: rank(e["NetworkName"], bool(e["GlobalIPv6Address"])))
        for family, key in ((2, "Gateway"), (10, "IPv6Gateway")):
            wanted = next((endpoint[key] for endpoint in outward if endpoint[key]), "")
            with netlink_in(netns_fd) as inside:
                routes = list_routes(inside, family)
                there = [r.gateway for r in routes if not r.destination and r.gateway]
                messages = [route_delete_default(gateway) for gateway in there if gateway != wanted]
                messages += [route_add_default(wanted)] if wanted and wanted not in there else []
                if messages:
                    inside.request(*messages)

    def detach(
        self, container_id: str, network: str, netns_fd: int | None = None, force: bool = False
    ) -> None:
        """Take a container off a network: its cable, its ports, its addresses.

        `netns_fd` is the living container's, whose default route then leads by what is left. Raises
        NoSuchNetwork, NetworkFailure (not connected; never with `force`).
        """
        self.find(network)
        with self.locked(), Netlink() as netlink:
            record = self._lookup(network)
            if not self._drop(netlink, record["Id"], container_id, unplug=True) and not force:
                words = f"container {container_id} is not connected to network {record['Name']}"
                raise NetworkFailure(words)
            if netns_fd is not None:
                self._choose_gateway(container_id, netns_fd)

    def rename(self, container_id: str, name: str) -> None:
        """Give the ends of a container another name; the name server reads it there."""
        with self.locked():
            for network_id, endpoint in self.endpoints_of(container_id).items():
                path = f"{self.directory}/{network_id}/endpoints/{container_id}"
                _write_json(path, {**endpoint, "Name": name})

    def release(self, container_id: str, unplug: bool = False) -> None:
        """Free all that a container that has ended had; one that had nothing is fine.

        Its cables went with its network namespace; `unplug` removes them where somebody else is still in
        there. The kernel takes some 20 ms for that.
        """
        mine = [
            network_id
            for network_id in _names(self.directory)
            if os.path.lexists(f"{self.directory}/{network_id}/endpoints/{container_id}")
        ]
        if not mine:
            return
        with self.locked(), Netlink() as netlink:
            for network_id in mine:
                self._drop(netlink, network_id, container_id, unplug)

    def _drop(self, netlink: Netlink, network_id: str, container_id: str, unplug: bool) -> bool:
        """Undo `attach`, in the other direction; say whether there was anything. Under the lock."""
        path = f"{self.directory}/{network_id}/endpoints/{container_id}"
        endpoint = _read_json(path)
        if endpoint and unplug:
            bridges.unplug(netlink, endpoint["Link"])
        _remove_file(path)
        if endpoint is None or endpoint["Bindings"]:
            for kept in self.held.pop(container_id, ()):
                kept.close()
        if endpoint and endpoint["Bindings"]:
            self.write_rules()
        self._free(network_id, container_id)
        return endpoint is not None

    def _free(self, network_id: str, container_id: str) -> None:
        directory = f"{self.directory}/{network_id}/leases"
        for ip in _names(directory):
            try:
                if os.readlink(f"{directory}/{ip}") == container_id:
                    os.unlink(f"{directory}/{ip}")
            except FileNotFoundError:
                continue

    # --- after a crash, and at the end

    def recover(self, alive: Collection[str]) -> list[str]:
        """Make the machine what the records say, for the containers in `alive`; return what was removed.

        Whatever was killed at whatever moment: half-made networks, endpoints, leases and cables of
        containers that do not live go; bridges and rules that are missing come. Take `alive` under the
        lock under which containers are made.
        """
        removed: list[str] = []
        if not _names(self.directory):
            return removed
        with self.locked(), Netlink() as netlink:
            for name in _names(self.directory):
                if len(name) == 64 and self._read(name) is None:
                    bridges.unplug(netlink, f"md-{name[:12]}")
                    remove_tree(f"{self.directory}/{name}")
                    removed.append(f"half-made network {name[:12]}")
            records = [record for record in self.records() if record["Driver"] == "bridge"]
            for record in records:
                removed += self._recover_endpoints(record["Id"], alive)
            self.write_rules()
            for record in records:
                if record["Name"] != "bridge" or self.endpoints(record["Id"]):
                    self._ensure(netlink, record)
            removed += self._recover_cables(netlink, records)
        return removed

    def _recover_endpoints(self, network_id: str, alive: Collection[str]) -> list[str]:
        removed, home = [], f"{self.directory}/{network_id}"
        for container_id in _names(f"{home}/endpoints"):
            if container_id not in alive:
                _remove_file(f"{home}/endpoints/{container_id}")
                removed.append(f"endpoint of {container_id[:12]}")
        for ip in _names(f"{home}/leases"):
            if not os.path.exists(f"{home}/endpoints/{os.readlink(f'{home}/leases/{ip}')}"):
                _remove_file(f"{home}/leases/{ip}")
                removed.append(f"lease of {ip}")
        return removed

    def _recover_cables(self, netlink: Netlink, records: Iterable[Record]) -> list[str]:
        kept = {endpoint["Link"] for endpoint in self._all_endpoints()}
        stray = [
            name
            for record in records
            for name in bridges.ports(netlink, record["Bridge"])
            if name not in kept
        ]
        for name in stray:
            bridges.unplug(netlink, name)
        return [f"link {name}" for name in stray]

    def reset(self) -> list[str]:
        """Remove all networks, cables, leases and rules of this data root; return what was removed.

        Repeating it removes nothing. Forwarding stays on: others may have come to rely on it.
        """
        removed = self.recover(())
        with self.locked(), Netlink() as netlink:
            for record in self.records():
                if record["Bridge"] and bridges.find_bridge(netlink, record["Bridge"]):
                    bridges.unpass_docker(record["Bridge"])
                    bridges.unplug(netlink, record["Bridge"])
                    removed.append(f"bridge {record['Bridge']}")
                self._erase(record)
            if nft.has_table(self.table, NFPROTO_INET):
                self.write_rules()
                removed.append(f"nft table inet {self.table}")
        return removed


# %% notebooks/15_networks.ipynb#networks-helpers
NFPROTO_INET = 1


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


def check_config(record: Record, wanted: Mapping[str, Any]) -> None:
    """Refuse what a network cannot give to an endpoint, in Docker's words. Raises InvalidRequest."""
    asked = wanted.get("IPAMConfig") or {}
    addresses = [asked.get("IPv4Address") or "", asked.get("IPv6Address") or ""]
    if record["Driver"] != "bridge":
        raise InvalidRequest(
            f"network {record['Name']} has no endpoints: it is of the kind {record['Driver']}"
        )
    if record["Name"] == "bridge":
        if any(addresses):
            words = "user specified IP address is supported on user defined networks only"
            raise InvalidRequest(words)
        if wanted.get("Aliases"):
            words = "network-scoped alias is supported only for containers in user defined networks"
            raise InvalidRequest(words)
    for bits, ip in zip((32, 128), addresses, strict=True):
        if ip and not _own_subnet(record, bits):
            words = "user specified IP address is supported only when connecting to networks with"
            raise InvalidRequest(f"{words} user configured subnets")
        try:
            if ip and parse_cidr(f"{ip}/{bits}").bits != bits:
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"invalid IPv{4 if bits == 32 else 6} address: {ip}") from None
    try:
        if wanted.get("MacAddress") and len(pack_mac(wanted["MacAddress"]) or b"") != 6:
            raise ValueError
    except ValueError:
        raise InvalidRequest(f"{wanted['MacAddress']} is not a valid mac address") from None


def _own_subnet(record: Record, bits: int) -> bool:
    """Say whether the user chose the subnet of this family."""
    pools = [pool for pool in record["Pools"] if parse_cidr(pool["Subnet"]).bits == bits]
    return any(not pool.get("Chosen") for pool in pools)


def rank(name: str, ipv6: bool) -> tuple[bool, str]:
    """Return the order in which networks get the default route: those with IPv6 first, then by name."""
    return not ipv6, name


def blank_addresses() -> Record:
    """Return the addresses of an endpoint that has none."""
    return {
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
    }


def addresses_of(endpoint: Record) -> list[tuple[str, int]]:
    """Return the addresses of an endpoint with their prefixes."""
    pairs = [(endpoint["IPAddress"], endpoint["IPPrefixLen"])]
    pairs.append((endpoint["GlobalIPv6Address"], endpoint["GlobalIPv6PrefixLen"]))
    return [(ip, prefix) for ip, prefix in pairs if ip]


SETTINGS = (
    "IPAMConfig Links Aliases NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway "
    "GlobalIPv6Address GlobalIPv6PrefixLen MacAddress DriverOpts"
).split()


def settings_of(endpoint: Mapping[str, Any]) -> Record:
    """Return Docker's EndpointSettings of an endpoint, or of a mere config of one."""
    empty = {**blank_addresses(), "NetworkID": "", "EndpointID": ""}
    return {key: endpoint.get(key, empty.get(key)) for key in SETTINGS}


def _shown(record: Record, endpoints: Mapping[str, Record]) -> Record:
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


def _routed(netlink: Netlink) -> list[Subnet]:
    """Return the networks that this machine has routes to."""
    return [
        Subnet(32, bridges.ip_number(route.destination), route.prefix)
        for route in list_routes(netlink)
        if route.destination and route.table != RT_TABLE_LOCAL
    ]


def _write_sysctl(path: str, value: str) -> None:
    """Set /proc/sys/net/`path`, where the kernel has it. Raises OSError."""
    try:
        with open(f"/proc/sys/net/{path}", "w") as file:
            file.write(value)
    except FileNotFoundError:
        if "ipv6" in path:
            raise OSError(errno.EAFNOSUPPORT, "this kernel has no IPv6") from None
        raise


def _read_json(path: str) -> Record | None:
    try:
        with open(path, "rb") as file:
            found: Record = json.loads(file.read())
            return found
    except (OSError, ValueError):
        return None


def _write_json(path: str, value: Record) -> None:
    """Write a file whole or not at all. A crash of the machine may lose it: then the cable is gone too."""
    directory, name = os.path.split(path)
    temporary = f"{os.path.dirname(directory)}/{name}.new"
    with open(temporary, "w") as file:
        file.write(json.dumps(value))
    os.rename(temporary, path)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass


# %% notebooks/15_networks.ipynb#networks-requests
def endpoint_configs(request: Mapping[str, Any]) -> dict[str, Record]:
    """Return {network: config} of the networks that the body of POST /containers/create asks for.

    A container that has another's network namespace has none of its own. Raises InvalidRequest for what
    contradicts itself, in Docker's words.
    """
    host = request.get("HostConfig") or {}
    mode = network_mode(host)
    given = (request.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    configs = {network_mode({"NetworkMode": name}): dict(c or {}) for name, c in given.items()}
    if mode.startswith("container:"):
        _refuse_with_container_mode(request, host)
        return {}
    if mode == "host" and host.get("Links"):
        raise InvalidRequest("conflicting options: host type networking can't be used with links")
    config = configs.setdefault(mode, {})
    if request.get("MacAddress") and not config.get("MacAddress"):
        config["MacAddress"] = request["MacAddress"]
    if mode not in PREDEFINED and host.get("Links") and not config.get("Links"):
        config["Links"] = list(host["Links"])
    return configs


def network_mode(host: Mapping[str, Any]) -> str:
    """Return HostConfig.NetworkMode; "default", as clients say it, is the bridge."""
    mode = str(host.get("NetworkMode") or "default")
    return "bridge" if mode == "default" else mode


def _refuse_with_container_mode(request: Mapping[str, Any], host: Mapping[str, Any]) -> None:
    conflicts = (
        (request.get("Hostname"), "hostname and the network mode"),
        (host.get("Links"), "container type network can't be used with links"),
        (host.get("Dns"), "dns and the network mode"),
        (host.get("ExtraHosts"), "custom host-to-IP mapping and the network mode"),
        (request.get("MacAddress"), "mac-address and the network mode"),
        (host.get("PortBindings"), "port publishing and the container type network mode"),
        (host.get("PublishAllPorts"), "port publishing and the container type network mode"),
        (request.get("ExposedPorts"), "port exposing and the container type network mode"),
    )
    for given, words in conflicts:
        if given:
            raise InvalidRequest(f"conflicting options: {words}")


def wanted_ports(host: Mapping[str, Any], exposed: Collection[str]) -> Record:
    """Return HostConfig.PortBindings, with -P completed by the exposed ports."""
    bindings = dict(host.get("PortBindings") or {})
    if host.get("PublishAllPorts"):
        for key in exposed:
            bindings.setdefault(key if "/" in key else f"{key}/tcp", [{}])
    return bindings


def refuse_connect(record: Record, mode: str, others: Collection[str], running: bool) -> None:
    """Refuse what Docker does not connect; `others` are the networks that the container is on already.

    Raises InvalidRequest.
    """
    if record["Driver"] == "host" and running:
        words = "container cannot be disconnected from host network or connected to host network"
        raise InvalidRequest(words)
    if running and (mode == "host" or mode.startswith("container:")):
        words = (
            "container sharing network namespace with another container or host cannot be connected"
        )
        raise InvalidRequest(f"{words} to any other network")
    if others and "none" in (*others, record["Name"]):
        words = (
            "container cannot be connected to multiple networks with one of the networks in private"
        )
        raise InvalidRequest(f"{words} (none) mode")


def network_settings(
    networks: Mapping[str, Record], ports: Mapping[str, Any], container_id: str = ""
) -> Record:
    """Return Docker's NetworkSettings; the old fields at its top are those of the default network."""
    default = settings_of(networks.get("bridge", {}))
    top = {key: default[key] for key in ("EndpointID", *blank_addresses())}
    return {
        "Bridge": "",
        "SandboxID": container_id,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": dict(ports),
        "SandboxKey": "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **top,
        "Networks": {name: settings_of(endpoint) for name, endpoint in networks.items()},
    }
