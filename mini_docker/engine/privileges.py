# Exported from notebooks/09c_isolation.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09c_isolation.ipynb#privileges-module
"""How much a container may: HostConfig's words for privileges become keys of the OCI document."""

from __future__ import annotations

import json
import os
import posixpath
import stat

from mini_docker.linux.syscall import MACHINE
from mini_docker.namespaces.ipc import shm_mount
from mini_docker.security.capabilities import DEFAULT, NAMES, available
from mini_docker.security.labels import enabled
from mini_docker.security.paths import MASKED, READONLY
from mini_docker.security.policy import cut_profile, default_policy
from mini_docker.security.seccomp import cached_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TRUE, FALSE = ("1", "t", "T", "true", "True", "TRUE"), ("0", "f", "F", "false", "False", "FALSE")


# %% notebooks/09c_isolation.ipynb#capabilities-of
def capabilities(host: dict[str, Any]) -> list[str]:
    """Return the names that HostConfig's Privileged, CapAdd and CapDrop leave, in Docker's order of rules.

    Names come with or without CAP_, in any case; ALL means all that we have ourselves. Raises
    ValueError. Source: Docker's run reference "Runtime privilege and Linux capabilities".
    """
    add, drop = (_names(host.get(key) or (), key) for key in ("CapAdd", "CapDrop"))
    if host.get("Privileged"):
        return available()
    if "ALL" in add:
        return [name for name in available() if name not in drop]
    kept = [] if "ALL" in drop else [name for name in DEFAULT if name not in drop]
    return list(dict.fromkeys(kept + add))


def _names(words: Sequence[str], key: str) -> list[str]:
    found = []
    for word in words:
        name = word.upper()
        if name != "ALL":
            name = "CAP_" + name.removeprefix("CAP_")
            if name not in NAMES:
                raise ValueError(f'invalid {key}: unknown capability: "{name}"')
        found.append(name)
    return found


# %% notebooks/09c_isolation.ipynb#options-of
def security_options(host: dict[str, Any]) -> dict[str, list[str]]:
    """Return {key: values} of HostConfig's SecurityOpt, such as {"seccomp": ["unconfined"]}.

    Raises ValueError. Source: Docker's run reference "Security configuration".
    """
    found: dict[str, list[str]] = {}
    for option in host.get("SecurityOpt") or ():
        if option in ("no-new-privileges", "disable"):
            option = {"disable": "label=disable"}.get(option, "no-new-privileges=true")
        key, separator, value = option.partition("=" if "=" in option else ":")
        if not separator:
            raise ValueError(f'invalid --security-opt 1: "{option}"')
        known = key in ("label", "apparmor", "seccomp", "no-new-privileges")
        if not known or key == "no-new-privileges" and value not in (*TRUE, *FALSE):
            raise ValueError(f'invalid --security-opt 2: "{option}"')
        found.setdefault(key, []).append(value)
    return found


# %% notebooks/09c_isolation.ipynb#seccomp-of
def seccomp(
    options: dict[str, list[str]], privileged: bool, bounding: list[str], machine: str = MACHINE
) -> dict[str, Any] | None:
    """Return linux.seccomp: Docker's policy, the user's own (its text, as JSON), or None for none.

    Raises ValueError.
    """
    text = options.get("seccomp", [""])[-1]
    if text == "unconfined" or privileged and not text:
        return None
    if text in ("", "builtin"):
        return default_policy(bounding, machine)
    return own_profile(text, bounding, machine)


LONGEST_PROFILE = 1 << 20  # characters; Docker's own has 12,000


def own_profile(text: str, bounding: list[str], machine: str) -> dict[str, Any]:
    """Return linux.seccomp of a profile that somebody wrote: whatever it is, it is refused here or works.

    It is compiled once to see that it can be. Raises ValueError.
    """
    from mini_docker.security.compiler import compile_policy

    where = "Decoding seccomp profile failed"
    if len(text) > LONGEST_PROFILE:
        raise ValueError(f"{where}: it has {len(text)} characters, {LONGEST_PROFILE} is the limit")
    try:
        profile = cut_profile(json.loads(text), bounding, machine)
        compile_policy(profile, machine)
    except RecursionError:
        raise ValueError(f"{where}: it is nested too deeply") from None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{where}: {error}") from None
    return profile


def kept_program(root: str, spec: dict[str, Any]) -> bytes | None:
    """Return the program of a document's linux.seccomp, kept in the data root `root`; None without one."""
    document = spec["linux"].get("seccomp")
    return cached_program(f"{root}/seccomp", document, json.dumps) if document else None


def labels(options: dict[str, list[str]], privileged: bool) -> dict[str, str]:
    """Return process.apparmorProfile and selinuxLabel, where this kernel has the one or the other."""
    found = {}
    profile = "unconfined" if privileged else options.get("apparmor", [""])[-1]
    if profile and enabled("apparmor"):
        found["apparmorProfile"] = profile
    wishes = options.get("label", [])
    if enabled("selinux") and "disable" not in wishes and not privileged:
        label = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}
        for wish in wishes:
            key, _, value = wish.partition(":")
            if key not in label or not value:
                raise ValueError(f'bad label option "{wish}"')
            label[key] = value
        found["selinuxLabel"] = ":".join(label.values())
    return found


# %% notebooks/09c_isolation.ipynb#limits-of
LIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
).split()
NO_LIMIT = 2**64 - 1


def rlimits(host: dict[str, Any]) -> list[dict[str, Any]]:
    """Return process.rlimits from HostConfig's Ulimits; -1 is no limit. Raises ValueError."""
    found = {}
    for limit in host.get("Ulimits") or ():
        name = limit["Name"]
        if name not in LIMITS:
            raise ValueError(f"invalid ulimit type: {name}")
        soft, hard = (NO_LIMIT if limit[key] == -1 else int(limit[key]) for key in ("Soft", "Hard"))
        if soft > hard:
            text = f"{limit['Soft']} > {limit['Hard']}"
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {text}")
        found[name] = {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
    return list(found.values())


def oom_score(host: dict[str, Any]) -> int:
    """Return process.oomScoreAdj. Raises ValueError."""
    value: int = host.get("OomScoreAdj") or 0
    if not -1000 <= value <= 1000:
        raise ValueError(f"Invalid value {value}, range for oom score adj is [-1000, 1000]")
    return value


def sysctls(host: dict[str, Any], own_network: bool) -> dict[str, str]:
    """Return linux.sysctl: in a network of its own, every user may bind port 80 and ping, as with Docker."""
    found = {}
    if own_network:
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
        found["net.ipv4.ping_group_range"] = "0 2147483647"
    return found | (host.get("Sysctls") or {})


# %% notebooks/09c_isolation.ipynb#devices-of
# what lies in /dev and belongs to somebody's terminal or memory, not to a device
NO_DEVICES = ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console")


def device(path: str, inside: str) -> dict[str, Any] | None:
    """Return the OCI device of a node of the host, None for another kind of file. Raises OSError."""
    status = os.stat(path)
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def devices_below(directory: str, inside: str) -> list[dict[str, Any]]:
    """Return the devices of a directory and all below it; links are left out."""
    found = []
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        place = f"{inside}/{entry.name}"
        if entry.name in NO_DEVICES or entry.is_symlink():
            continue
        if entry.is_dir():
            found += devices_below(entry.path, place)
        elif one := device(entry.path, place):
            found.append(one)
    return found


def devices(host: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (linux.devices, more rules of linux.resources.devices) of HostConfig.

    Privileged means all of the host's and no rule in the way. Raises ValueError.
    """
    if host.get("Privileged"):
        return devices_below("/dev", "/dev"), [{"allow": True, "access": "rwm"}]
    found, rules = [], []
    for asked in host.get("Devices") or ():
        access = asked.get("CgroupPermissions") or "rwm"
        if not access or set(access) - set("rwm"):
            raise ValueError(f"bad mode specified: {access}")
        for one in _asked(asked["PathOnHost"], asked.get("PathInContainer") or asked["PathOnHost"]):
            number = {key: one[key] for key in ("type", "major", "minor")}
            found.append(one)
            rules.append({"allow": True, **number, "access": access})
    return found, rules + [parse_rule(text) for text in host.get("DeviceCgroupRules") or ()]


def _asked(path: str, inside: str) -> list[dict[str, Any]]:
    where = f'error gathering device information while adding custom device "{path}"'
    if "\0" in path + inside:
        raise ValueError(f"{where}: a path with a NUL in it is no device")
    try:
        if os.path.isdir(path):
            found = devices_below(path, inside)
        else:
            found = [one] if (one := device(path, inside)) else []
    except OSError as error:
        raise ValueError(f"{where}: {str(error.strerror).lower()}") from None
    if not found:
        raise ValueError(f"{where}: not a device node")
    return found


def parse_rule(text: str) -> dict[str, Any]:
    """Return the OCI rule of a device cgroup rule such as "c 1:* rw". Raises ValueError."""
    kind, numbers, access, *more = [*text.split(" "), "", "", ""][:4] if text else ("", "", "")
    major, separator, minor = numbers.partition(":")
    good = kind in ("a", "b", "c") and separator and access and not set(access) - set("rwm")
    if not good or any(more) or not all(n == "*" or n.isdecimal() for n in (major, minor)):
        raise ValueError(f"invalid device cgroup format '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    pairs = (("major", major), ("minor", minor))
    return rule | {key: int(number) for key, number in pairs if number != "*"}


# %% notebooks/09c_isolation.ipynb#tmpfs-of
def tmpfs_mounts(host: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mounts of HostConfig's Tmpfs, {path: options}. Raises ValueError."""
    found = []
    for path, options in (host.get("Tmpfs") or {}).items():
        if not path.startswith("/"):
            raise ValueError(f"invalid mount path: '{path}' mount path must be absolute")
        if posixpath.normpath(path) == "/":
            raise ValueError("invalid specification: destination can't be '/'")
        asked = [option for option in options.split(",") if option]
        opposite = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
        safe = [option for option in opposite if opposite[option] not in asked]
        listed = list(dict.fromkeys([*safe, *asked]))
        found.append({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": listed})
    return found


# %% notebooks/09c_isolation.ipynb#harden
def check_privileges(host: dict[str, Any]) -> None:
    """Refuse at once what Docker refuses before a container is made. Raises ValueError."""
    if host.get("UsernsMode") not in (None, "", "host"):
        raise ValueError(f"invalid user namespace mode: {host['UsernsMode']}")
    capabilities(host)
    security_options(host)
    oom_score(host)
    rlimits(host)
    tmpfs_mounts(host)
    for text in host.get("DeviceCgroupRules") or ():
        parse_rule(text)


def harden(spec: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return the document with all that HostConfig says about privileges; `spec` itself stays as it is.

    Looks at the host's devices where some are asked for. Raises ValueError in Docker's words.
    """
    check_privileges(host)
    privileged = bool(host.get("Privileged"))
    options = security_options(host)
    bounding = capabilities(host)
    held = bounding if spec["process"]["user"]["uid"] == 0 else []
    made, rules = devices(host)
    own_network = any(n["type"] == "network" for n in spec["linux"]["namespaces"])
    process = {
        **spec["process"],
        "capabilities": {
            "bounding": bounding,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": options.get("no-new-privileges", ["false"])[-1] in TRUE,
        "oomScoreAdj": oom_score(host),
        "rlimits": rlimits(host),
        **labels(options, privileged),
    }
    resources = spec["linux"]["resources"]
    linux = {
        **spec["linux"],
        "sysctl": sysctls(host, own_network),
        "devices": made,
        "resources": {**resources, "devices": [*resources.get("devices", ()), *rules]},
        "maskedPaths": _paths(host, "MaskedPaths", MASKED),
        "readonlyPaths": _paths(host, "ReadonlyPaths", READONLY),
    }
    filtered = seccomp(options, privileged, bounding)
    if filtered is not None:
        linux["seccomp"] = filtered
    return {**spec, "process": process, "linux": linux, "mounts": _mounts(spec, host)}


def _paths(host: dict[str, Any], key: str, default: tuple[str, ...]) -> list[str]:
    """Return the paths that HostConfig names, or Docker's; an empty list means none."""
    named = host.get(key)
    if named is None:
        return [] if host.get("Privileged") else list(default)
    return list(named)


def _mounts(spec: dict[str, Any], host: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mounts, /dev/shm of the size asked for; the privileged may write to /sys."""
    found = list(spec["mounts"])
    if size := host.get("ShmSize"):
        shm = shm_mount(size)
        found = [
            shm if m["destination"] == "/dev/shm" and m["type"] == "tmpfs" else m for m in found
        ]
    if host.get("Privileged"):
        kernels = ("sysfs", "cgroup")
        found = [
            {**m, "options": [o for o in m["options"] if o != "ro"]} if m["type"] in kernels else m
            for m in found
        ]
    return found + tmpfs_mounts(host)
