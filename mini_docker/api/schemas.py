# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#schemas-module
"""What the bodies of requests look like: one description, which checks them and is served.

A kind is str, bool, int or float; [kind] is a list; {"*": kind} an object with any keys; {"Name": kind} one
with these, where "Name!" must be there and others are let pass; a tuple names alternatives. null passes.
"""

from __future__ import annotations

from mini_docker.api.http import HttpError, kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/18_http_api.ipynb#schemas
TEXTS, ANY_TEXT = [str], {"*": str}


def each(kind: Any, names: str) -> dict[str, Any]:
    """Return fields of one kind."""
    return dict.fromkeys(names.split(), kind)


WORDS = (str, TEXTS)  # a command: a line for the shell, or words
ENDPOINT = {
    "IPAMConfig": {"IPv4Address": str, "IPv6Address": str, "LinkLocalIPs": TEXTS},
    "Links": TEXTS, "Aliases": TEXTS, "MacAddress": str, "DriverOpts": ANY_TEXT,
}  # fmt: skip
HEALTH = {
    "Test": TEXTS, "Interval": int, "Timeout": int, "StartPeriod": int, "StartInterval": int, "Retries": int,
}  # fmt: skip
CONFIG = {
    **each(str, "Image Hostname Domainname User WorkingDir StopSignal MacAddress"),
    **each(bool, "Tty OpenStdin StdinOnce AttachStdin AttachStdout AttachStderr"),
    **each(bool, "NetworkDisabled ArgsEscaped"),
    "Env": TEXTS, "Cmd": WORDS, "Entrypoint": WORDS, "Shell": TEXTS, "OnBuild": TEXTS, "StopTimeout": int,
    "Labels": ANY_TEXT, "ExposedPorts": {"*": {}}, "Volumes": {"*": {}}, "Healthcheck": HEALTH,
}  # fmt: skip
THROTTLE = [{"Path!": str, "Rate!": int}]
RESTART = {"Name": str, "MaximumRetryCount": int}
RESOURCES: dict[str, Any] = {
    **each(int, "Memory MemorySwap MemoryReservation MemorySwappiness KernelMemory"),
    **each(int, "KernelMemoryTCP NanoCpus CpuShares CpuQuota CpuPeriod PidsLimit"),
    **each(int, "CpuRealtimePeriod CpuRealtimeRuntime BlkioWeight CpuCount CpuPercent"),
    **each(int, "IOMaximumIOps IOMaximumBandwidth"),
    **each(THROTTLE, "BlkioDeviceReadBps BlkioDeviceWriteBps"),
    **each(THROTTLE, "BlkioDeviceReadIOps BlkioDeviceWriteIOps"),
    "BlkioWeightDevice": [{"Path!": str, "Weight!": int}], "CgroupParent": str, "CpusetCpus": str,
    "CpusetMems": str, "DeviceCgroupRules": TEXTS, "OomKillDisable": bool, "RestartPolicy": RESTART,
    "Devices": [{"PathOnHost!": str, "PathInContainer": str, "CgroupPermissions": str}],
    "DeviceRequests": [
        {"Driver": str, "Count": int, "DeviceIDs": TEXTS, "Capabilities": [TEXTS], "Options": ANY_TEXT}
    ],
    "Ulimits": [{"Name!": str, "Soft": int, "Hard": int}],
}  # fmt: skip
MOUNT = {
    **each(str, "Type Source Target Consistency"), "ReadOnly": bool,
    "BindOptions": {"Propagation": str, "NonRecursive": bool},
    "VolumeOptions": {
        "NoCopy": bool, "Labels": ANY_TEXT, "Subpath": str,
        "DriverConfig": {"Name": str, "Options": ANY_TEXT},
    },
    "TmpfsOptions": {"SizeBytes": int, "Mode": int},
}  # fmt: skip
HOST = {
    **RESOURCES,
    **each(str, "NetworkMode IpcMode PidMode UTSMode UsernsMode CgroupnsMode Cgroup"),
    **each(str, "VolumeDriver Runtime Isolation ContainerIDFile"),
    **each(TEXTS, "Binds VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch"),
    **each(TEXTS, "ExtraHosts GroupAdd Links SecurityOpt MaskedPaths ReadonlyPaths"),
    **each(bool, "AutoRemove Privileged PublishAllPorts ReadonlyRootfs Init"),
    **each(ANY_TEXT, "Sysctls Tmpfs StorageOpt Annotations"),
    **each(int, "OomScoreAdj ShmSize"),
    "ConsoleSize": [int], "LogConfig": {"Type": str, "Config": ANY_TEXT}, "Mounts": [MOUNT],
    "PortBindings": {"*": [{"HostIp": str, "HostPort": str}]},
}  # fmt: skip
POOL = {"Subnet": str, "IPRange": str, "Gateway": str, "AuxiliaryAddresses": ANY_TEXT}
BODIES: dict[str, dict[str, Any]] = {
    "ContainerCreate": {
        **CONFIG, "HostConfig": HOST, "NetworkingConfig": {"EndpointsConfig": {"*": ENDPOINT}},
    },
    "ContainerUpdate": RESOURCES,
    "Commit": {**CONFIG, "HostConfig": HOST},
    "ExecCreate": {
        **each(str, "User WorkingDir DetachKeys"),
        **each(bool, "Tty Privileged AttachStdin AttachStdout AttachStderr"),
        "Cmd": WORDS, "Env": TEXTS, "ConsoleSize": [int],
    },
    "ExecStart": {"Detach": bool, "Tty": bool, "ConsoleSize": [int]},
    "NetworkCreate": {
        "Name": str, "Driver": str, "Options": ANY_TEXT, "Labels": ANY_TEXT, "CheckDuplicate": bool,
        "Internal": bool, "Attachable": bool, "Ingress": bool, "EnableIPv6": bool, "Scope": str,
        "IPAM": {"Driver": str, "Config": [POOL], "Options": ANY_TEXT},
    },
    "NetworkConnect": {"Container": str, "EndpointConfig": ENDPOINT},
    "NetworkDisconnect": {"Container": str, "Force": bool},
    "VolumeCreate": {"Name": str, "Driver": str, "DriverOpts": ANY_TEXT, "Labels": ANY_TEXT},
    "Login": each(str, "username password email serveraddress identitytoken"),
}  # fmt: skip


# %% notebooks/18_http_api.ipynb#schemas-check
SIMPLE = {str: "string", bool: "bool", int: "int64", float: "float64"}
LONGEST_INT = 1 << 63


def checked(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a body that is as the description of that name says. Raises HttpError, as Go's decoder does."""
    check(body, BODIES[name], name)
    return body


def check(value: Any, kind: Any, where: str) -> None:
    """Raise HttpError for a value that is not of its kind; `where` is said to the user."""
    if value is None:
        return
    if isinstance(kind, tuple):
        kind = next(
            (one for one in kind if isinstance(value, list) == isinstance(one, list)), kind[0]
        )
    if isinstance(kind, list):
        check_list(value, kind[0], where)
    elif isinstance(kind, dict):
        check_object(value, kind, where)
    elif not fits(value, kind):
        raise mismatch(value, SIMPLE[kind], where)
    elif kind is str and "\0" in value:
        raise HttpError(400, f"{where}: a text with a NUL in it cannot be given to the kernel")


def fits(value: Any, kind: type) -> bool:
    """Return whether a value is a text, a truth or a number that Docker's program can hold."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    if kind is int:
        return isinstance(value, int) and -LONGEST_INT <= value < LONGEST_INT
    return isinstance(value, kind)


def check_list(value: Any, kind: Any, where: str) -> None:
    """Raise HttpError for what is no list, or has something else in it."""
    if not isinstance(value, list):
        inner = SIMPLE[kind] if isinstance(kind, type) else "object"
        raise mismatch(value, f"[]{inner}", where)
    for one in value:
        if one is None:
            raise mismatch(one, "a member of a list", where)
        check(one, kind, where)


def check_object(value: Any, kinds: dict[str, Any], where: str) -> None:
    """Raise HttpError for what is no object, or whose fields are not as they must be."""
    if not isinstance(value, dict):
        raise mismatch(value, "map[string]string", where)
    for key, kind in kinds.items():
        if key == "*":
            for name, one in value.items():
                check(name, str, where)
                check(one, kind, f"{where}.{name}")
            continue
        name = key.rstrip("!")
        if key != name and value.get(name) is None:
            raise HttpError(400, f"{where}: {name} is missing")
        check(value.get(name), kind, f"{where}.{name}")


def mismatch(value: Any, wanted: str, where: str) -> HttpError:
    """Return the error of Go's decoder."""
    found = kind_of(value)
    if found == "number" and wanted == "int64":
        found = f"number {value}"
    words = f"json: cannot unmarshal {found} into Go struct field {where} of type {wanted}"
    return HttpError(400, words)
