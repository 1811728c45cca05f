# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#system-module
"""The routes about the engine itself: who are you, how much do you hold, what happens."""

from __future__ import annotations

import json
import os
import threading
from glob import glob

from mini_docker import __version__
from mini_docker.api.containers import listed_sizes
from mini_docker.api.http import HttpError
from mini_docker.api.routes import NEWEST, OLDEST, Route, text
from mini_docker.api.streams import moment_of
from mini_docker.cgroups.tree import hierarchies
from mini_docker.engine.filters import has_labels
from mini_docker.engine.moments import SECOND, moment
from mini_docker.engine.views import summary
from mini_docker.engine.volumes import usage
from mini_docker.engine.wishes import RUNTIMES, lacking
from mini_docker.images import catalog
from mini_docker.images.layout import ARCHITECTURE
from mini_docker.security.labels import enabled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.api.routes import Call
    from mini_docker.cgroups.tree import Hierarchies


# %% notebooks/18_http_api.ipynb#ping
NO_CACHE = [("Cache-Control", "no-cache, no-store, must-revalidate"), ("Pragma", "no-cache")]
PLAIN = "text/plain; charset=utf-8"


def ping(call: Call) -> None:
    """GET /_ping."""
    call.reply.send_bytes(200, PLAIN, b"OK", NO_CACHE)


def ping_head(call: Call) -> None:
    """HEAD /_ping: the first request of every docker command."""
    call.reply.empty(200, [("Content-Type", PLAIN), *NO_CACHE])


def version(call: Call) -> None:
    """GET /version."""
    machine = os.uname()
    about = {
        "Version": __version__,
        "ApiVersion": text(NEWEST),
        "MinAPIVersion": text(OLDEST),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": ARCHITECTURE.get(machine.machine, machine.machine),
        "KernelVersion": machine.release,
        "BuildTime": "",
    }
    names = "ApiVersion Arch BuildTime GitCommit GoVersion KernelVersion MinAPIVersion Os".split()
    details = {key: about[key] for key in names}
    engine = {
        "Name": "Engine",
        "Version": __version__,
        "Details": {**details, "Experimental": "false"},
    }
    call.reply.send_json(
        200, {"Platform": {"Name": "mini_docker"}, "Components": [engine], **about}
    )


# %% notebooks/18_http_api.ipynb#info
ABLE = {  # a field, the key of linux.resources that it tells of, and what is said for want of it
    "MemoryLimit": ("memory.limit", "memory limit"),
    "SwapLimit": ("memory.swap", "swap limit"),
    "OomKillDisable": ("memory.disableOOMKiller", "oom kill disable"),
    "CpuCfsQuota": ("cpu.quota", "cpu cfs quota"),
    "CpuCfsPeriod": ("cpu.period", "cpu cfs period"),
    "CPUShares": ("cpu.shares", "cpu shares"),
    "CPUSet": ("cpu.cpus", "cpuset"),
    "PidsLimit": ("pids.limit", "pids limit"),
}
EVERY_LIMIT: dict[str, Any] = {
    "memory": {"limit": 1 << 30, "swap": 1 << 31, "disableOOMKiller": True},
    "cpu": {"quota": 1000, "period": 1000, "shares": 1024, "cpus": "0"},
    "pids": {"limit": 1},
}
CONSTANT: dict[str, Any] = {
    "Plugins": {
        "Volume": ["local"],
        "Network": ["bridge", "host", "null"],
        "Authorization": None,
        "Log": ["json-file", "local"],
    },
    "LoggingDriver": "json-file",
    "CgroupDriver": "cgroupfs",
    "NEventsListener": 0,
    "OSType": "linux",
    "IndexServerAddress": "https://index.docker.io/v1/",
    "RegistryConfig": {
        "InsecureRegistryCIDRs": ["127.0.0.0/8"],
        "IndexConfigs": {
            "docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}
        },
        "Mirrors": [],
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
    },
    "Labels": [],
    "ExperimentalBuild": False,
    "ServerVersion": __version__,
    "Runtimes": {name: {"path": "mini_runc"} for name in RUNTIMES},
    "DefaultRuntime": RUNTIMES[0],
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "InitBinary": "docker-init",
    "ContainerdCommit": {"ID": "", "Expected": ""},
    "RuncCommit": {"ID": "", "Expected": ""},
    "InitCommit": {"ID": "", "Expected": ""},
    "GenericResources": None,
    "Isolation": "",
    "KernelMemory": False,
    "KernelMemoryTCP": False,
    "IPv4Forwarding": True,  # we switch it on
    "LiveRestoreEnabled": True,
    "HttpProxy": "",
    "HttpsProxy": "",
    "NoProxy": "",
    "Debug": False,
}


def info(call: Call) -> None:
    """GET /info."""
    engine, machine = call.engine, os.uname()
    states = [container.state["Status"] for container in engine.containers.all()]
    found: dict[str, Any] = {
        "ID": engine.identity,
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "SecurityOptions": security_options(engine.remap is not None),
        "Driver": engine.store.roots.name,
        "DriverStatus": engine.store.roots.status(),
        "Images": len(catalog.records(engine.store.layout)),
        "SystemTime": moment(engine.now()),
        "CgroupVersion": "2" if hierarchies().version == "v2" else "1",
        "KernelVersion": machine.release,
        "OperatingSystem": release().get("PRETTY_NAME", "Linux"),
        "OSVersion": release().get("VERSION_ID", ""),
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": threading.active_count(),
        "Architecture": machine.machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "DockerRootDir": engine.store.root,
        "Name": machine.nodename,
    }
    call.reply.send_json(200, {**CONSTANT, **found, **abilities(hierarchies())})


def limits_swap(trees: Hierarchies) -> bool:
    """Say whether swap is counted and limited; v2's root has no file that tells, the groups below it have."""
    tree = trees.tree_of("memory") or ""
    if not trees.speaks_v2("memory"):
        return os.path.exists(f"{tree}/memory.memsw.limit_in_bytes")
    return bool(glob(f"{tree}/*/memory.swap.max")) or not glob(f"{tree}/*/memory.max")


def abilities(trees: Hierarchies) -> dict[str, Any]:
    """Return what the kernel can limit and filter here, and Docker's warnings of what it cannot."""
    missing = lacking(trees, EVERY_LIMIT) | (set() if limits_swap(trees) else {"memory.swap"})
    able = {field: key not in missing for field, (key, _) in ABLE.items()}
    sees = {key: bridge_sees(name) for key, name in BRIDGE_FILTERS.items()}
    told = [field for field in ABLE if trees.version != "v2" or field != "OomKillDisable"]
    warnings = [f"WARNING: No {ABLE[field][1]} support" for field in told if not able[field]]
    warnings += [f"WARNING: {BRIDGE_FILTERS[key]} is disabled" for key in sees if not sees[key]]
    return {**able, **sees, "Warnings": warnings or None}


def security_options(remapped: bool) -> list[str]:
    """Return Docker's words for what isolates containers here."""
    own_users = ["name=userns"] if remapped else []
    return [*(f"name={name}" for name in ("apparmor", "selinux") if enabled(name)),
            "name=seccomp,profile=default", *own_users]  # fmt: skip


BRIDGE_FILTERS = {
    "BridgeNfIptables": "bridge-nf-call-iptables",
    "BridgeNfIp6tables": "bridge-nf-call-ip6tables",
}


def bridge_sees(name: str) -> bool:
    """Return whether what crosses a bridge passes the firewall too: a switch of br_netfilter."""
    try:
        with open(f"/proc/sys/net/bridge/{name}") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def release() -> dict[str, str]:
    """Return what os-release(5) says of the operating system."""
    try:
        with open("/etc/os-release") as file:
            parts = [line.strip().partition("=") for line in file]
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _, value in parts}


def disk_usage(call: Call) -> None:
    """GET /system/df."""
    engine = call.engine
    containers = engine.containers.all()
    images = catalog.list_images(engine.store.layout)
    for image in images:
        image["SharedSize"] = 0
        image["Containers"] = sum(c.record.get("ImageID") == image["Id"] for c in containers)
    volumes = engine.wiring.volumes.listing()["Volumes"] or []
    users = engine.containers.volume_users()
    for volume in volumes:
        size = usage(volume["Mountpoint"])
        volume["UsageData"] = {"Size": size, "RefCount": len(users.get(volume["Name"], ()))}
    links, named = engine.containers.link_names(), engine.image_names()
    sized = [
        {**summary(c, named, links.get(c.id, ())), **listed_sizes(call, c)} for c in containers
    ]
    total = sum(image["Size"] for image in images)
    found = {"LayersSize": total, "Images": images, "Containers": sized, "Volumes": volumes}
    call.reply.send_json(200, {**found, "BuildCache": None, "BuilderSize": 0})


# %% notebooks/18_http_api.ipynb#events
EVENT_FILTERS = frozenset(
    "config container daemon event image label network node plugin scope secret service type volume".split()
)


def events(call: Call) -> None:
    """GET /events: the past from `since` on, then what happens, until `until` or for ever."""
    request = call.request
    # what is no filter is not looked at, as in Docker
    filters = {name: values for name, values in request.filters().items() if name in EVENT_FILTERS}
    texts = (request.query.get(name, "") for name in ("since", "until"))
    since, until = (moment_of(text) if text else None for text in texts)
    if since is not None and until is not None and since > until:
        raise HttpError(
            400,
            f"`since` time ({since // SECOND}) cannot be after `until` time ({until // SECOND})",
        )
    found = call.engine.events.follow(since, until, lambda: call.engine.stopping)
    piece = call.reply.stream_out("application/json")  # who has this head misses nothing any more
    for event in found:
        if event is None:
            if call.reply.gone():
                return
        elif event_matches(event, filters):
            piece(json.dumps(event, separators=(",", ":")).encode() + b"\n")
    call.reply.end()


def event_matches(event: dict[str, Any], filters: dict[str, list[str]]) -> bool:
    """Return whether an event passes: values of one filter are alternatives, but for labels."""
    kind, actor = event["Type"], event["Actor"]
    attributes = actor["Attributes"]
    for name, values in filters.items():
        if name == "type":
            passes = kind in values
        elif name == "event":
            passes = event["Action"].partition(":")[0] in values or event["Action"] in values
        elif name == "label":
            passes = has_labels(attributes, values)
        elif name == "scope":
            passes = event["scope"] in values
        elif name == "image":
            names = {attributes.get("image", ""), attributes.get("name", "")} | {actor["ID"]}
            passes = any(value in names or f"{value}:latest" in names for value in values)
        else:
            own = kind == name and any(
                actor["ID"].startswith(value) or attributes.get("name") == value for value in values
            )
            passes = own or any(attributes.get(name) == value for value in values if value)
        if not passes:
            return False
    return True


# %% notebooks/18_http_api.ipynb#system-routes
SYSTEM = "System"
SYSTEM_ROUTES = (
    Route("GET", "/_ping", ping, SYSTEM),
    Route("HEAD", "/_ping", ping_head, SYSTEM),
    Route("GET", "/version", version, SYSTEM),
    Route("GET", "/info", info, SYSTEM),
    Route("GET", "/events", events, SYSTEM),
    Route("GET", "/system/df", disk_usage, SYSTEM),
)
