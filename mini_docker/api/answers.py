# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#answers-module
"""What answers look like, in the words of `schemas`: a text names another shape, "Name?" may be absent."""

from __future__ import annotations

from mini_docker.api.schemas import ANY_TEXT, CONFIG, HOST, TEXTS, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/18c_objects.ipynb#answers-containers
PRUNED_SIZE = {"SpaceReclaimed": int}
ENDPOINTS = {"*": "Endpoint"}
OF_CONTAINERS: dict[str, dict[str, Any]] = {
    "Id": {"Id": str},
    "Created": {"Id": str, "Warnings": TEXTS},
    "Updated": {"Warnings": TEXTS},
    "Ended": {"StatusCode": int, "Error": {"Message": str}},
    "Port": {"IP?": str, "PrivatePort": int, "PublicPort?": int, "Type": str},
    "Mount": {
        **each(str, "Type Source Destination Mode Propagation Name? Driver?"), "RW": bool,
    },
    "Endpoint": {
        "IPAMConfig": {"IPv4Address?": str, "IPv6Address?": str, "LinkLocalIPs?": TEXTS},
        **each(TEXTS, "Links Aliases"), "DriverOpts": ANY_TEXT,
        **each(str, "NetworkID EndpointID Gateway IPAddress IPv6Gateway GlobalIPv6Address MacAddress"),
        **each(int, "IPPrefixLen GlobalIPv6PrefixLen"),
    },
    "ContainerSummary": {
        **each(str, "Id Image ImageID Command State Status"), "Names": TEXTS, "Created": int,
        "Ports": ["Port"], "Labels": ANY_TEXT, "Mounts": ["Mount"], "HostConfig": {"NetworkMode": str},
        "NetworkSettings": {"Networks": ENDPOINTS}, **each(int, "SizeRw? SizeRootFs?"),
    },
    "State": {
        **each(str, "Status Error StartedAt FinishedAt"), **each(int, "Pid ExitCode"),
        **each(bool, "Running Paused Restarting OOMKilled Dead"),
        "Health?": {
            "Status": str, "FailingStreak": int,
            "Log": [{**each(str, "Start End Output"), "ExitCode": int}],
        },
    },
    "NetworkSettings": {
        **each(str, "Bridge SandboxID LinkLocalIPv6Address SandboxKey EndpointID Gateway"),
        **each(str, "GlobalIPv6Address IPAddress IPv6Gateway MacAddress"), "HairpinMode": bool,
        **each(int, "LinkLocalIPv6PrefixLen GlobalIPv6PrefixLen IPPrefixLen"),
        "Ports": {"*": [{"HostIp": str, "HostPort": str}]}, "Networks": ENDPOINTS,
        **each(TEXTS, "SecondaryIPAddresses SecondaryIPv6Addresses"),
    },
    "Container": {
        **each(str, "Id Created Path Image ResolvConfPath HostnamePath HostsPath LogPath Name Driver"),
        **each(str, "Platform MountLabel ProcessLabel AppArmorProfile"), **each(TEXTS, "Args ExecIDs"),
        "State": "State", "RestartCount": int, "HostConfig": "HostConfig", "Config": "Config",
        "GraphDriver": {"Name": str, "Data": ANY_TEXT}, "Mounts": ["Mount"],
        "NetworkSettings": "NetworkSettings", **each(int, "SizeRw? SizeRootFs?"),
    },
    "Processes": {"Titles": TEXTS, "Processes": [TEXTS]},
    "Change": {"Path": str, "Kind": int},
    "Step": {**each(str, "Where Module Step Call"), "Nanoseconds": int},
    "Exec": {
        **each(str, "ID ContainerID DetachKeys"), **each(int, "ExitCode Pid"),
        **each(bool, "Running OpenStdin OpenStderr OpenStdout CanRemove"),
        "ProcessConfig": {
            "tty": bool, "entrypoint": str, "arguments": TEXTS, "privileged": bool, "user?": str,
        },
    },
    "ContainersPruned": {"ContainersDeleted": TEXTS, **PRUNED_SIZE},
}  # fmt: skip
NUMBERS = {"*": int}
DISK_USE = [{"major": int, "minor": int, "op": str, "value": int}]
CPU_USE = {
    "cpu_usage": {
        **each(int, "total_usage usage_in_kernelmode usage_in_usermode"), "percpu_usage?": [int],
    },
    **each(int, "system_cpu_usage? online_cpus?"), "throttling_data": NUMBERS,
}  # fmt: skip
STATS: dict[str, Any] = {
    **each(str, "read preread name id"), "num_procs": int, "cpu_stats": CPU_USE, "precpu_stats": CPU_USE,
    **each(NUMBERS, "pids_stats storage_stats"), "networks?": {"*": NUMBERS},
    "memory_stats": {**each(int, "usage? max_usage? limit? failcnt?"), "stats?": NUMBERS},
    "blkio_stats": {"*": DISK_USE},
}  # fmt: skip


# %% notebooks/18c_objects.ipynb#answers-objects
OF_OBJECTS: dict[str, dict[str, Any]] = {
    "ImageSummary": {
        **each(str, "Id ParentId"), **each(TEXTS, "RepoTags RepoDigests"), "Labels": ANY_TEXT,
        **each(int, "Created Size VirtualSize SharedSize Containers"),
    },
    "Image": {
        **each(str, "Id Parent Comment Container Created DockerVersion Author Architecture Variant? Os"),
        **each(TEXTS, "RepoTags RepoDigests"), **each("Config", "ContainerConfig Config"),
        **each(int, "Size VirtualSize"), "GraphDriver": {"Name": str, "Data": ANY_TEXT},
        "RootFS": {"Type": str, "Layers": TEXTS}, "Metadata": {"LastTagTime": str},
    },
    "ImageStep": {
        **each(str, "Id CreatedBy Comment"), **each(int, "Created Size"), "Tags": TEXTS,
    },
    "ImageRemoved": each(str, "Untagged? Deleted?"),
    "ImagesPruned": {"ImagesDeleted": ["ImageRemoved"], **PRUNED_SIZE},
    "ImageFound": {
        **each(str, "name description"), "star_count": int, **each(bool, "is_official is_automated"),
    },
    "Distribution": {
        "Descriptor": {"mediaType": str, "digest": str, "size": int},
        "Platforms": [{**each(str, "architecture os variant?"), "os.features?": TEXTS}],
    },
    "Progress": {
        **each(str, "status? id? progress? stream? error?"), "aux?": {"*": (str, int)},
        "progressDetail?": {"*": int}, "errorDetail?": {"message": str},
    },
    "BuildsPruned": {"CachesDeleted": TEXTS, **PRUNED_SIZE},
    "Network": {
        **each(str, "Name Id Created Scope Driver"),
        **each(bool, "EnableIPv6 Internal Attachable Ingress ConfigOnly"), "ConfigFrom": {"Network": str},
        "IPAM": {
            "Driver": str, "Options": ANY_TEXT,
            "Config": [{"Subnet": str, "IPRange?": str, "Gateway?": str, "AuxiliaryAddresses?": ANY_TEXT}],
        },
        "Containers": {"*": each(str, "Name EndpointID MacAddress IPv4Address IPv6Address")},
        **each(ANY_TEXT, "Options Labels"),
    },
    "NetworkCreated": {"Id": str, "Warning": str},
    "NetworksPruned": {"NetworksDeleted": TEXTS},
    "Volume": {
        **each(str, "CreatedAt Driver Mountpoint Name Scope"), **each(ANY_TEXT, "Labels Options"),
        "UsageData?": {"Size": int, "RefCount": int},
    },
    "Volumes": {"Volumes": ["Volume"], "Warnings": TEXTS},
    "VolumesPruned": {"VolumesDeleted": TEXTS, **PRUNED_SIZE},
}  # fmt: skip


# %% notebooks/18c_objects.ipynb#answers-system
COMMIT = {"ID": str, "Expected": str}
OF_SYSTEM: dict[str, dict[str, Any]] = {
    "Version": {
        **each(str, "Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion BuildTime"),
        "Platform": {"Name": str},
        "Components": [{"Name": str, "Version": str, "Details": ANY_TEXT}],
    },
    "Info": {
        **each(str, "ID Driver SystemTime LoggingDriver CgroupDriver CgroupVersion KernelVersion"),
        **each(str, "OperatingSystem OSVersion OSType Architecture IndexServerAddress DockerRootDir"),
        **each(str, "HttpProxy HttpsProxy NoProxy Name ServerVersion DefaultRuntime Isolation InitBinary"),
        **each(int, "Containers ContainersRunning ContainersPaused ContainersStopped Images NFd"),
        **each(int, "NGoroutines NEventsListener NCPU MemTotal"),
        **each(bool, "MemoryLimit SwapLimit KernelMemory KernelMemoryTCP CpuCfsPeriod CpuCfsQuota"),
        **each(bool, "CPUShares CPUSet PidsLimit IPv4Forwarding BridgeNfIptables BridgeNfIp6tables"),
        **each(bool, "Debug OomKillDisable ExperimentalBuild LiveRestoreEnabled"),
        **each(TEXTS, "SecurityOptions Warnings Labels GenericResources"), "DriverStatus": [TEXTS],
        **each(COMMIT, "ContainerdCommit RuncCommit InitCommit"), "Runtimes": {"*": {"path": str}},
        "Plugins": each(TEXTS, "Volume Network Authorization Log"),
        "RegistryConfig": {
            **each(TEXTS, "InsecureRegistryCIDRs Mirrors AllowNondistributableArtifactsCIDRs"),
            "AllowNondistributableArtifactsHostnames": TEXTS,
            "IndexConfigs": {
                "*": {"Name": str, "Mirrors": TEXTS, "Secure": bool, "Official": bool},
            },
        },
        "Swarm": {
            **each(str, "NodeID NodeAddr LocalNodeState Error"), "ControlAvailable": bool,
            "RemoteManagers": TEXTS,
        },
    },
    "DiskUsage": {
        "LayersSize": int, "Images": ["ImageSummary"], "Containers": ["ContainerSummary"],
        "Volumes": ["Volume"], "BuildCache": TEXTS, "BuilderSize": int,
    },
    "Event": {
        **each(str, "Type Action scope status? id? from?"), **each(int, "time timeNano"),
        "Actor": {"ID": str, "Attributes": ANY_TEXT},
    },
    "LoginResult": {"IdentityToken": str, "Status": str},
}  # fmt: skip
SHAPES = {**OF_CONTAINERS, "Stats": STATS, **OF_OBJECTS, **OF_SYSTEM}
ASKED_SHAPES = {"Config": CONFIG, "HostConfig": HOST}  # as asked for: nothing must be there


# %% notebooks/18c_objects.ipynb#answers-table
JSON, TAR, RAW = "application/json", "application/x-tar", "application/vnd.docker.raw-stream"
OCTETS, PLAIN = "application/octet-stream", "text/plain; charset=utf-8"
ANSWERS: dict[str, tuple[int, Any]] = {  # a status, and a shape, a type of bytes, or nothing
    "GET /_ping": (200, PLAIN),
    "HEAD /_ping": (200, None),
    "GET /version": (200, "Version"),
    "GET /info": (200, "Info"),
    "GET /events": (200, "Event"),
    "GET /system/df": (200, "DiskUsage"),
    "GET /openapi.json": (200, {}),
    "POST /auth": (200, "LoginResult"),
    "GET /distribution/{name}/json": (200, "Distribution"),
    "POST /containers/create": (201, "Created"),
    "GET /containers/json": (200, ["ContainerSummary"]),
    "GET /containers/{id}/json": (200, "Container"),
    "POST /containers/{id}/explain": (200, ["Step"]),
    "POST /containers/{id}/update": (200, "Updated"),
    "POST /containers/{id}/wait": (200, "Ended"),
    "POST /containers/{id}/attach": (200, RAW),
    "GET /containers/{id}/attach/ws": (101, None),
    "POST /containers/{id}/resize": (200, None),
    "GET /containers/{id}/logs": (200, RAW),
    "GET /containers/{id}/top": (200, "Processes"),
    "GET /containers/{id}/stats": (200, "Stats"),
    "GET /containers/{id}/changes": (200, ["Change"]),
    "GET /containers/{id}/export": (200, OCTETS),
    "HEAD /containers/{id}/archive": (200, None),
    "GET /containers/{id}/archive": (200, TAR),
    "PUT /containers/{id}/archive": (200, None),
    "POST /containers/prune": (200, "ContainersPruned"),
    "POST /containers/{id}/exec": (201, "Id"),
    "POST /exec/{id}/start": (200, RAW),
    "GET /exec/{id}/json": (200, "Exec"),
    "POST /exec/{id}/resize": (200, None),
    "POST /commit": (201, "Id"),
    "GET /images/json": (200, ["ImageSummary"]),
    "POST /images/create": (200, "Progress"),
    "GET /images/get": (200, TAR),
    "POST /images/load": (200, "Progress"),
    "POST /images/prune": (200, "ImagesPruned"),
    "GET /images/search": (200, ["ImageFound"]),
    "GET /images/{name}/json": (200, "Image"),
    "GET /images/{name}/history": (200, ["ImageStep"]),
    "GET /images/{name}/get": (200, TAR),
    "POST /images/{name}/tag": (201, None),
    "POST /images/{name}/push": (200, "Progress"),
    "DELETE /images/{name}": (200, ["ImageRemoved"]),
    "POST /build/prune": (200, "BuildsPruned"),
    "GET /networks": (200, ["Network"]),
    "POST /networks/create": (201, "NetworkCreated"),
    "POST /networks/prune": (200, "NetworksPruned"),
    "GET /networks/{id}": (200, "Network"),
    "POST /networks/{id}/connect": (200, None),
    "POST /networks/{id}/disconnect": (200, None),
    "GET /volumes": (200, "Volumes"),
    "POST /volumes/create": (201, "Volume"),
    "POST /volumes/prune": (200, "VolumesPruned"),
    "GET /volumes/{name}": (200, "Volume"),
    "GET /plugins": (200, [{}]),
}
NOTHING = (204, None)  # of the other routes that answer at all
UNCHANGED = ("POST /containers/{id}/start", "POST /containers/{id}/stop")  # 304, too
