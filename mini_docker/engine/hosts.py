# Exported from notebooks/15c_names.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15c_names.ipynb#hosts-module
"""The files of names that each container gets: /etc/hosts, /etc/resolv.conf, and links' variables."""

from __future__ import annotations

from mini_docker.engine import bridge
from mini_docker.engine.document import InvalidRequest
from mini_docker.linux.netlink import pack_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

EMBEDDED = "127.0.0.11"
HOST_GATEWAY = "host-gateway"  # as an address: the host's own on the default network


def hosts_text(
    hostname: str,
    addresses: Iterable[str],
    extra: Iterable[str] = (),
    links: Iterable[tuple[str, Sequence[str]]] = (),
) -> str:
    """Return the text of /etc/hosts: the usual names, --add-host's, the links', the container's own.

    `hostname` has its domain, if there is one, and is listed without it, too; `extra` are
    "name:address", `links` are (address, names). Raises InvalidRequest.
    """
    lines = [f"{ip}\t{name}\n" for name, ip in map(parse_extra_host, extra)]
    lines += [f"{ip}\t{' '.join(names)}\n" for ip, names in links if ip]
    lines += [f"{ip}\t{' '.join(own_names(hostname))}\n" for ip in addresses if ip]
    return bridge.hosts_file(hostname) + "".join(lines)


def amended(text: str, wanted: str, *names: str) -> str:
    """Return a file of names with the lines that are wanted now; what somebody wrote into it stays.

    Ours are those whose first name is that of a line of `wanted`, or one of `names`.
    """
    here, lines = text.splitlines(keepends=True), wanted.splitlines(keepends=True)
    new: dict[str, list[str]] = {name: [] for name in names}
    for line in lines:
        new.setdefault(line.split()[1], []).extend([] if line in here else [line])
    made = []
    for line in here:
        name = "".join(line.split()[1:2])
        if line in lines or name not in new:
            made.append(line)
        else:  # an address that has changed keeps its place
            made += new[name][:1]
            new[name] = new[name][1:]
    return "".join(made + [line for rest in new.values() for line in rest])


def own_names(hostname: str) -> list[str]:
    """Return a container's names in /etc/hosts: "web.example.org" is "web" as well."""
    short = hostname.partition(".")[0]
    return [hostname] if short == hostname else [hostname, short]


def parse_extra_host(text: str) -> tuple[str, str]:
    """Return (name, address) of "name:address". Raises InvalidRequest in Docker's words."""
    name, colon, ip = text.partition(":")
    if not (name and colon) or any(character.isspace() for character in text):
        raise InvalidRequest(f'bad format for add-host: "{text}"')
    try:
        if ip != HOST_GATEWAY:
            pack_ip(ip)
    except (OSError, ValueError):
        raise InvalidRequest(f'invalid IP address in add-host: "{ip}"') from None
    return name, ip


def resolv_text(host_text: str, host: Mapping[str, Any], embedded: bool) -> str:
    """Return the text of /etc/resolv.conf from the host's and HostConfig's Dns, DnsSearch, DnsOptions.

    On a network with names (`embedded`) the only server is ours; elsewhere those given, or those of the
    host that a container can reach.
    """
    base = bridge.resolv_conf(host_text).splitlines()
    given = {key: list(host.get(key) or ()) for key in ("Dns", "DnsSearch", "DnsOptions")}
    servers = [EMBEDDED] if embedded else given["Dns"] or _values(base, "nameserver")
    search = given["DnsSearch"] or _values(base, "search")
    options = list(filter(None, given["DnsOptions"])) or _values(base, "options")
    if embedded and not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines = [f"search {' '.join(search)}"] if search and search != ["."] else []
    lines += [f"nameserver {ip}" for ip in servers]
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join([*lines, ""])


def upstream_servers(host_text: str, host: Mapping[str, Any]) -> list[str]:
    """Return the servers to which our own forwards, from the host's network: --dns, or the host's."""
    given = list(host.get("Dns") or ())
    return given or _values(host_text.splitlines(), "nameserver") or [*bridge.FALLBACK_NAMESERVERS]


def _values(lines: Iterable[str], keyword: str) -> list[str]:
    """Return all words after a keyword of resolv.conf; of `search`, the last line alone counts."""
    found = [line.split()[1:] for line in lines if line.split()[:1] == [keyword]]
    return (
        found[-1] if keyword == "search" and found else [word for words in found for word in words]
    )


# %% notebooks/15c_names.ipynb#hosts-links
def parse_link(text: str) -> tuple[str, str]:
    """Return (container, alias) of "container:alias" or "container". Raises InvalidRequest."""
    name, _, alias = text.strip("/").partition(":")
    alias = alias.rpartition("/")[2] or name
    if not name or ":" in alias:
        raise InvalidRequest(f"bad format for links: {text}")
    return name, alias


def link_variables(
    own_name: str, alias: str, ip: str, exposed: Iterable[str], environment: Iterable[str]
) -> list[str]:
    """Return the variables that a legacy link brings: DB_NAME, DB_PORT_5432_TCP_ADDR, DB_ENV_...

    `exposed` are the other container's ports ("5432/tcp"), `environment` its own variables.
    """
    prefix = alias.upper().replace("-", "_")
    found = []
    ports = sorted((int(p), q or "tcp") for p, _, q in (key.partition("/") for key in exposed))
    found += [f"{prefix}_PORT={protocol}://{ip}:{port}" for port, protocol in ports[:1]]
    for (port, protocol), (last, other) in port_ranges(ports):
        name = f"{prefix}_PORT_{port}_{protocol.upper()}"
        found += [f"{name}_START={protocol}://{ip}:{port}", f"{name}_PORT_START={port}"]
        found += [f"{name}_END={other}://{ip}:{last}", f"{name}_PORT_END={last}"]
    for port, protocol in ports:
        url, name = f"{protocol}://{ip}:{port}", f"{prefix}_PORT_{port}_{protocol.upper()}"
        found += [
            f"{name}={url}",
            f"{name}_ADDR={ip}",
            f"{name}_PORT={port}",
            f"{name}_PROTO={protocol}",
        ]
    found.append(f"{prefix}_NAME=/{own_name}/{alias}")
    skipped = ("HOME=", "PATH=")
    return found + [
        f"{prefix}_ENV_{e}" for e in environment if "=" in e and not e.startswith(skipped)
    ]


def port_ranges(
    ports: Sequence[tuple[int, str]],
) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Yield (first, last) of what Docker calls a range: three or more sorted ports without a gap."""
    first = 0
    for index, (port, _) in enumerate(ports):
        if index + 1 == len(ports) or ports[index + 1][0] > port + 1:
            if index - first > 1:
                yield ports[first], ports[index]
            first = index + 1
