# Exported from notebooks/14b_documents.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14b_documents.ipynb#document-module
"""From Docker's words to the kernel's: a create request becomes an OCI runtime document."""

from __future__ import annotations

import os
import posixpath

from mini_docker.engine.modes import cgroup_path, check_modes, namespaces, shared_memory
from mini_docker.engine.privileges import check_privileges, harden
from mini_docker.engine.wishes import check_devices, check_wishes
from mini_docker.namespaces.mnt import DEFAULT_MOUNTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from mini_docker.namespaces.user import User


# %% notebooks/14b_documents.ipynb#command-and-environment
OCI_VERSION = "1.2.0"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINIMUM_MEMORY = 6 << 20
REALTIME = ("realtimePeriod", "realtimeRuntime")
# Docker's own list: zero null urandom random tty console; a file system made by a container is not read
DEVICES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    *({"allow": True, "type": "c", "major": 1, "minor": n, "access": "rwm"} for n in (5, 3, 9, 8)),
    *({"allow": True, "type": "c", "major": 5, "minor": n, "access": "rwm"} for n in (0, 1)),
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)


class InvalidRequest(ValueError):
    """A create request that Docker answers with 400; the text is for the user."""


def command(request: dict[str, Any], image: dict[str, Any]) -> list[str]:
    """Return what to execute: the request's entry point and words, or the image's. Raises InvalidRequest."""
    entrypoint = request.get("Entrypoint")
    if entrypoint == [""]:  # Docker's word for: none, and not the image's either
        entrypoint = []
    if entrypoint is None:
        words = request.get("Cmd") or image.get("Cmd") or []
        entrypoint = image.get("Entrypoint") or []
    else:
        words = request.get("Cmd") or []
    if not [*entrypoint, *words]:
        raise InvalidRequest("No command specified")
    return [*entrypoint, *words]


def environment(request: dict[str, Any], image: dict[str, Any], home: str) -> list[str]:
    """Return process.env: PATH, the image's, HOSTNAME, TERM with a terminal, the request's; later wins."""
    merged = {"PATH": DEFAULT_PATH.partition("=")[2]}
    hostname = [f"HOSTNAME={request['Hostname']}"]
    terminal = ["TERM=xterm"] if request.get("Tty") else []
    given = [*(image.get("Env") or ()), *(request.get("Env") or ())]
    for entry in [*hostname, *terminal, *given]:
        name, value, text = entry.partition("=")
        if value:
            merged[name] = text
        else:
            merged.pop(name, None)
    merged.setdefault("HOME", home or "/")
    return [f"{name}={value}" for name, value in merged.items()]


# %% notebooks/14b_documents.ipynb#limits
def resources(host: dict[str, Any]) -> dict[str, Any]:
    """Return linux.resources from a HostConfig. Raises InvalidRequest for limits Docker refuses."""
    found = {"memory": memory_limits(host), "cpu": cpu_limits(host), "blockIO": disk_limits(host)}
    if host.get("PidsLimit"):
        found["pids"] = {"limit": host["PidsLimit"]}
    return {name: limits for name, limits in found.items() if limits}


def memory_limits(host: dict[str, Any]) -> dict[str, Any]:
    """Return linux.resources.memory: bytes; without a word about swap, as much of it as of memory."""
    memory, swap = host.get("Memory") or 0, host.get("MemorySwap") or 0
    reserved, swappiness = host.get("MemoryReservation") or 0, host.get("MemorySwappiness")
    if memory and memory < MINIMUM_MEMORY:
        raise InvalidRequest("Minimum memory limit allowed is 6MB")
    if 0 < swap < memory:
        raise InvalidRequest(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if swap > 0 and not memory:
        raise InvalidRequest(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if 0 < reserved < MINIMUM_MEMORY:
        raise InvalidRequest("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reserved:
        raise InvalidRequest(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if 0 < (host.get("KernelMemory") or 0) < MINIMUM_MEMORY:
        raise InvalidRequest("Minimum kernel memory limit allowed is 6MB")
    if swappiness not in (None, -1) and not 0 <= swappiness <= 100:
        raise InvalidRequest(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    found = {"limit": memory, "swap": max(swap, -1) or 2 * memory, "reservation": max(reserved, 0)}
    found["disableOOMKiller"] = bool(host.get("OomKillDisable"))
    found = {name: value for name, value in found.items() if value}
    return found | ({} if swappiness in (None, -1) else {"swappiness": swappiness})


def cpu_limits(host: dict[str, Any]) -> dict[str, Any]:
    """Return linux.resources.cpu: times in microseconds; NanoCpus are billionths of a processor."""
    nano, cpus = host.get("NanoCpus") or 0, os.cpu_count() or 1
    period, quota = host.get("CpuPeriod") or 0, host.get("CpuQuota") or 0
    for name, value in (("Period", period), ("Quota", quota)):
        if nano and value:
            raise InvalidRequest(
                f"Conflicting options: Nano CPUs and CPU {name} cannot both be set"
            )
    if nano and not 10_000_000 <= nano <= cpus * 1_000_000_000:
        raise InvalidRequest(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if period and not 1000 <= period <= 1_000_000:
        raise InvalidRequest(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise InvalidRequest("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    window, runtime = (host.get(f"CpuRealtime{word}") or 0 for word in ("Period", "Runtime"))
    if 0 < window < runtime:
        raise InvalidRequest("cpu real-time runtime cannot be higher than cpu real-time period")
    if nano:
        period, quota = 100_000, nano // 10_000
    found = {"period": period, "quota": quota}
    found["shares"] = host.get("CpuShares") or 0
    found |= {key: host.get(f"Cpuset{key.title()}") for key in ("cpus", "mems")}
    found |= {key: host.get("Cpu" + key[0].upper() + key[1:]) for key in REALTIME}
    return {name: value for name, value in found.items() if value}


def disk_limits(host: dict[str, Any]) -> dict[str, Any]:
    """Return linux.resources.blockIO: a weight, and bytes or operations a second of single disks."""
    weight = host.get("BlkioWeight") or 0
    if weight and not 10 <= weight <= 1000:
        raise InvalidRequest("Range of blkio weight is from 10 to 1000")
    found: dict[str, Any] = {"weight": weight} if weight else {}
    for name in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps"):
        if listed := host.get(f"BlkioDevice{name}"):
            key = f"throttle{name.replace('IOps', 'IOPS')}Device"
            found[key] = [{**disk_number(entry), "rate": entry["Rate"]} for entry in listed]
    if listed := host.get("BlkioWeightDevice"):
        found["weightDevice"] = [{**disk_number(e), "weight": e["Weight"]} for e in listed]
    return found


def disk_number(entry: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of the device that an entry's Path names. Raises InvalidRequest."""
    try:
        number = os.stat(entry["Path"]).st_rdev
    except OSError as error:
        words = str(error.strerror).lower()
        raise InvalidRequest(f"stat {entry['Path']}: {words}") from None
    return {"major": os.major(number), "minor": os.minor(number)}


# %% notebooks/14b_documents.ipynb#binds
def mounts(
    volumes: Sequence[dict[str, Any]], directory: str, read_only: bool = False
) -> list[dict[str, Any]]:
    """Return all mounts: the defaults, the three files Docker writes for each container, the volumes.

    `volumes` are OCI mounts; chapter 16 makes them of -v and its kin. The files of a `read_only` root
    cannot be written either.
    """
    files = [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{directory}/{name}",
            "options": ["rbind", "rprivate", *(["ro"] if read_only else [])],
        }
        for name in ("resolv.conf", "hostname", "hosts")
    ]
    found = [*files, *volumes]
    # what lies inside another comes after it; of two on the same place the user's comes last, and wins
    found.sort(key=lambda mount: posixpath.normpath(mount["destination"]).count("/"))
    return [*map(dict, DEFAULT_MOUNTS), *found]


# %% notebooks/14b_documents.ipynb#document
def check_host_config(host: dict[str, Any], hostname: str = "") -> None:
    """Refuse at create what Docker refuses then. Raises InvalidRequest."""
    try:
        check_modes(host, hostname)
        check_wishes(host)
        check_privileges(host)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


INIT, INITS = "/sbin/docker-init", ("/usr/bin/tini-static", "/usr/bin/docker-init")


def add_init(spec: dict[str, Any]) -> None:
    """Put a small init before the command (--init): it reaps orphans and passes signals on.

    Raises InvalidRequest, with the remedy, where the machine has none.
    """
    found = next((path for path in INITS if os.path.exists(path)), None)
    if found is None:
        raise InvalidRequest("--init: this machine has no tini; remedy: apt-get install tini")
    options = ["bind", "ro"]
    spec["mounts"].append(
        {"destination": INIT, "type": "bind", "source": found, "options": options}
    )
    spec["process"]["args"] = [INIT, "--", *spec["process"]["args"]]


def document(
    request: dict[str, Any], image: dict[str, Any], container_id: str, directory: str, user: User
) -> dict[str, Any]:
    """Return the OCI runtime document of a container.

    `request` is the body of Docker's POST /containers/create, `image` the config object of its
    image, `directory` the container's own on the host. Raises InvalidRequest.
    """
    host = request["HostConfig"]
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "hostname": "" if host.get("UTSMode") == "host" else request["Hostname"],
        "domainname": "" if host.get("UTSMode") == "host" else request.get("Domainname") or "",
        "root": {"path": f"{directory}/rootfs", "readonly": bool(host.get("ReadonlyRootfs"))},
        "process": {
            "terminal": bool(request.get("Tty")),
            "args": command(request, image),
            "env": environment(request, image, user.home),
            "cwd": request.get("WorkingDir") or image.get("WorkingDir") or "/",
            "user": {
                "uid": user.uid,
                "gid": user.gid,
                "additionalGids": list(user.additional_gids),
            },
        },
        "mounts": shared_memory(
            mounts(request.get("VolumeMounts") or (), directory, bool(host.get("ReadonlyRootfs"))),
            host.get("IpcMode") or "",
        ),
        "linux": {
            "namespaces": namespaces(host),
            "cgroupsPath": cgroup_path(container_id, host),
            "resources": {**resources(host), "devices": [*map(dict, DEVICES)]},
        },
    }
    if request.get("Domainname") and host.get("UTSMode") != "host":
        spec["domainname"] = request["Domainname"]
    if host.get("Init"):
        add_init(spec)
    try:
        check_devices(host)
        return harden(spec, host)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
