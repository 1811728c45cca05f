# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#system-module
"""The commands about the daemon as a whole: version, info, df, events."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.client import VERSION, filters
from mini_docker.cli.command import FILTER, FORMAT, Command
from mini_docker.cli.errors import CommandError
from mini_docker.cli.listing import rendered
from mini_docker.cli.text import (
    ZERO_TIME,
    ago,
    binary_size,
    columns,
    decimal_size,
    ellipsis,
    quoted,
    short_id,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#version
def version(call: Call, parsed: Parsed) -> int:
    """Show the versions of the client and of the daemon."""
    from mini_docker import __version__

    client: dict[str, Any] = {
        "Version": __version__,
        "ApiVersion": call.client.version,
        "DefaultAPIVersion": VERSION,
        "Os": sys.platform,
        "Arch": _architecture(),
        "Context": call.client.endpoint.context,
    }
    problem = None
    server: Any = None
    call.client.start_nothing()
    try:
        server = call.client.json("GET", "/version")
        client["ApiVersion"] = call.client.version
    except CommandError as error:
        problem = error
    if parsed.one("format"):
        from mini_docker.cli.inspect import show_object

        show_object({"Client": client, "Server": server}, parsed.one("format"))
    else:
        print(_version_text(client, server), end="", flush=True)
    if problem:
        raise problem
    return 0


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _version_text(client: dict[str, Any], server: dict[str, Any] | None) -> str:
    """Return Docker's text of the two versions; the daemon's is left out where there is none."""
    lines = [
        "Client: mini_docker",
        f" Version:\t{client['Version']}",
        f" API version:\t{client['ApiVersion']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]
    if server:
        lines += [
            "",
            f"Server:{' ' + name if (name := server.get('Platform', {}).get('Name')) else ''}",
        ]
        lines += [line for part in server.get("Components") or [] for line in _component(part)]
    return columns(lines, 20, 1)


def _component(part: dict[str, Any]) -> Iterator[str]:
    """Yield what `version` says of a part of the daemon."""
    details = part.get("Details") or {}
    yield f" {part['Name']}:"
    yield f"  Version:\t{part['Version']}"
    if part["Name"] == "Engine":
        least = details.get("MinAPIVersion", "")
        yield f"  API version:\t{details.get('ApiVersion', '')} (minimum version {least})"
        if "GoVersion" in details:
            yield f"  Go version:\t{details['GoVersion']}"
    if "GitCommit" in details:
        yield f"  {'Git commit' if part['Name'] == 'Engine' else 'GitCommit'}:\t{details['GitCommit']}"
    if part["Name"] == "Engine":
        yield f"  Built:\t{details.get('BuildTime', '')}"
        yield f"  OS/Arch:\t{details.get('Os', '')}/{details.get('Arch', '')}"
        yield f"  Experimental:\t{details.get('Experimental', 'false')}"


# %% notebooks/G_object_commands.ipynb#info
def info(call: Call, parsed: Parsed) -> int:
    """Show what the daemon says of itself and of its machine."""
    found = call.client.json("GET", "/info")
    if parsed.one("format"):
        from mini_docker.cli.inspect import show_object

        show_object(found, parsed.one("format"))
        return 0
    from mini_docker import __version__

    context = call.client.endpoint.context
    print(
        f"Client:\n Version:    {__version__}\n Context:    {context}\n Debug Mode: false\n\nServer:"
    )
    print("".join(f" {line}\n" for line in info_lines(found)))
    for warning in found.get("Warnings") or []:
        print(warning, file=sys.stderr)
    return 0


INFO_END = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
)


def info_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of `info` about the daemon, in Docker's order."""
    yield f"Containers: {found['Containers']}"
    for state in ("Running", "Paused", "Stopped"):
        yield f" {state}: {found[f'Containers{state}']}"
    yield f"Images: {found['Images']}"
    yield f"Server Version: {found['ServerVersion']}"
    yield f"Storage Driver: {found['Driver']}"
    yield from (f" {name}: {value}" for name, value in found.get("DriverStatus") or [])
    yield f"Logging Driver: {found['LoggingDriver']}"
    yield f"Cgroup Driver: {found['CgroupDriver']}"
    yield f"Cgroup Version: {found.get('CgroupVersion', '1')}"
    plugins = found.get("Plugins") or {}
    yield "Plugins:"
    for name in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(name):
            yield f" {name}: {' '.join(plugins[name])}"
    yield f"Swarm: {(found.get('Swarm') or {}).get('LocalNodeState', 'inactive')}"
    yield from _info_runtime(found)
    yield from (f"{name}: {found[key]}" for name, key in INFO_END if found.get(key))
    yield f"Total Memory: {binary_size(found.get('MemTotal') or 0)}"
    yield from (
        f"{name}: {found[key]}" for name, key in (("Name", "Name"), ("ID", "ID")) if found.get(key)
    )
    yield f"Docker Root Dir: {found['DockerRootDir']}"
    yield f"Debug Mode: {str(bool(found.get('Debug'))).lower()}"
    yield from (f"Labels: {label}" for label in found.get("Labels") or [])
    yield f"Experimental: {str(bool(found.get('ExperimentalBuild'))).lower()}"
    registries = (found.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []
    if registries:
        yield "Insecure Registries:"
        yield from (f" {network}" for network in registries)
    yield f"Live Restore Enabled: {str(bool(found.get('LiveRestoreEnabled'))).lower()}"


def _info_runtime(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of `info` about runtimes, init and security."""
    if found.get("Runtimes"):
        yield f"Runtimes: {' '.join(sorted(found['Runtimes']))}"
        yield f"Default Runtime: {found.get('DefaultRuntime', '')}"
    if found.get("InitBinary"):
        yield f"Init Binary: {found['InitBinary']}"
        for name, key in (
            ("containerd", "ContainerdCommit"),
            ("runc", "RuncCommit"),
            ("init", "InitCommit"),
        ):
            yield f"{name} version: {(found.get(key) or {}).get('ID', '')}"
    options = found.get("SecurityOptions") or []
    if options:
        yield "Security Options:"
        for option in options:
            words = dict(word.partition("=")[::2] for word in option.split(","))
            yield f" {words.pop('name', option)}"
            yield from (f"  {name.capitalize()}: {value}" for name, value in words.items())


# %% notebooks/G_object_commands.ipynb#df
DF_FLAGS = """
    --format string  Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
-v, --verbose        Show detailed information on space usage
"""
DF_HEADS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}
DF_TABLE = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"


def df(call: Call, parsed: Parsed) -> int:
    """Show how much of the disk images, containers and volumes take."""
    found = call.client.json("GET", "/system/df")
    if parsed.on("verbose") and not parsed.one("format"):
        print(_df_verbose(found), end="")
    else:
        rows = df_rows(found)
        print(
            rendered(
                parsed.one("format"), rows, DF_HEADS, "*formatter.diskUsageImagesContext", DF_TABLE
            ),
            end="",
        )
    return 0


def df_rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for images, containers, volumes and the build cache."""
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes, cache = found.get("Volumes") or [], found.get("BuildCache") or []
    layers = found.get("LayersSize") or 0
    used_images = [one for one in images if one.get("Containers", 0) > 0]
    held = sum(one["Size"] - max(one.get("SharedSize", 0), 0) for one in used_images)
    running = [one for one in containers if one["State"] in ("running", "paused", "restarting")]
    usage = [one.get("UsageData") or {"Size": 0, "RefCount": 0} for one in volumes]
    used_volumes = [one for one in usage if one["RefCount"] > 0]
    return [
        _df_row("Images", images, used_images, layers, max(layers - held, 0)),
        _df_row("Containers", containers, running, _sizes(containers, "SizeRw"),
                _sizes([c for c in containers if c not in running], "SizeRw")),
        _df_row("Local Volumes", volumes, used_volumes, _sizes(usage, "Size"),
                _sizes([u for u in usage if u["RefCount"] <= 0], "Size")),
        _df_row("Build Cache", cache, [c for c in cache if c.get("InUse")], _sizes(cache, "Size"),
                _sizes([c for c in cache if not c.get("InUse")], "Size"), False),
    ]  # fmt: skip


def _sizes(found: list[dict[str, Any]], key: str) -> int:
    return sum(max(one.get(key) or 0, 0) for one in found)


def _df_row(
    name: str, found: list[Any], active: list[Any], size: int, free: int, share: bool = True
) -> dict[str, str]:
    """Return a row of `system df`; `size` and `free` are bytes."""
    percent = f" ({free * 100 // size}%)" if share and size > 0 else ""
    return {
        "Type": name,
        "TotalCount": str(len(found)),
        "Active": str(len(active)),
        "Size": decimal_size(size),
        "Reclaimable": decimal_size(free) + percent,
    }


def _df_verbose(found: dict[str, Any]) -> str:
    """Return the tables of `system df -v`."""
    from mini_docker.cli.images import image_names

    images = ["REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS"]
    for one in found.get("Images") or []:
        shared = max(one.get("SharedSize", 0), 0)
        name, tag, _ = image_names(one, False)[0]
        own = decimal_size(one["Size"] - shared)
        age = ago(one["Created"]) if one["Created"] > ZERO_TIME else ""
        sizes = f"{decimal_size(one['Size'], 3)}\t{decimal_size(shared)}\t{own}"
        images.append(f"{name}\t{tag}\t{short_id(one['Id'])}\t{age}\t{sizes}\t{one['Containers']}")
    containers = ["CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES"]
    for one in found.get("Containers") or []:
        command = quoted(ellipsis(one["Command"], 20))
        local = sum(m.get("Driver") == "local" for m in one.get("Mounts") or [])
        size = decimal_size(one.get("SizeRw") or 0, 3)
        names = ",".join(name.strip("/") for name in one["Names"])
        containers.append(
            f"{short_id(one['Id'])}\t{one['Image']}\t{command}\t{local}\t{size}"
            f"\t{ago(one['Created'])}\t{one['Status']}\t{names}"
        )
    volumes = ["VOLUME NAME\tLINKS\tSIZE"]
    for one in found.get("Volumes") or []:
        usage = one.get("UsageData") or {"RefCount": 0, "Size": 0}
        volumes.append(f"{one['Name']}\t{usage['RefCount']}\t{decimal_size(usage['Size'])}")
    cache = decimal_size(_sizes(found.get("BuildCache") or [], "Size"))
    return (
        f"Images space usage:\n\n{columns(images)}\nContainers space usage:\n\n{columns(containers)}\n"
        f"Local Volumes space usage:\n\n{columns(volumes)}\nBuild cache usage: {cache}\n"
    )


# %% notebooks/G_object_commands.ipynb#events
EVENTS_FLAGS = f"""
{FILTER}
    --format string   Format output with a Go template, or as 'json'
    --since string    Show all events created since timestamp
    --until string    Stream events until this timestamp
"""


def events(call: Call, parsed: Parsed) -> int:
    """Print what happens in the daemon, as it happens."""
    from mini_docker.cli.moments import timestamp

    query = {
        "since": timestamp(parsed.one("since"), "since"),
        "until": timestamp(parsed.one("until"), "until"),
        "filters": filters(parsed.all("filter")) or None,
    }
    line = event_writer(parsed.one("format"))
    for message in call.client.messages(call.client.call("GET", "/events", query)):
        print(line(message), flush=True)
    return 0


def event_writer(form: str) -> Any:
    """Return what turns an event into a line: Docker's own, JSON, or a template. Raises CommandError."""
    from mini_docker.cli.gotext import TemplateError, go_json
    from mini_docker.cli.template import Template

    if not form:
        return event_line
    if form == "json":
        return go_json
    try:
        template = Template(form)
    except TemplateError as error:
        raise CommandError(f"Error parsing format: template: {error}") from None

    def line(message: dict[str, Any]) -> str:
        try:
            return template.apply(message)
        except TemplateError as error:
            raise CommandError(str(error)) from None

    return line


def event_line(message: dict[str, Any]) -> str:
    """Return "TIME container start ID (image=busybox, name=web)"."""
    actor = message.get("Actor") or {}
    about = ", ".join(f"{k}={v}" for k, v in sorted((actor.get("Attributes") or {}).items()))
    words = f"{_moment(message)} {message.get('Type')} {message.get('Action')} {actor.get('ID')}"
    return f"{words} ({about})" if about else words


def _moment(message: dict[str, Any]) -> str:
    """Return the time of an event, RFC 3339 with nanoseconds, in the local zone."""
    import time

    nano = int(message.get("timeNano") or int(message.get("time") or 0) * 10**9)
    local = time.localtime(nano // 10**9)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nano % 10**9:09}{zone}"


# %% notebooks/G_object_commands.ipynb#system-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "version",
        "[OPTIONS]",
        "Show the version of client and daemon",
        FORMAT,
        version,
        0,
        0,
        ("version -f '{{.Server.Version}}'",),
    ),
    Command(
        "info",
        "[OPTIONS]",
        "Display system-wide information",
        FORMAT,
        info,
        0,
        0,
        ("info -f '{{.Driver}}'",),
    ),
    Command(
        "events",
        "[OPTIONS]",
        "Get real time events from the server",
        EVENTS_FLAGS,
        events,
        0,
        0,
        ("events --since 10m --until 0s", "events --filter type=container --format json"),
    ),
    Command("system df", "[OPTIONS]", "Show disk usage", DF_FLAGS, df, 0, 0, ("system df -v",)),
)
