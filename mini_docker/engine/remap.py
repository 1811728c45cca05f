# Exported from notebooks/09d_remap.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09d_remap.ipynb#remap-module
"""User-namespace remapping: whose ids stand for a container's, read from /etc/subuid and /etc/subgid."""

from __future__ import annotations

import os
from collections import namedtuple

from mini_docker.engine.document import InvalidRequest
from mini_docker.linux.process import capget, capset
from mini_docker.linux.syscall import libc
from mini_docker.namespaces.user import id_map_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, NamedTuple

    from mini_docker.engine.zygote import Zygote
    from mini_docker.storage.overlay import Overlay

    Mappings = Sequence[dict[str, int]]

    class Remap(NamedTuple):
        """A user and a group, and the OCI mappings of their subordinate ids."""

        name: str
        uids: Mappings
        gids: Mappings

else:
    Remap = namedtuple("Remap", ("name", "uids", "gids"))

DEFAULT_USER = "dockremap"
FILES = ("passwd", "group", "subuid", "subgid")


# %% notebooks/09d_remap.ipynb#subordinate
def subordinate(text: str, name: str, number: int, where: str) -> Mappings:
    """Return the OCI mappings of all ranges that a line NAME:START:COUNT of `text` gives to a user.

    The first range is the container's lowest ids, and so on. A line may have the user's number for the
    name. Raises ValueError, naming `where`: for none, for one that is no range, for two that overlap.
    Source: subuid(5).
    """
    found: list[dict[str, int]] = []
    inside = 0
    for index, line in enumerate(text.splitlines(), 1):
        owner, _, rest = line.partition(":")
        if owner not in (name, str(number)) or not rest:
            continue
        start, _, count = rest.partition(":")
        if not (start.isdecimal() and count.isdecimal() and int(count)):
            raise ValueError(
                f"{where}:{index}: {line!r} is not NAME:START:COUNT; remedy: correct it"
            )
        found.append({"containerID": inside, "hostID": int(start), "size": int(count)})
        inside += int(count)
    if not found:
        remedy = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
        kind = where.rpartition("/")[2]
        raise ValueError(f'no {kind} ranges found for user "{name}"; remedy: {remedy}')
    id_map_lines(found, where)
    if any(entry["hostID"] == 0 for entry in found):
        raise ValueError(
            f"{where}: the range of {name} begins at 0, the host's root; remedy: another"
        )
    return found


# %% notebooks/09d_remap.ipynb#who
def parse_who(value: str, passwd: str, group: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return (name, number) of the user and of the group that --userns-remap names: user[:group], uid:gid.

    Without a group it is the one of the user's name. Raises ValueError in Docker's words.
    """
    user, colon, other = value.partition(":")
    if not user or colon and (not other or ":" in other):
        raise ValueError(f'Invalid user/group specification in --userns-remap: "{value}"')
    name, number = _entry(passwd, user, "Uid", "passwd")
    return (name, number), _entry(
        group, other or (user if user.isdecimal() else name), "Gid", "group"
    )


def _entry(text: str, wanted: str, kind: str, file: str) -> tuple[str, int]:
    """Return name and number of a line of passwd or group. Raises ValueError."""
    at = 2 if wanted.isdecimal() else 0
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[at] == wanted and fields[2].isdecimal():
            return fields[0], int(fields[2])
    if at:
        raise ValueError(f"{kind} {wanted} has no entry in /etc/{file}")
    raise ValueError(
        f'Error during {kind.lower()} lookup for "{wanted}": no such entry in /etc/{file}'
    )


def read_remap(value: str, texts: Mapping[str, str]) -> Remap | None:
    """Return what --userns-remap asks for, from the texts of FILES; None for root, who stays himself.

    Raises ValueError in Docker's words.
    """
    value = {"default": DEFAULT_USER}.get(value, value)
    (user, uid), (group, gid) = parse_who(value, texts["passwd"], texts["group"])
    if user == "root":
        return None
    try:
        uids = subordinate(texts["subuid"], user, uid, "/etc/subuid")
        gids = subordinate(texts["subgid"], group, gid, "/etc/subgid")
    except ValueError as error:
        raise ValueError(f"Can't create ID mappings: {error}") from None
    return Remap(f"{user}:{group}", uids, gids)


# %% notebooks/09d_remap.ipynb#translate
PING, EVERYBODY = "net.ipv4.ping_group_range", "0 2147483647"
NOBODY = 65534  # what the kernel shows for an id that has no number here, user_namespaces(7)


def to_host(mappings: Mappings, number: int) -> int:
    """Return the host's number of a container's id. Raises ValueError for one that it does not have."""
    for entry in mappings:
        if 0 <= number - entry["containerID"] < entry["size"]:
            return entry["hostID"] + number - entry["containerID"]
    raise ValueError(f"Container ID {number} cannot be mapped to a host ID")


def to_container(mappings: Mappings, number: int) -> int:
    """Return a container's number of the host's id, NOBODY for one that has none there."""
    for entry in mappings:
        if 0 <= number - entry["hostID"] < entry["size"]:
            return entry["containerID"] + number - entry["hostID"]
    return NOBODY


# %% notebooks/09d_remap.ipynb#record
def mappings_of(record: Mapping[str, Any]) -> tuple[Mappings, Mappings] | None:
    """Return the mappings for users and for groups of a container's record, None where ids are the host's."""
    found = record.get("IDMappings")
    return (found["uidMappings"], found["gidMappings"]) if found else None


def root_of(record: Mapping[str, Any]) -> tuple[int, int]:
    """Return the host's numbers of a container's root."""
    maps = mappings_of(record)
    return (to_host(maps[0], 0), to_host(maps[1], 0)) if maps else (0, 0)


def donors(
    record: Mapping[str, Any], find: Callable[[str], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the records of the containers whose namespaces this one shares, in a mode container:X.

    To share any other namespace they must share the user namespace, which owns it. Raises NoSuchContainer.
    """
    for key in ("NetworkMode", "IpcMode", "PidMode"):
        mode, _, name = (record["HostConfig"].get(key) or "").partition(":")
        if mode == "container":
            yield find(name)


def remapped(spec: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the record's user namespace; without IDMappings it stays as it is.

    The range of groups that may ping goes beyond those that there are, and is left out, as by Docker.
    Devices are bound: in a user namespace none can be made.
    """
    found = record.get("IDMappings")
    if not found:
        return spec
    linux = spec["linux"]
    sysctl = {k: v for k, v in (linux.get("sysctl") or {}).items() if k != PING or v != EVERYBODY}
    namespaces = [*linux["namespaces"], {"type": "user"}]
    bound = [device_mount(one["path"], record["HostConfig"]) for one in linux.get("devices") or ()]
    linux = {**linux, **found, "namespaces": namespaces, "sysctl": sysctl, "devices": []}
    return {**spec, "linux": linux, "mounts": [*spec["mounts"], *bound]}


def device_mount(path: str, host: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bind mount of the host's device that HostConfig.Devices wants at `path`."""
    for asked in host.get("Devices") or ():
        inside = asked.get("PathInContainer") or asked["PathOnHost"]
        if path == inside or path.startswith(f"{inside}/"):
            source = asked["PathOnHost"] + path[len(inside) :]
    return {"destination": path, "type": "bind", "source": source, "options": ["bind"]}


def new_mappings(request: Mapping[str, Any], remap: Remap | None) -> dict[str, Any]:
    """Return what a new record gets under a daemon's remapping. Raises InvalidRequest in Docker's words."""
    host = request.get("HostConfig") or {}
    if remap is None or host.get("UsernsMode") == "host":
        return {}
    check_remapped(host)
    return {"IDMappings": {"uidMappings": list(remap.uids), "gidMappings": list(remap.gids)}}


def fetch_root(zygote: Zygote, plan: Overlay | str, root: tuple[int, int], userns_fd: int) -> int:
    """Return a planned root with its owners mapped, made by a child of the zygote. Raises OSError."""
    data = plan if isinstance(plan, str) else [list(plan[0]), *plan[1:]]
    return zygote.errand("root", {"plan": data, "root": list(root)}, userns_fd)


def check_remapped(host: Mapping[str, Any]) -> None:
    """Refuse what a container in a user namespace of its own cannot have. Raises InvalidRequest."""
    if host.get("Privileged"):
        raise InvalidRequest(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host "
            "namespace when running privileged mode"
        )
    if host.get("NetworkMode") == "host":
        raise InvalidRequest(
            "cannot share the host's network namespace when user namespaces are enabled"
        )
    if host.get("PidMode") == "host":
        raise InvalidRequest("cannot share the host PID namespace when user namespaces are enabled")


# %% notebooks/09d_remap.ipynb#acting
class acting_as:  # noqa: N801 (reads as a statement)
    """Make files as a container's root does inside a `with` statement; without maps, as we are.

    On a mount whose ids are mapped nobody else can: the kernel has no number for the host's root there.
    setfsuid(2) is the calling thread's alone; the rights over files that it takes away come back.
    """

    def __init__(self, maps: tuple[Mappings, Mappings] | None) -> None:
        """Name the container's mappings."""
        self.maps = maps

    def __enter__(self) -> None:
        """Become its root, as far as files are concerned. Raises OSError."""
        if self.maps:
            rights = capget()
            libc.setfsgid(to_host(self.maps[1], 0))
            libc.setfsuid(to_host(self.maps[0], 0))
            capset(*rights)

    def __exit__(self, *_: object) -> None:
        """Be the host's root again."""
        if self.maps:
            libc.setfsuid(0)
            libc.setfsgid(0)


# %% notebooks/09d_remap.ipynb#prepare
def read_files(etc: str = "/etc") -> dict[str, str]:
    """Return the texts of FILES; one that is not there is empty."""
    texts = {}
    for name in FILES:
        try:
            with open(f"{etc}/{name}", errors="surrogateescape") as file:
                texts[name] = file.read()
        except FileNotFoundError:
            texts[name] = ""
    return texts


def make_default_user(texts: Mapping[str, str]) -> list[list[str]]:
    """Return the commands that make the user dockremap and its ranges, where they are missing. Pure.

    The ranges come after all that are taken, useradd(8), usermod(8).
    """
    commands = []
    if not any(line.startswith(f"{DEFAULT_USER}:") for line in texts["passwd"].splitlines()):
        shell = ["--no-create-home", "--shell", "/usr/sbin/nologin"]
        commands.append(["useradd", "--system", "--user-group", *shell, DEFAULT_USER])
    for name, flag in (("subuid", "--add-subuids"), ("subgid", "--add-subgids")):
        lines = [line.split(":") for line in texts[name].splitlines()]
        if not any(line[0] == DEFAULT_USER for line in lines):
            ends = [
                int(f[1]) + int(f[2]) for f in lines if len(f) == 3 and (f[1] + f[2]).isdecimal()
            ]
            start = max([100_000, *ends])
            commands.append(["usermod", flag, f"{start}-{start + 65535}", DEFAULT_USER])
    return commands


def choose_remap(value: str) -> Remap | None:
    """Return what --userns-remap asks of this machine, with the default user made. Raises ValueError."""
    import subprocess

    if value.partition(":")[0] in ("default", DEFAULT_USER):
        for words in make_default_user(read_files()):
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise ValueError(
                    f'error during "{DEFAULT_USER}" user creation: {done.stderr.strip()}'
                )
    return read_remap(value, read_files())


def remapped_root(data_root: str, remap: Remap) -> str:
    """Return the data root of a remapped daemon, DATA_ROOT/UID.GID, which its root may pass through.

    As Docker does: owners differ, so nothing is shared with a daemon that does not remap. Raises
    ValueError where a directory above lets nobody pass.
    """
    uid, gid = to_host(remap.uids, 0), to_host(remap.gids, 0)
    root = f"{os.path.abspath(data_root)}/{uid}.{gid}"
    os.makedirs(root, exist_ok=True)
    os.chmod(data_root, 0o711)
    above = os.path.dirname(os.path.abspath(data_root))
    while above != "/":
        if not os.stat(above).st_mode & 0o001:
            raise ValueError(
                f"a subdirectory in your graphroot path ({root}) restricts access to the remapped root "
                f"uid/gid; please fix by allowing 'o+x' permissions: chmod o+x {above}"
            )
        above = os.path.dirname(above)
    open_to_group(root, gid)
    return root


def open_to_group(path: str, gid: int) -> None:
    """Let a group pass through a directory, and nobody else see it."""
    os.chown(path, 0, gid)
    os.chmod(path, 0o710)
