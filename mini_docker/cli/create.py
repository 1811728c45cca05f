# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#create-module
"""Words of `run` and `create` -> the body of POST /containers/create, in Docker's JSON."""

from __future__ import annotations

import os

from mini_docker.cli.command import bad_flag
from mini_docker.cli.errors import FAILED, CommandError
from mini_docker.cli.flags import UsageError, parse_duration, parse_size
from mini_docker.cli.ties import (
    endpoints,
    given,
    is_address,
    mounted,
    network_name,
    parse_mount,
    published,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#create-flags
CREATE_FLAGS = """
    --add-host list                Add a custom host-to-IP mapping (host:ip)
    --annotation list              Add an annotation to the container (passed through to the OCI runtime)
-a, --attach list                  Attach to STDIN, STDOUT or STDERR
    --blkio-weight uint16          Block IO (relative weight), between 10 and 1000, or 0 to disable
    --blkio-weight-device list     Block IO weight (relative device weight), as in /dev/sda:200
    --cap-add list                 Add Linux capabilities
    --cap-drop list                Drop Linux capabilities
    --cgroup-parent string         Optional parent cgroup for the container
    --cgroupns string              Cgroup namespace to use (host|private)
    --cidfile string               Write the container ID to the file
    --cpu-period int               Limit CPU CFS (Completely Fair Scheduler) period
    --cpu-quota int                Limit CPU CFS (Completely Fair Scheduler) quota
    --cpu-rt-period int            Limit CPU real-time period in microseconds
    --cpu-rt-runtime int           Limit CPU real-time runtime in microseconds
-c, --cpu-shares int               CPU shares (relative weight)
    --cpus decimal                 Number of CPUs
    --cpuset-cpus string           CPUs in which to allow execution (0-3, 0,1)
    --cpuset-mems string           MEMs in which to allow execution (0-3, 0,1)
    --device list                  Add a host device to the container
    --device-cgroup-rule list      Add a rule to the cgroup allowed devices list
    --device-read-bps list         Limit read rate (bytes per second) from a device
    --device-read-iops list        Limit read rate (IO per second) from a device
    --device-write-bps list        Limit write rate (bytes per second) to a device
    --device-write-iops list       Limit write rate (IO per second) to a device
    --disable-content-trust        Skip image verification (default true)
    --dns list                     Set custom DNS servers
    --dns-option list              Set DNS options
    --dns-search list              Set custom DNS search domains
    --domainname string            Container NIS domain name
    --entrypoint string            Overwrite the default ENTRYPOINT of the image
-e, --env list                     Set environment variables
    --env-file list                Read in a file of environment variables
    --expose list                  Expose a port or a range of ports
    --gpus string                  GPU devices to add to the container ('all' to pass all GPUs)
    --group-add list               Add additional groups to join
    --health-cmd string            Command to run to check health
    --health-interval duration     Time between running the check (ms|s|m|h)
    --health-retries int           Consecutive failures needed to report unhealthy
    --health-start-interval duration  Time between checks during the start period (ms|s|m|h)
    --health-start-period duration  Time for the container to initialize before retries count down
    --health-timeout duration      Maximum time to allow one check to run (ms|s|m|h)
-h, --hostname string              Container host name
    --init                         Run an init inside the container that forwards signals and reaps
-i, --interactive                  Keep STDIN open even if not attached
    --ip string                    IPv4 address (e.g., 172.30.100.104)
    --ip6 string                   IPv6 address (e.g., 2001:db8::33)
    --ipc string                   IPC mode to use
    --isolation string             Container isolation technology
    --kernel-memory bytes          Kernel memory limit
-l, --label list                   Set meta data on a container
    --label-file list              Read in a line delimited file of labels
    --link list                    Add link to another container
    --link-local-ip list           Container IPv4/IPv6 link-local addresses
    --log-driver string            Logging driver for the container
    --log-opt list                 Log driver options
    --mac-address string           Container MAC address (e.g., 92:d0:c6:0a:29:33)
-m, --memory bytes                 Memory limit
    --memory-reservation bytes     Memory soft limit
    --memory-swap bytes            Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    --memory-swappiness int        Tune container memory swappiness (0 to 100)
    --mount mount                  Attach a filesystem mount to the container
    --name string                  Assign a name to the container
    --network network              Connect a container to a network
    --network-alias list           Add network-scoped alias for the container
    --no-healthcheck               Disable any container-specified HEALTHCHECK
    --oom-kill-disable             Disable OOM Killer
    --oom-score-adj int            Tune host's OOM preferences (-1000 to 1000)
    --pid string                   PID namespace to use
    --pids-limit int               Tune container pids limit (set -1 for unlimited)
    --platform string              Set platform if server is multi-platform capable
    --privileged                   Give extended privileges to this container
-p, --publish list                 Publish a container's port(s) to the host
-P, --publish-all                  Publish all exposed ports to random ports
    --pull string                  Pull image before running ("always", "missing", "never")
-q, --quiet                        Suppress the pull output
    --read-only                    Mount the container's root filesystem as read only
    --restart string               Restart policy to apply when a container exits
    --rm                           Remove the container and its anonymous volumes when it exits
    --runtime string               Runtime to use for this container
    --security-opt list            Security Options
    --shm-size bytes               Size of /dev/shm
    --stop-signal string           Signal to stop the container
    --stop-timeout int             Timeout (in seconds) to stop a container
    --storage-opt list             Storage driver options for the container
    --sysctl map                   Sysctl options
    --tmpfs list                   Mount a tmpfs directory
-t, --tty                          Allocate a pseudo-TTY
    --ulimit ulimit                Ulimit options
-u, --user string                  Username or UID (format: <name|uid>[:<group|gid>])
    --userns string                User namespace to use
    --uts string                   UTS namespace to use
-v, --volume list                  Bind mount a volume
    --volume-driver string         Optional volume driver for the container
    --volumes-from list            Mount volumes from the specified container(s)
-w, --workdir string               Working directory inside the container
"""


# %% notebooks/F_container_commands.ipynb#create-body
def create_body(parsed: Parsed) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the body and the query of a create request. Raises UsageError and CommandError."""
    image, *words = parsed.words
    exposed, bindings = published(parsed)
    volumes, binds = mounted(parsed)
    body: dict[str, Any] = {
        "Hostname": parsed.one("hostname"),
        "Domainname": parsed.one("domainname"),
        "User": parsed.one("user"),
        "Tty": parsed.on("tty"),
        "OpenStdin": parsed.on("interactive"),
        "Env": environment(parsed),
        "Cmd": words or None,
        "Image": image,
        "Volumes": {path: {} for path in volumes},
        "WorkingDir": parsed.one("workdir"),
        "Entrypoint": _entrypoint(parsed),
        "Labels": labels(parsed),
        "ExposedPorts": exposed,
    }
    if (mac := parsed.one("mac-address")) and not is_mac(mac):
        raise CommandError(f"{mac} is not a valid mac address", FAILED)
    body |= given(
        StopSignal=parsed.one("stop-signal"),
        StopTimeout=parsed.number("stop-timeout") if parsed.given("stop-timeout") else None,
        Healthcheck=_health(parsed),
        MacAddress=mac,
    )
    body["HostConfig"] = _host_config(parsed) | {"Binds": binds or None, "PortBindings": bindings}
    body["NetworkingConfig"] = {"EndpointsConfig": endpoints(parsed)}
    return body, {"name": parsed.one("name"), "platform": parsed.one("platform")}


def is_mac(text: str) -> bool:
    """Return whether a text is a hardware address of six bytes."""
    from re import fullmatch

    return fullmatch(r"[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}", text) is not None


def _entrypoint(parsed: Parsed) -> list[str] | None:
    """Return --entrypoint; given and empty it takes the image's away, which Docker writes as [""]."""
    return [parsed.one("entrypoint")] if parsed.given("entrypoint") else None


def _health(parsed: Parsed) -> dict[str, Any]:
    """Return the health check that the flags describe."""
    command = parsed.one("health-cmd")
    numbers = {
        "Interval": parse_duration(parsed.one("health-interval", "0")),
        "Timeout": parse_duration(parsed.one("health-timeout", "0")),
        "StartPeriod": parse_duration(parsed.one("health-start-period", "0")),
        "StartInterval": parse_duration(parsed.one("health-start-interval", "0")),
        "Retries": parsed.number("health-retries"),
    }
    for name, number in numbers.items():
        if number < 0:
            raise CommandError(f"--health-{name.lower()} cannot be negative", FAILED)
    if parsed.on("no-healthcheck"):
        if command or any(numbers.values()):
            raise CommandError("--no-healthcheck conflicts with --health-* options", FAILED)
        return {"Test": ["NONE"]}
    return given(Test=["CMD-SHELL", command] if command else None) | {
        name: number for name, number in numbers.items() if number
    }


# %% notebooks/F_container_commands.ipynb#host-config
# Docker's client sends these as [] and not as null when there is nothing in them
EMPTY_LISTS = (
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "Devices",
    "Ulimits",
)


def _host_config(parsed: Parsed) -> dict[str, Any]:
    """Return what belongs to this machine and not to the image: limits, privileges, namespaces."""
    networks = [network_name(text) for text in parsed.all("network")]
    restart = restart_policy(parsed.one("restart", "no"))
    if parsed.on("rm") and restart["Name"] not in ("", "no"):
        raise CommandError("conflicting options: cannot specify both --restart and --rm", FAILED)
    config = {
        "ContainerIDFile": parsed.one("cidfile"),
        "NetworkMode": networks[0] if networks else "default",
        "RestartPolicy": restart,
        "AutoRemove": parsed.on("rm"),
        "VolumesFrom": parsed.all("volumes-from") or None,
        "CapAdd": parsed.all("cap-add") or None,
        "CapDrop": parsed.all("cap-drop") or None,
        "Dns": parsed.all("dns"),
        "DnsOptions": parsed.all("dns-option"),
        "DnsSearch": parsed.all("dns-search"),
        "ExtraHosts": [_extra_host(text) for text in parsed.all("add-host")] or None,
        "GroupAdd": parsed.all("group-add") or None,
        "Links": parsed.all("link"),
        "Privileged": parsed.on("privileged"),
        "PublishAllPorts": parsed.on("publish-all"),
        "ReadonlyRootfs": parsed.on("read-only"),
        "SecurityOpt": [_security(text) for text in parsed.all("security-opt")] or None,
        "Mounts": [parse_mount(text) for text in parsed.all("mount")],
        "LogConfig": {"Type": parsed.one("log-driver"), "Config": pairs(parsed.all("log-opt"))},
    }
    lists: dict[str, Any] = {name: [] for name in EMPTY_LISTS}
    return config | lists | resources(parsed) | _namespaces(parsed) | _sizes(parsed)


def _namespaces(parsed: Parsed) -> dict[str, Any]:
    """Return whose namespaces, control group and runtime the container has."""
    return given(
        PidMode=parsed.one("pid"),
        IpcMode=parsed.one("ipc"),
        UTSMode=parsed.one("uts"),
        UsernsMode=parsed.one("userns"),
        CgroupnsMode=parsed.one("cgroupns"),
        CgroupParent=parsed.one("cgroup-parent"),
        Runtime=parsed.one("runtime"),
        VolumeDriver=parsed.one("volume-driver"),
    )


def _sizes(parsed: Parsed) -> dict[str, Any]:
    """Return what else of HostConfig has no other place: sizes, devices, ulimits, tmpfs."""
    return given(
        ShmSize=parsed.size("shm-size"),
        OomKillDisable=parsed.on("oom-kill-disable") or None,
        OomScoreAdj=parsed.number("oom-score-adj"),
        Init=parsed.on("init") if parsed.given("init") else None,
        Annotations=pairs(parsed.all("annotation")),
        Sysctls=pairs(parsed.all("sysctl")),
        StorageOpt=pairs(parsed.all("storage-opt")),
        Isolation=parsed.one("isolation"),
        DeviceRequests=[_gpus(text) for text in [parsed.one("gpus")] if text],
        BlkioWeightDevice=[_weight(text) for text in parsed.all("blkio-weight-device")],
        Tmpfs={
            path: options for path, _, options in (t.partition(":") for t in parsed.all("tmpfs"))
        },
        Devices=[_device(text) for text in parsed.all("device")],
        Ulimits=[_ulimit(text) for text in parsed.all("ulimit")],
    )


def resources(parsed: Parsed) -> dict[str, Any]:
    """Return the limits that `run` and `update` share."""
    return given(
        BlkioWeight=parsed.number("blkio-weight"),
        CpuPeriod=parsed.number("cpu-period"),
        CpuQuota=parsed.number("cpu-quota"),
        CpuRealtimePeriod=parsed.number("cpu-rt-period"),
        CpuRealtimeRuntime=parsed.number("cpu-rt-runtime"),
        CpuShares=parsed.number("cpu-shares"),
        CpusetCpus=parsed.one("cpuset-cpus"),
        CpusetMems=parsed.one("cpuset-mems"),
        NanoCpus=nano_cpus(parsed.one("cpus", "0")),
        Memory=parsed.size("memory"),
        MemoryReservation=parsed.size("memory-reservation"),
        MemorySwap=parsed.size("memory-swap"),
        KernelMemory=parsed.size("kernel-memory"),
        MemorySwappiness=parsed.number("memory-swappiness")
        if parsed.given("memory-swappiness")
        else None,
        PidsLimit=parsed.number("pids-limit") if parsed.given("pids-limit") else None,
        DeviceCgroupRules=parsed.all("device-cgroup-rule"),
        BlkioDeviceReadBps=_throttles(parsed, "device-read-bps"),
        BlkioDeviceWriteBps=_throttles(parsed, "device-write-bps"),
        BlkioDeviceReadIOps=_throttles(parsed, "device-read-iops"),
        BlkioDeviceWriteIOps=_throttles(parsed, "device-write-iops"),
    )


def nano_cpus(text: str) -> int:
    """Return "1.5" processors in their billionths."""
    if text == "0":
        return 0
    from decimal import Decimal  # not for every container

    nano = Decimal(text) * 10**9
    if nano != int(nano):
        raise bad_flag("--cpus", text, "value is too precise")
    return int(nano)


def _weight(text: str) -> dict[str, Any]:
    """Return "/dev/sda:200" as the API wants it."""
    path, _, weight = text.partition(":")
    if not path.startswith("/dev/") or not weight.isdecimal():
        raise bad_flag("--blkio-weight-device", text, f"bad format: {text}")
    return {"Path": path, "Weight": int(weight)}


def _gpus(text: str) -> dict[str, Any]:
    """Return what --gpus asks for, "all" or a number."""
    if text != "all" and not text.isdecimal():
        raise bad_flag("--gpus", text, f"count is not an integer: {text}")
    count = -1 if text == "all" else int(text)
    return {"Driver": "", "Count": count, "Capabilities": [["gpu"]], "Options": {}}


def _throttles(parsed: Parsed, flag: str) -> list[dict[str, Any]]:
    """Return "/dev/sda:1mb" as the API wants it."""
    found = []
    for text in parsed.all(flag):
        path, _, rate = text.partition(":")
        if not path.startswith("/dev/") or not rate:
            raise bad_flag(f"--{flag}", text, f"bad format: {text}")
        try:
            found.append({"Path": path, "Rate": parse_size(rate) if "bps" in flag else int(rate)})
        except (UsageError, ValueError):
            raise bad_flag(f"--{flag}", text, f"invalid rate for device: {text}") from None
    return found


def restart_policy(text: str) -> dict[str, Any]:
    """Return "on-failure:3" as the API wants it. Raises CommandError."""
    name, colon, count = text.partition(":")
    if colon and not count.isdigit():
        problem = "maximum retry count must be an integer"
        raise CommandError(f"invalid restart policy format: {problem}", FAILED)
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def _device(text: str) -> dict[str, str]:
    """Return "/dev/a:/dev/b:rw" as the API wants it."""
    outside, *rest = text.split(":")
    rights = rest.pop() if rest and _rights(rest[-1]) else "rwm"
    if len(rest) > 1 or not outside:
        raise bad_flag("--device", text, f"invalid device specification: {text}")
    inside = rest[0] if rest else outside
    return {"PathOnHost": outside, "PathInContainer": inside, "CgroupPermissions": rights}


def _rights(text: str) -> bool:
    """Return whether a text is "r", "rw", "rwm" or the like."""
    return 1 <= len(text) <= 3 and not text.strip("rwm")


def _ulimit(text: str) -> dict[str, Any]:
    """Return "nofile=1024:2048" as the API wants it."""
    from re import fullmatch

    found = fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", text)
    if not found:
        raise bad_flag("--ulimit", text, f"invalid ulimit argument: {text}")
    soft, hard = int(found[2]), int(found[3] or found[2])
    if hard != -1 and (soft > hard or soft == -1):
        problem = f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        raise bad_flag("--ulimit", text, problem)
    return {"Name": found[1], "Soft": soft, "Hard": hard}


def _extra_host(text: str) -> str:
    name, separator, address = text.replace("=", ":", 1).partition(":")
    if not name or not separator or not address:
        raise bad_flag("--add-host", text, f'bad format for add-host: "{text}"')
    address = address.strip("[]")
    if address != "host-gateway" and not is_address(address):
        raise bad_flag("--add-host", text, f'invalid IP address in add-host: "{address}"')
    return f"{name}:{address}"


def _security(text: str) -> str:
    """Return a security option; a seccomp profile is read here, since the daemon may be elsewhere."""
    name, separator, path = text.partition("=")
    if name != "seccomp" or not separator or path in ("unconfined", "builtin"):
        return text
    try:
        with open(path, encoding="utf-8") as file:
            return f"seccomp={file.read()}"
    except OSError as error:
        problem = f"opening seccomp profile ({path}) failed: open {path}: {(error.strerror or '').lower()}"
        raise CommandError(f"{problem}", FAILED) from None


# %% notebooks/F_container_commands.ipynb#environment
def environment(parsed: Parsed) -> list[str]:
    """Return the variables of --env-file and --env; a NAME alone takes its value from ours."""
    lines = [line for path in parsed.all("env-file") for line in _lines(path)]
    found = [_variable(text) for text in lines + parsed.all("env")]
    return [text for text in found if text]


def _variable(text: str) -> str:
    name, separator, _ = text.partition("=")
    if not name:
        raise bad_flag("-e, --env", text, f"invalid environment variable: {text}")
    if separator:
        return text
    return f"{name}={os.environ[name]}" if name in os.environ else ""


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a file that say something. Raises CommandError."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                text = line.lstrip().rstrip("\r\n")
                if text and not text.startswith("#"):
                    yield text
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CommandError(f"open {path}: {reason}", FAILED) from None


def labels(parsed: Parsed) -> dict[str, str]:
    """Return the labels of --label-file and --label."""
    lines = [line for path in parsed.all("label-file") for line in _lines(path)]
    return pairs(lines + parsed.all("label"))


def pairs(words: list[str]) -> dict[str, str]:
    """Return {"a": "b"} of "a=b"; a name alone has an empty value."""
    return {name: value for name, _, value in (word.partition("=") for word in words)}
