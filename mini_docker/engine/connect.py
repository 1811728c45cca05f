# Exported from notebooks/16_volumes.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/16_volumes.ipynb#connect-module
"""What a container gets from networks, names and volumes, at its creation, its start and its end."""

from __future__ import annotations

import os
import zlib

from mini_docker.engine import hosts
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.endpoint_record import check_wanted, settings_of, with_short_id
from mini_docker.engine.errors import NetworkFailure
from mini_docker.engine.mountpoints import check_propagation, collect, oci_mount, point_json
from mini_docker.engine.network_record import PREDEFINED
from mini_docker.engine.network_requests import (
    NO_LINKS,
    endpoint_configs,
    network_mode,
    network_settings,
    refuse_connect,
    wanted_ports,
)
from mini_docker.engine.networks import Networks
from mini_docker.engine.ports import check_bindings, port_map
from mini_docker.engine.store import DEFAULT_ROOT, Conflict, NoSuchContainer
from mini_docker.engine.volumes import Volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Any

    from mini_docker.engine.dns import Server


def open_netns(record: dict[str, Any]) -> int | None:
    """Return a descriptor of a container's network namespace; None where none runs, or it has just ended."""
    try:
        path = f"/proc/{record['State'].get('Pid') or 'none'}/ns/net"
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None


def networks_of(root: str) -> Networks:
    """Return the networks of a data root: another one has another bridge and another table."""
    if root == DEFAULT_ROOT:
        return Networks(root)
    number = f"{zlib.crc32(root.encode()):08x}"
    return Networks(root, f"md-{number}", f"mini_docker_{number}")


# %% notebooks/16_volumes.ipynb#connect-class
class Wiring:
    """The networks, names and volumes of a data root, as a container meets them.

    `find` returns the record of a container by id or name (and raises NoSuchContainer); `names` is the
    daemon's name server. Without one, each container that needs it gets a process that dies with ours.
    """

    def __init__(
        self,
        root: str,
        find: Callable[[str], dict[str, Any]],
        names: Server | None = None,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        """Hold what belongs to the data root; nothing is made yet. New volumes belong to `owner`."""
        self.root, self.find, self.names = root, find, names
        self.networks, self.volumes = networks_of(root), Volumes(root, owner)

    # --- creation

    def create(self, request: Mapping[str, Any], image_config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a new record gets: Endpoints, Links, MountPoints (and both as they are shown), with the
        volumes made.

        Raises InvalidRequest, NoSuchContainer, NoSuchPlugin, NameTaken in Docker's words.
        """
        host = request.get("HostConfig") or {}
        configs = endpoint_configs(request)
        check_bindings(host.get("PortBindings") or {})
        for text in host.get("ExtraHosts") or ():
            hosts.parse_extra_host(text)
        links = self._links(host)
        others = {}
        for text in host.get("VolumesFrom") or ():
            name = text.partition(":")[0]
            if not name:
                raise InvalidRequest("volumes-from specification cannot be an empty string")
            others[name] = self._named(name, "").get("MountPoints") or []
        points = self.volumes.resolve(collect(request, image_config, others))
        shown = [point_json(found) for found in points if found["Mode"] != "tmpfs"]
        wanted = {name: settings_of(config) for name, config in configs.items()}
        return {
            "Endpoints": configs,
            "NetworkSettings": network_settings(wanted, {}),
            "Links": links,
            "MountPoints": points,
            "Mounts": shown,
        }

    def forget(self, record: dict[str, Any], used: Collection[str]) -> list[str]:
        """Remove the anonymous volumes of a container that is removed, and return their names.

        `used` are those that others name.
        """
        gone = []
        for found in record.get("MountPoints") or ():
            name = found["Name"]
            volume = self.volumes.read(name) if name else None
            if volume and volume["Anonymous"] and name not in used:
                self.volumes.remove(name, force=True)
                gone.append(str(name))
        return gone

    def _named(self, name: str, words: str) -> dict[str, Any]:
        """Return the record of a container that a request names. Raises InvalidRequest.

        NoSuchContainer would be a 404, which clients take for a missing image, and pull.
        """
        try:
            return self.find(name)
        except NoSuchContainer as error:
            raise InvalidRequest(f"{words}{error}") from None

    def _links(self, host: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return the legacy links of a new record, by alias; networks of ours have names instead.

        Raises InvalidRequest in Docker's words.
        """
        found: dict[str, dict[str, str]] = {}
        for text in host.get("Links") or () if network_mode(host) in PREDEFINED else ():
            name, alias = hosts.parse_link(text)
            words = f"could not get container for {name}: "
            other = self._named(name, words)
            while (mode := network_mode(other["HostConfig"])).startswith("container:"):
                other = self._named(mode.partition(":")[2], words)
            if mode == "host":
                raise InvalidRequest(f"conflicting options: host type networking {NO_LINKS}")
            link = {"Alias": alias, "Id": other["Id"], "Name": other["Name"]}
            found.setdefault(alias, link)
        return list(found.values())

    def _linked(self, record: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
        """Return the records that a record's links lead to, with their aliases; who is gone is left out."""
        found = []
        for link in record.get("Links") or ():
            try:
                found.append((self.find(link["Id"]), link["Alias"]))
            except NoSuchContainer:
                continue
        return found if network_mode(record["HostConfig"]) == "bridge" else []

    def check_links(self, record: dict[str, Any]) -> None:
        """Refuse the start of a container whose links lead nowhere. Raises NetworkFailure."""
        there = {alias: other for other, alias in self._linked(record)}
        for link in record.get("Links") or () if "bridge" in _networks(record) else ():
            other = there.get(link["Alias"])
            name = f"/{other['Name'] if other else link['Name']}"
            if other and "bridge" not in _networks(other):
                words = f"Cannot link to {name}, as it does not belong to the default network"
                raise NetworkFailure(words)
            if not other or not other["State"].get("Pid"):
                alias = f"/{record['Name']}/{link['Alias']}"
                raise NetworkFailure(f"Cannot link to a non running container: {name} AS {alias}")

    # --- start

    def mounts(self, record: dict[str, Any], rootfs_fd: int) -> list[dict[str, Any]]:
        """Have the container's volumes ready; return its OCI mounts. Raises OSError, NoSuchVolume."""
        points = record.get("MountPoints") or []
        for found in points:
            check_propagation(found, _host_file("/proc/self/mountinfo"))
        self.volumes.prepare(points, record["Id"], rootfs_fd)
        # those of tmpfs are chapter 9c's
        return [oci_mount(found) for found in points if found["Mode"] != "tmpfs"]

    def join(self, record: dict[str, Any], spec: dict[str, Any]) -> bool:
        """Lead the document into another container's network, for the mode container:X; say whether it did.

        Raises Conflict if that one does not run.
        """
        mode = network_mode(record["HostConfig"])
        if not mode.startswith("container:"):
            return False
        other = self.find(mode.partition(":")[2])
        pid = other["State"].get("Pid") or 0
        if not pid:
            words = f"cannot join network of a non running container: {other['Id']}"
            raise Conflict(words)
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/{pid}/ns/net"
        return True

    def attach(self, record: dict[str, Any], make_netns: Callable[[], int]) -> int | None:
        """Connect a container to its networks; return its network namespace, if it has one of ours.

        Its record gets NetworkSettings. Raises NoSuchNetwork, InvalidRequest, Forbidden, NetworkFailure,
        OSError; nothing is half made then.
        """
        mode, container_id = network_mode(record["HostConfig"]), record["Id"]
        self.check_links(record)
        configs = record.get("Endpoints") or {}
        if mode in ("host", "none") or not configs:
            settings = {name: self._alien(name, config) for name, config in configs.items()}
            own = "" if mode.startswith("container:") else container_id
            record["NetworkSettings"] = network_settings(settings, {}, own)
            return None
        exposed = self.exposed(record)
        ports = wanted_ports(record["HostConfig"], exposed)
        netns_fd = make_netns()
        try:
            self.networks.release(container_id)  # of an earlier life that nobody cleaned up
            name = record["Name"]
            settings = self.networks.attach_all(netns_fd, container_id, name, configs, ports)
            if any(network != "bridge" for network in settings):
                self._serve_names(record, netns_fd)
        except BaseException:
            self.networks.release(container_id, unplug=True)
            os.close(netns_fd)
            raise
        ends = self.networks.endpoints_of(container_id).values()
        outward = any(not end["Internal"] for end in ends)  # internal networks expose nothing
        found = port_map(self.networks.bindings(container_id), exposed if outward else ())
        record["NetworkSettings"] = network_settings(settings, found, container_id)
        return netns_fd

    def _alien(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """Return the EndpointSettings of host and none, which are no networks of ours; or InvalidRequest."""
        found = self.networks.find(name)
        check_wanted(found, config)
        return settings_of({**config, "NetworkID": found["Id"], "EndpointID": os.urandom(32).hex()})

    def _serve_names(self, record: dict[str, Any], netns_fd: int) -> None:
        """Have 127.0.0.11 answer inside a container."""
        servers = hosts.upstream_servers(_host_file("/etc/resolv.conf"), record["HostConfig"])
        if self.names is not None:
            self.names.add(record["Id"], netns_fd, servers)
            return
        from mini_docker.engine.dns import serve_alone

        serve_alone(self.networks.files.directory, record["Id"], netns_fd, servers)

    @staticmethod
    def exposed(record: dict[str, Any]) -> list[str]:
        """Return the ports that a container exposes: its own, its image's, and those it publishes."""
        sources = (
            record["Config"].get("ExposedPorts"),
            (record.get("ImageConfig") or {}).get("ExposedPorts"),
            record["HostConfig"].get("PortBindings"),
        )
        return sorted({key if "/" in key else f"{key}/tcp" for s in sources for key in s or ()})

    def files(self, record: dict[str, Any], hostname: str) -> dict[str, str]:
        """Return the texts of hostname, hosts and resolv.conf, which are bound over the image's."""
        host, mode = record["HostConfig"], network_mode(record["HostConfig"])
        if mode.startswith("container:"):
            directory = f"{self.root}/containers/{self.find(mode.partition(':')[2])['Id']}"
            names = ("hostname", "hosts", "resolv.conf")
            return {name: _host_file(f"{directory}/{name}") for name in names}
        if mode == "host":
            return {"hostname": f"{hostname}\n", **self._host_files(host)}
        embedded = any(name not in PREDEFINED for name in record.get("Endpoints") or {})
        resolv = hosts.resolv_text(_host_file("/etc/resolv.conf"), host, embedded)
        return {"hostname": f"{hostname}\n", "hosts": self.hosts(record), "resolv.conf": resolv}

    def _host_files(self, host: Mapping[str, Any]) -> dict[str, str]:
        """Return the files of names for the host's network: the host's, where nothing else is asked for."""
        extra, resolv = self._extra_hosts(host), _host_file("/etc/resolv.conf")
        asked = host.get("Dns") or host.get("DnsSearch") or host.get("DnsOptions")
        return {
            "hosts": hosts.hosts_text("", (), extra) if extra else _host_file("/etc/hosts"),
            "resolv.conf": hosts.resolv_text(resolv, host, False) if asked else resolv,
        }

    def shared_names(self, host: Mapping[str, Any]) -> dict[str, str]:
        """Return Config's Hostname and Domainname where another container's are shared, with its network."""
        kind, _, other = network_mode(host).partition(":")
        config = self.find(other)["Config"] if kind == "container" else {}
        return {key: config.get(key) or "" for key in ("Hostname", "Domainname") if config}

    def hosts(self, record: dict[str, Any]) -> str:
        """Return the text of /etc/hosts, for the networks that a container is on now."""
        networks = (record.get("NetworkSettings") or {}).get("Networks") or {}
        ends = sorted(networks.items())
        ips = [end[key] for _, end in ends for key in ("IPAddress", "GlobalIPv6Address")]
        host = record["HostConfig"]
        links = []
        for other, alias in self._linked(record):
            names = [alias, other["Config"].get("Hostname") or "", other["Name"]]
            names = [name for i, name in enumerate(names) if name not in names[:i]]
            links.append((_bridge_address(other), names))
        return hosts.hosts_text(_full_name(record), ips, self._extra_hosts(host), links)

    def _extra_hosts(self, host: Mapping[str, Any]) -> list[str]:
        """Return --add-host's "name:address", the host's own address in place of `host-gateway`."""
        found = list(host.get("ExtraHosts") or ())
        if not any(text.endswith(f":{hosts.HOST_GATEWAY}") for text in found):
            return found
        gateway = self.networks.find("bridge")["Pools"][0]["Gateway"]
        pairs = map(hosts.parse_extra_host, found)
        return [f"{name}:{gateway if ip == hosts.HOST_GATEWAY else ip}" for name, ip in pairs]

    def link_variables(self, record: dict[str, Any]) -> list[str]:
        """Return the environment that legacy links bring."""
        found: list[str] = []
        for other, alias in self._linked(record):
            own, ports, ip = (
                [*(other["Config"].get("Env") or ())],
                self.exposed(other),
                _bridge_address(other),
            )
            found += hosts.link_variables(record["Name"], alias, ip, ports, own)
        return found

    # --- end

    def detach(self, record: dict[str, Any]) -> None:
        """Free what a container that has ended had. Repeating it is fine."""
        if self.names is not None:
            self.names.remove(record["Id"])
        self.networks.release(record["Id"])
        self.volumes.release(record["Id"])
        settings = record.get("NetworkSettings") or {}
        if settings.get("Networks"):
            ends = {n: settings_of(_asked(end)) for n, end in settings["Networks"].items()}
            record["NetworkSettings"] = network_settings(ends, {})

    def resume(self, records: Iterable[dict[str, Any]], running: Collection[str] = ()) -> list[str]:
        """After a restart: reconcile the machine with the containers that live; return what was lost.

        Their ports are held again, their names served again, and what the dead left is removed. `running`
        are ids of containers that somebody else looks after: what is theirs stays.
        """
        living = {record["Id"]: record for record in records if record["State"].get("Pid")}
        self.networks.recover({*living, *running})
        self.volumes.recover({*living, *running})
        lost = self.networks.hold_ports(living)
        for container_id, record in living.items():
            ends = self.networks.endpoints_of(container_id).values()
            if not any(end["NetworkName"] != "bridge" for end in ends):
                continue
            netns_fd = open_netns(record)
            if netns_fd is None:
                continue
            try:
                self._serve_names(record, netns_fd)
            finally:
                os.close(netns_fd)
        return lost

    # --- connect and disconnect, while it runs or not

    def connect(self, record: dict[str, Any], network: str, config: dict[str, Any] | None) -> None:
        """Connect a container to one more network, now if it runs, else at its start; change its record.

        Raises Conflict where it has just ended, and what `attach` raises.
        """
        found, name = self.networks.find(network), record["Name"]
        endpoints = record.setdefault("Endpoints", {})
        mode, pid = network_mode(record["HostConfig"]), record["State"].get("Pid") or 0
        refuse_connect(found, mode, list(endpoints), bool(pid))
        wanted = dict(config or {})
        if pid:
            netns_fd = open_netns(record)
            if netns_fd is None:
                raise Conflict(f"Container {record['Id']} is not running")
            try:
                end = self.networks.attach(netns_fd, record["Id"], name, found["Id"], wanted)
                if found["Name"] != "bridge" and not self._is_served(record):
                    self._serve_names(record, netns_fd)
            finally:
                os.close(netns_fd)
        else:
            check_wanted(found, wanted)
            end = settings_of(with_short_id(found, record["Id"], wanted))
        endpoints[found["Name"]] = wanted
        settings = record.setdefault("NetworkSettings", network_settings({}, {}))
        settings.setdefault("Networks", {})[found["Name"]] = end
        self.write_names(record)

    def _is_served(self, record: dict[str, Any]) -> bool:
        return self.names is not None and record["Id"] in self.names.clients

    def disconnect(self, record: dict[str, Any], network: str, force: bool) -> None:
        """Take a container off a network. Raises NoSuchNetwork, NetworkFailure, InvalidRequest."""
        found = self.networks.find(network)
        endpoints, pid = record.get("Endpoints") or {}, record["State"].get("Pid") or 0
        if not pid and found["Name"] not in endpoints:
            words = f"container {record['Id']} is not connected to the network {found['Name']}"
            raise NetworkFailure(words)
        if found["Driver"] == "host" and pid:
            if found["Name"] not in endpoints:
                words = f"container {record['Id']} is not connected to network {found['Name']}"
                raise NetworkFailure(words)
            words = (
                "container cannot be disconnected from host network or connected to host network"
            )
            raise InvalidRequest(words)
        if found["Driver"] == "bridge" and (pid or found["Name"] not in endpoints):
            netns_fd = open_netns(record)  # without one, its cables are gone as well
            # what was never connected is an error still
            force = force and found["Name"] in endpoints
            try:
                self.networks.detach(record["Id"], found["Id"], netns_fd, force)
            finally:
                if netns_fd is not None:
                    os.close(netns_fd)
        endpoints.pop(found["Name"], None)
        settings = record.get("NetworkSettings") or {}
        (settings.get("Networks") or {}).pop(found["Name"], None)
        self.write_names(record)

    def write_names(self, record: dict[str, Any], unlinked: str = "") -> None:
        """Bring hosts and resolv.conf of a running container up to date, in place: they are bound, new
        files would not be. What was written into them by hand stays; `unlinked` is a name that goes."""
        directory = f"{self.root}/containers/{record['Id']}"
        if not record["State"].get("Pid") or not os.path.exists(f"{directory}/hosts"):
            return
        texts = self.files(record, record["Config"].get("Hostname") or "")
        gone = (_full_name(record), unlinked)
        _rewrite(f"{directory}/hosts", lambda text: hosts.amended(text, texts["hosts"], *gone))
        theirs = _host_file("/etc/resolv.conf")
        made = [hosts.resolv_text(theirs, record["HostConfig"], on) for on in (True, False)]
        new = texts["resolv.conf"]
        _rewrite(f"{directory}/resolv.conf", lambda text: new if text in made else text)


def _rewrite(path: str, change: Callable[[str], str]) -> None:
    with open(path, "r+") as file:
        text = change(file.read())
        file.seek(0)
        file.write(text)
        file.truncate()


def _full_name(record: dict[str, Any]) -> str:
    """Return a container's name for itself, with its domain."""
    config = record["Config"]
    return ".".join(filter(None, (config.get("Hostname"), config.get("Domainname"))))


def _networks(record: dict[str, Any]) -> Collection[str]:
    """Return the names of the networks that a container is on, or will be."""
    return record.get("Endpoints") or ()


def _bridge_address(record: dict[str, Any]) -> str:
    """Return a container's address on the default network, "" where it has none now."""
    networks = (record.get("NetworkSettings") or {}).get("Networks") or {}
    return str(networks.get("bridge", {}).get("IPAddress") or "")


def _asked(end: dict[str, Any]) -> dict[str, Any]:
    """Return of an endpoint's settings what was asked for; the rest ended with the container."""
    return {
        key: end.get(key) for key in ("IPAMConfig", "Links", "Aliases", "DriverOpts", "NetworkID")
    }


def _host_file(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
