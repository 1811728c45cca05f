# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#ties-module
"""What ties a container to the world outside, from the words of `run`: ports, mounts, networks."""

from __future__ import annotations

import os

from mini_docker.cli.command import bad_flag
from mini_docker.cli.errors import FAILED, CommandError
from mini_docker.cli.flags import FALSE, TRUE, UsageError, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#ports
def given(**values: Any) -> dict[str, Any]:
    """Return what is set: an absent key lets the image or the daemon decide."""
    return {name: value for name, value in values.items() if value not in (None, "", {}, [])}


def published(parsed: Parsed) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the exposed ports and their bindings of -p and --expose. Raises CommandError."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for text in parsed.all("publish"):
        for inside, outside in publish(text):
            exposed[inside] = {}
            bindings.setdefault(inside, []).append(outside)
    for text in parsed.all("expose"):
        span, _, kind = text.partition("/")
        if ":" in text:
            raise CommandError(f"invalid port format for --expose: {text}", FAILED)
        if not (found := port_range(span)):
            words = f"invalid range format for --expose: {text}, error: {_no_range(span)}"
            raise CommandError(words, FAILED)
        exposed |= {f"{port}/{kind or 'tcp'}": {} for port in found}
    return exposed, bindings


def publish(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("80/tcp", {"HostIp", "HostPort"}) for each port of "[ip:][port:]port[/protocol]".

    The same may be said in words: "published=8080,target=80,protocol=tcp".
    """
    text = _short(text) if "=" in text else text
    span, _, kind = text.partition("/")
    address, outside, inside = _publish_parts(span)
    kind = kind or "tcp"
    private, public = port_range(inside), port_range(outside) if outside else []
    if address and not is_address(address):
        raise CommandError(f"invalid IP address: {address}", FAILED)
    if not inside:
        raise CommandError(f"no port specified: {text}<empty>", FAILED)
    if not private:
        raise CommandError(f"invalid containerPort: {inside}", FAILED)
    if outside and not public:
        raise CommandError(f"invalid hostPort: {outside}", FAILED)
    if kind.lower() not in ("tcp", "udp", "sctp"):
        raise CommandError(f"invalid proto: {kind}", FAILED)
    if public and len(public) != len(private) and len(private) != 1:
        problem = f"invalid ranges specified for container and host Ports: {inside} and {outside}"
        raise CommandError(f"{problem}", FAILED)
    for at, port in enumerate(private):
        host = outside if len(private) == 1 else str(public[at]) if public else ""
        yield f"{port}/{kind.lower()}", {"HostIp": address, "HostPort": host}


def _short(text: str) -> str:
    """Return "8080:80/tcp" of "published=8080,target=80"; words that are unknown say nothing."""
    found = {"published": "", "target": "", "protocol": "tcp"}
    for field in text.split(","):
        name, separator, value = field.partition("=")
        if not separator or not name:
            problem = f"should be name=value but got '{field}'"
            raise CommandError(f"invalid publish opts format ({problem})", FAILED)
        found[name] = value
    return f"{found['published']}:{found['target']}/{found['protocol']}"


def _publish_parts(span: str) -> tuple[str, str, str]:
    """Return address, outside and inside of "[::1]:80:80", "80:80" or "80"."""
    rest, _, inside = span.rpartition(":")
    address, _, outside = rest.rpartition(":")
    return address.strip("[]"), outside, inside


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def port_range(text: str) -> list[int]:
    """Return the ports of "80" or "80-82"; [] for what is none."""
    first, dash, last = text.partition("-")
    ends = [first, last] if dash else [first]
    if not all(end.isascii() and end.isdigit() and len(end) <= 5 for end in ends):
        return []
    ports = list(range(int(ends[0]), int(ends[-1]) + 1))
    return ports if ports and ports[-1] < 65536 else []


def _no_range(text: str) -> str:
    """Return why a text is no range of ports, in the words of Go's packages."""
    first, dash, last = text.partition("-")
    for end in [first, last] if dash else [first]:
        if not (end.isascii() and end.isdigit()):
            return f'strconv.ParseUint: parsing "{end}": invalid syntax'
        if int(end) > 65535:
            return f'strconv.ParseUint: parsing "{end}": value out of range'
    return f"invalid range specified for port: {text}"


# %% notebooks/F_container_commands.ipynb#mounts
def mounted(parsed: Parsed) -> tuple[list[str], list[str]]:
    """Return anonymous volumes and binds of -v; a path that starts with . is ours, so made absolute."""
    volumes, binds = [], []
    for text in parsed.all("volume"):
        if ":" not in text:
            volumes.append(text)
            continue
        if "" in text.split(":"):
            raise CommandError(f"invalid spec: {text}: empty section between colons", FAILED)
        source, _, rest = text.partition(":")
        if source.startswith((".", "~/")) and (source in (".", "..") or "/" in source):
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return volumes, binds


MOUNT_WORDS = {
    "source": "Source",
    "src": "Source",
    "target": "Target",
    "dst": "Target",
    "destination": "Target",
}
MOUNT_SWITCHES = ("ro", "readonly", "bind-nonrecursive", "volume-nocopy")
MOUNT_OPTIONS: dict[str, tuple[str, str, Callable[[str], Any] | None]] = {
    "bind-propagation": ("BindOptions", "Propagation", str),
    "bind-nonrecursive": ("BindOptions", "NonRecursive", None),
    "volume-nocopy": ("VolumeOptions", "NoCopy", None),
    "volume-subpath": ("VolumeOptions", "Subpath", str),
    "tmpfs-size": ("TmpfsOptions", "SizeBytes", lambda text: _mount_size(text)),
    "tmpfs-mode": ("TmpfsOptions", "Mode", lambda text: int(text, 8)),
}


def parse_mount(text: str) -> dict[str, Any]:
    """Return "type=bind,src=/a,dst=/b,ro" as the API wants it. Raises UsageError."""
    from csv import reader

    mount: dict[str, Any] = {"Type": "volume"}
    for field in next(reader([text]), []):
        key, separator, value = field.partition("=")
        key = key.lower()
        if not separator and key not in MOUNT_SWITCHES:
            raise bad_flag("--mount", text, f"invalid field '{field}' must be a key=value pair")
        try:
            _mount_field(mount, key, value if separator else "true", field)
        except (ValueError, UsageError) as error:
            words = (
                str(error) if isinstance(error, UsageError) else f"invalid value for {key}: {value}"
            )
            raise bad_flag("--mount", text, words) from None
    if not text:
        raise bad_flag("--mount", text, "EOF")
    if not mount.get("Target"):
        raise bad_flag("--mount", text, "target is required")
    for kind in ("volume", "bind", "tmpfs"):
        if mount["Type"] != kind and f"{kind.title()}Options" in mount:
            words = f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'"
            raise bad_flag("--mount", text, words)
    return mount


def _mount_field(mount: dict[str, Any], key: str, value: str, field: str) -> None:
    """Take one field of --mount. Raises ValueError, UsageError."""
    if key == "type":
        mount["Type"] = value.lower()
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key in MOUNT_WORDS:
        ours = MOUNT_WORDS[key] == "Source" and (value == "." or value.startswith("./"))
        mount[MOUNT_WORDS[key]] = os.path.abspath(value) if ours else value
    elif key in ("ro", "readonly"):
        mount["ReadOnly"] = _truth(value)
    elif key in ("volume-driver", "volume-opt", "volume-label"):
        _volume_option(mount, key, value)
    elif key in MOUNT_OPTIONS:
        group, name, kind = MOUNT_OPTIONS[key]
        mount.setdefault(group, {})[name] = (kind or _truth)(value)
    else:
        raise UsageError(f"unexpected key '{key}' in '{field}'")


def _mount_size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError:
        raise ValueError from None


def _truth(text: str) -> bool:
    if text not in (*TRUE, *FALSE):
        raise ValueError
    return text in TRUE


def _volume_option(mount: dict[str, Any], key: str, value: str) -> None:
    options = mount.setdefault("VolumeOptions", {})
    name, _, rest = value.partition("=")
    if key == "volume-label":
        options.setdefault("Labels", {})[name] = rest
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    else:
        options.setdefault("DriverConfig", {}).setdefault("Options", {})[name] = rest


# %% notebooks/F_container_commands.ipynb#networks
NETWORK_OPTIONS = {
    "alias": "Aliases",
    "ip": "IPv4Address",
    "ip6": "IPv6Address",
    "mac-address": "MacAddress",
}


NO_ALIASES = ("default", "bridge", "host", "none", "container")


def network_name(text: str) -> str:
    """Return the name in "--network name=lan,alias=db", or the whole text when it has no options."""
    return dict(_network_fields(text)).get("name", "") if _has_fields(text) else text


def _has_fields(text: str) -> bool:
    """Return whether a --network is said in words: "name=lan,alias=db"."""
    from re import search

    return search(r"\w+=\w+", text) is not None


def _network_fields(text: str) -> Iterator[tuple[str, str]]:
    for field in text.split(","):
        key, separator, value = field.partition("=")
        if not separator:
            raise bad_flag("--network", text, f"invalid field {field}")
        yield key.lower(), value


def endpoints(parsed: Parsed) -> dict[str, Any]:
    """Return the settings of each network that the container joins."""
    found: dict[str, Any] = {}
    for text in parsed.all("network"):
        if not network_name(text):
            raise CommandError("no name set for network", FAILED)
        found[network_name(text)] = _endpoint(text)
    own = given(IPv4Address=parsed.one("ip"), IPv6Address=parsed.one("ip6"))
    own |= given(LinkLocalIPs=parsed.all("link-local-ip"))
    first = next(iter(found), "default")
    settings = found.get(first, {})
    settings |= {"IPAMConfig": settings.get("IPAMConfig", {}) | own} if own else {}
    if parsed.all("network-alias"):
        settings["Aliases"] = settings.get("Aliases", []) + parsed.all("network-alias")
    for name, asked in ((first, settings), *found.items()):
        if asked.get("Aliases") and name.partition(":")[0] in NO_ALIASES:
            words = "network-scoped aliases are only supported for user-defined networks"
            raise CommandError(words, FAILED)
    if settings or len(found) > 1:
        found[first] = settings
        return found
    return {}


def _endpoint(text: str) -> dict[str, Any]:
    """Return one network's settings from its comma-separated words."""
    settings: dict[str, Any] = {}
    for key, value in _network_fields(text) if _has_fields(text) else ():
        if key == "alias":
            settings.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            settings.setdefault("IPAMConfig", {})[NETWORK_OPTIONS[key]] = value
        elif key == "mac-address":
            settings["MacAddress"] = value
        elif key == "driver-opt":
            name, _, rest = value.partition("=")
            settings.setdefault("DriverOpts", {})[name] = rest
        elif key != "name":
            raise bad_flag("--network", text, f"invalid field key {key}")
    return settings
