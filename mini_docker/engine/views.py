# Exported from notebooks/14h_asking.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14h_asking.ipynb#views-module
"""A container as Docker shows it: its inspect document, its line in a list, and the list's filters."""

from __future__ import annotations

import re

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.filters import check_filters, check_truths, has_labels
from mini_docker.engine.logs import log_path
from mini_docker.engine.moments import SECOND, moment
from mini_docker.engine.patterns import found_in
from mini_docker.engine.states import STATES, status_words
from mini_docker.engine.store import NoSuchContainer
from mini_docker.security.paths import MASKED, READONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from mini_docker.engine.container import Container
    from mini_docker.engine.containers import Containers

    Filters = dict[str, list[str]]


# %% notebooks/14h_asking.ipynb#view-defaults
NEVER = "0001-01-01T00:00:00Z"
# What a HostConfig says where its request said nothing. Source: Docker's own answers.
HOST_DEFAULTS: dict[str, Any] = {
    "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "default", "PortBindings": None, "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
    "AutoRemove": False, "VolumeDriver": "", "VolumesFrom": None, "CapAdd": None, "CapDrop": None,
    "CgroupnsMode": "private", "Dns": None, "DnsOptions": None, "DnsSearch": None, "ExtraHosts": None,
    "GroupAdd": None, "IpcMode": "private", "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "",
    "Privileged": False, "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None,
    "UTSMode": "", "UsernsMode": "", "ShmSize": 67108864, "Runtime": "mini_runc", "ConsoleSize": [0, 0],
    "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0,
    "BlkioWeightDevice": None, "BlkioDeviceReadBps": None, "BlkioDeviceWriteBps": None,
    "BlkioDeviceReadIOps": None, "BlkioDeviceWriteIOps": None, "CpuPeriod": 0, "CpuQuota": 0,
    "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": None,
    "DeviceCgroupRules": None, "DeviceRequests": None, "KernelMemory": 0, "KernelMemoryTCP": 0,
    "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": None, "OomKillDisable": False,
    "PidsLimit": None, "Ulimits": None, "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}  # fmt: skip
CONFIG_DEFAULTS: dict[str, Any] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
    "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": [], "Cmd": None,
    "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
}  # fmt: skip


def with_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return `given` with what it leaves out, or says nothing to where the default says something."""
    given = {
        key: None if value == "" and defaults.get(key) else value for key, value in given.items()
    }
    kept = {
        key: value for key, value in given.items() if value is not None or defaults.get(key) is None
    }
    return {**defaults, **kept}


def seconds_text(seconds: float | None) -> str:
    """Return a time (seconds since 1970) as Docker writes it; None is Go's year 1."""
    return NEVER if seconds is None else moment(int(seconds * SECOND))


# %% notebooks/14h_asking.ipynb#view-state
def state_view(record: dict[str, Any]) -> dict[str, Any]:
    """Return the State object of an inspect document."""
    state = record["State"]
    status = state["Status"]
    health = {"Health": state["Health"]} if state.get("Health") else {}
    return {
        "Status": status,
        "Running": status in ("running", "paused", "restarting"),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": bool(state.get("OOMKilled")),
        "Dead": status == "dead",
        "Pid": state["Pid"],
        "ExitCode": state["ExitCode"],
        "Error": state.get("Error", ""),
        "StartedAt": seconds_text(state.get("StartedAt")),
        "FinishedAt": seconds_text(state.get("FinishedAt")),
        **health,
    }


# %% notebooks/14h_asking.ipynb#view-config
def host_view(host: dict[str, Any]) -> dict[str, Any]:
    """Return the HostConfig of an inspect document: numbers that say "no limit" are null there."""
    found = with_defaults(HOST_DEFAULTS, host)
    if found["MemorySwappiness"] == -1:
        found["MemorySwappiness"] = None
    found["PidsLimit"] = found["PidsLimit"] or None
    found["ShmSize"] = found["ShmSize"] or HOST_DEFAULTS["ShmSize"]
    log = found["LogConfig"]
    found["LogConfig"] = {"Type": log.get("Type") or "json-file", "Config": log.get("Config") or {}}
    if found["NetworkMode"] == "bridge" and host.get("NetworkModeAsked"):
        found["NetworkMode"] = host["NetworkModeAsked"]
    found.pop("NetworkModeAsked", None)
    hidden = (None, None) if found["Privileged"] else (list(MASKED), list(READONLY))
    for key, paths in zip(("MaskedPaths", "ReadonlyPaths"), hidden, strict=True):
        found[key] = paths if found.get(key) is None else found[key]
    found["PortBindings"] = bindings_view(found["PortBindings"])
    return found


def bindings_view(asked: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return PortBindings with both fields in each of them."""
    if asked is None:
        return None
    return {
        port: [{"HostIp": "", "HostPort": "", **one} for one in given or ()] if given else given
        for port, given in asked.items()
    }


def config_view(config: dict[str, Any]) -> dict[str, Any]:
    """Return the Config of an inspect document: it says nothing of ports where there are none."""
    found = with_defaults(CONFIG_DEFAULTS, config)
    if not found.get("ExposedPorts"):
        found.pop("ExposedPorts", None)
    return found


# %% notebooks/14h_asking.ipynb#inspect
def inspect(containers: Containers, container: Container, execs: list[str]) -> dict[str, Any]:
    """Return what `docker inspect` shows of a container."""
    record = container.record
    directory = containers.store.directory(container.id)
    return {
        "Id": container.id,
        "Created": seconds_text(record["Created"]),
        "Path": record["Command"][0],
        "Args": record["Command"][1:],
        "State": state_view(record),
        "Image": record.get("ImageID", ""),
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": shown_log_path(record, directory),
        "Name": f"/{container.name}",
        "RestartCount": record.get("RestartCount", 0),
        "Driver": containers.store.roots.name,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs or None,
        "HostConfig": {
            **host_view(record["HostConfig"]),
            "Links": containers.links_of(container) or None,
        },
        "GraphDriver": {
            "Name": containers.store.roots.name,
            "Data": containers.store.roots.data(record),
        },
        "Mounts": record.get("Mounts", []),
        "Config": config_view(record["Config"]),
        "NetworkSettings": network_view(record),
    }


def shown_log_path(record: dict[str, Any], directory: str) -> str:
    """Return where a container's log is; only of the json-file driver Docker tells it."""
    driver = (record["HostConfig"].get("LogConfig") or {}).get("Type") or "json-file"
    return log_path(directory, record["Id"]) if driver == "json-file" else ""


# %% notebooks/14h_asking.ipynb#network-view
EMPTY_ENDPOINT: dict[str, Any] = {
    "IPAMConfig": None, "Links": None, "Aliases": None, "NetworkID": "", "EndpointID": "", "Gateway": "",
    "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0, "MacAddress": "", "DriverOpts": None,
}  # fmt: skip
OF_BRIDGE = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen",
    "IPv6Gateway", "MacAddress",
)  # fmt: skip


def endpoints(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the endpoints of a container by network; before its start, those it is going to have."""
    networks = (record.get("NetworkSettings") or {}).get("Networks") or {}
    return {name: {**EMPTY_ENDPOINT, **end} for name, end in sorted(networks.items())}


def network_view(record: dict[str, Any]) -> dict[str, Any]:
    """Return the NetworkSettings object of an inspect document."""
    settings = record.get("NetworkSettings") or {}
    networks = endpoints(record)
    bridge = networks.get("bridge", EMPTY_ENDPOINT)
    pid = record["State"].get("Pid") if settings.get("SandboxID") else 0
    return {
        "Bridge": "",
        "SandboxID": settings.get("SandboxID", ""),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": settings.get("Ports") or {},
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: bridge[key] for key in OF_BRIDGE},
        "Networks": networks,
    }


def ports_view(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Ports of a line of the list."""
    found = []
    for port, bindings in ((record.get("NetworkSettings") or {}).get("Ports") or {}).items():
        number, _, protocol = port.partition("/")
        if not bindings:
            found.append({"PrivatePort": int(number), "Type": protocol})
        for binding in bindings or ():
            public = int(binding["HostPort"])
            found.append(
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": public,
                    "Type": protocol,
                }
            )
    return found


# %% notebooks/14h_asking.ipynb#summary
def shown_image(record: dict[str, Any], named: Mapping[str, str]) -> str:
    """Return what a list says of a container's image: the name it came by, as long as that means the same.

    `named` are the images' ids by their names.
    """
    asked: str = record["Config"]["Image"]
    image_id: str = record.get("ImageID", "")
    short = image_id.removeprefix("sha256:").startswith(asked.removeprefix("sha256:"))
    return asked if short or named.get(record["Image"]) == image_id else image_id


def summary(
    container: Container, named: Mapping[str, str], links: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a container's entry in the list; `links` are names that it has there ("/web/db").

    `named` are the images' ids by their names.
    """
    record = container.record
    return {
        "Id": container.id,
        "Names": sorted((f"/{container.name}", *links)),
        "Image": shown_image(record, named),
        "ImageID": record.get("ImageID", ""),
        "Command": " ".join(map(_quoted, record["Command"])),
        "Created": int(record["Created"]),
        "Ports": ports_view(record),
        "Labels": record["Config"].get("Labels") or {},
        "State": record["State"]["Status"],
        "Status": status_words(record),
        "HostConfig": {
            "NetworkMode": record["HostConfig"]["NetworkMode"].replace("bridge", "default")
        },
        "NetworkSettings": {
            "Networks": {name: {**end, "Aliases": None} for name, end in endpoints(record).items()}
        },
        "Mounts": record.get("Mounts", []),
    }


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


# %% notebooks/14h_asking.ipynb#filters-values
KNOWN = frozenset(
    "ancestor before exited expose health id isolation is-task label name network publish since "
    "status volume".split()
)


HEALTH = ("starting", "healthy", "unhealthy", "none")


def check_values(filters: Filters) -> None:
    """Raise InvalidRequest, in Docker's words, for a value that its filter cannot have."""
    for status in filters.get("status", ()):
        if status not in STATES:
            raise InvalidRequest(f"Invalid filter 'status={status}'")
    for health in filters.get("health", ()):
        if health not in HEALTH:
            raise InvalidRequest(f"Unrecognised filter value for health: {health}")
    for code in filters.get("exited", ()):
        if not code.removeprefix("-").isdigit():
            raise InvalidRequest(f'strconv.Atoi: parsing "{code}": invalid syntax')
    check_truths(filters, "is-task")
    for key in ("publish", "expose"):
        for text in filters.get(key, ()):
            if not re.fullmatch(r"\d+(-\d+)?(/\w+)?", text):
                words = f'strconv.ParseUint: parsing "{text}": invalid syntax'
                raise InvalidRequest(f"error while looking up for {key} {text}: {words}")


def matches_name(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name, with or without its slash, has one of the regular expressions in it."""
    try:
        return any(found_in(p, name) or found_in(p, f"/{name}") for p in patterns)
    except re.error:  # then no name has it, as in Docker
        return False


# %% notebooks/14h_asking.ipynb#filters
def list_containers(
    containers: Containers,
    filters: Filters,
    everything: bool,
    limit: int,
    image_ids: Callable[[str], set[str]],
) -> list[Container]:
    """Return the containers that the list shows, newest first: the running ones, or `everything`.

    `limit` above 0 shows the newest so many; `image_ids(name)` are the images for `ancestor`. Raises
    InvalidRequest.
    """
    check_filters(filters, KNOWN)
    check_values(filters)
    everything = everything or limit > 0 or bool(filters.keys() & {"status", "exited"})
    everything = everything or bool(filters.keys() & {"before", "since"})
    tests = _tests(containers, filters, image_ids)
    found = []
    for container in containers.all():
        if (everything or container.alive or container.state["Status"] == "restarting") and all(
            test(container) for test in tests
        ):
            found.append(container)
        if 0 < limit <= len(found):
            break
    return found


def _tests(
    containers: Containers, filters: Filters, image_ids: Callable[[str], set[str]]
) -> list[Callable[[Container], bool]]:
    """Return one function for each filter: values of one filter are alternatives, labels are not."""
    makers: dict[str, Callable[[list[str]], Callable[[Container], bool]]] = {
        "label": lambda values: (
            lambda c: has_labels(c.record["Config"].get("Labels") or {}, values)
        ),
        "name": lambda values: lambda c: matches_name(c.name, values),
        "id": lambda values: lambda c: any(c.id.startswith(value) for value in values),
        "status": lambda values: lambda c: c.state["Status"] in values,
        "exited": lambda values: (
            lambda c: str(c.state["ExitCode"]) in values and c.state["Status"] == "exited"
        ),
        "health": lambda values: (
            lambda c: (c.state.get("Health") or {}).get("Status", "none") in values
        ),
        "network": lambda values: lambda c: _in_networks(c, values),
        "volume": lambda values: (
            lambda c: any(
                mount.get("Name") in values or mount["Destination"] in values
                for mount in c.record.get("Mounts", ())
            )
        ),
        "before": lambda values: _created_before(containers, values, True),
        "since": lambda values: _created_before(containers, values, False),
        "ancestor": lambda values: _descends_from(set().union(*map(image_ids, values))),
        "publish": lambda values: lambda c: _has_port(c, values, "PublicPort"),
        "expose": lambda values: lambda c: _has_port(c, values, "PrivatePort"),
        "isolation": lambda values: lambda c: True,
        "is-task": lambda values: lambda c: "true" not in values and "1" not in values,
    }
    return [makers[name](values) for name, values in filters.items()]


# %% notebooks/14h_asking.ipynb#filters-tests
def _in_networks(container: Container, wanted: list[str]) -> bool:
    for name, endpoint in endpoints(container.record).items():
        if name in wanted or endpoint["NetworkID"] in wanted:
            return True
    return False


def _created_before(
    containers: Containers, values: list[str], before: bool
) -> Callable[[Container], bool]:
    try:
        moments = [float(containers.find(value).record["Created"]) for value in values]
    except NoSuchContainer as error:
        raise InvalidRequest(
            str(error).replace("No such container: ", "no such container ")
        ) from None
    if before:
        return lambda container: float(container.record["Created"]) < min(moments)
    return lambda container: float(container.record["Created"]) > max(moments)


def _descends_from(image_ids: set[str]) -> Callable[[Container], bool]:
    return lambda container: container.record.get("ImageID") in image_ids


def _has_port(container: Container, wanted: list[str], key: str) -> bool:
    for port in ports_view(container.record):
        for text in wanted:
            number, _, protocol = text.partition("/")
            first, _, last = number.partition("-")
            if protocol in ("", port["Type"]) and int(first) <= port.get(key, -1) <= int(
                last or first
            ):
                return True
    return False
