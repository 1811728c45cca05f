# Exported from notebooks/07_user_cgroup_time.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/07_user_cgroup_time.ipynb#user-module
"""The user namespace and the user: whose number one is, inside and outside."""

from __future__ import annotations

import errno
import os
from collections import namedtuple

from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NamedTuple

    class User(NamedTuple):
        """Who a container's process is: ids as numbers, and the home directory."""

        uid: int
        gid: int
        additional_gids: tuple[int, ...]
        home: str

else:
    User = namedtuple("User", ("uid", "gid", "additional_gids", "home"))


# %% notebooks/07_user_cgroup_time.ipynb#id-map-lines
LARGEST_ID = 2**32 - 2  # the kernel's; 2**32 - 1 means "leave it"
MOST_LINES = 340  # user_namespaces(7)


def id_map_lines(mappings: Sequence[dict[str, int]], where: str) -> str:
    """Return the text of uid_map or gid_map from OCI mappings {"containerID", "hostID", "size"}.

    Raises ValueError, naming `where` and the index, for empty, impossible or overlapping ranges.
    Source: user_namespaces(7), OCI config-linux.md.
    """
    if len(mappings) > MOST_LINES:
        raise ValueError(f"{where}: the kernel takes {MOST_LINES} ranges, not {len(mappings)}")
    lines = []
    for index, mapping in enumerate(mappings):
        inside, outside, size = (mapping[key] for key in ("containerID", "hostID", "size"))
        if size < 1 or min(inside, outside) < 0 or max(inside, outside) + size - 1 > LARGEST_ID:
            raise ValueError(
                f"{where}[{index}]: {size} ids from {inside} and {outside} are no range"
            )
        for other in mappings[:index]:
            for key, start in (("containerID", inside), ("hostID", outside)):
                if start < other[key] + other["size"] and other[key] < start + size:
                    raise ValueError(f"{where}[{index}].{key}: overlaps with an earlier mapping")
        lines.append(f"{inside} {outside} {size}\n")
    return "".join(lines)


# %% notebooks/07_user_cgroup_time.ipynb#write-id-maps
def write_id_maps(pid: int, spec: dict[str, Any]) -> None:
    """Write the id maps of the process `pid`, in whose new user namespace nobody has a number yet.

    Done by the parent, once. A user without privileges may map one id, the own one, and must deny
    setgroups first: else a process could drop a group that keeps it out of a file. Whatever else
    /etc/subuid and /etc/subgid grant, two programs map that are privileged. Source: user_namespaces(7),
    newuidmap(1), newgidmap(1). Raises OSError, ValueError.
    """
    for key, kind, own in (
        ("uidMappings", "uid", os.geteuid()),
        ("gidMappings", "gid", os.getegid()),
    ):
        mappings = spec["linux"].get(key) or []
        lines = id_map_lines(mappings, f"linux.{key}")
        alone = [(entry["hostID"], entry["size"]) for entry in mappings] == [(own, 1)]
        if os.geteuid() != 0 and not alone:
            _map_by_program(f"new{kind}map", pid, lines)
            continue
        if os.geteuid() != 0 and kind == "gid":
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/{kind}_map", lines)


def _map_by_program(program: str, pid: int, lines: str) -> None:
    """Call newuidmap(1) or newgidmap(1). Raises OSError with its own words."""
    output_fd = os.memfd_create("output")
    try:
        child = os.posix_spawnp(
            program,
            [program, str(pid), *lines.split()],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output_fd, 2)],
            setsigmask=(),
        )
        if os.waitpid(child, 0)[1]:
            words = os.pread(output_fd, 4096, 0).decode(errors="replace").strip()
            raise PermissionError(errno.EPERM, words or f"{program} has failed")
    except FileNotFoundError:
        text = f"{program} is needed to map more than one's own id; remedy: the package uidmap"
        raise FileNotFoundError(errno.ENOENT, text) from None
    finally:
        os.close(output_fd)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


# %% notebooks/07_user_cgroup_time.ipynb#plan-user-namespace
def set_groups(groups: Sequence[int]) -> None:
    """Set the supplementary groups, setgroups(2); where that is denied, having asked for none is fine.

    It is tried first: /proc, where the denial stands, may be a container's own. Source:
    /proc/PID/setgroups of user_namespaces(7). Raises PermissionError.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups or not _setgroups_is_denied():
            raise


def drop_groups() -> None:
    """Leave all supplementary groups, setgroups(2); a user without privileges may not, and need not."""
    try:
        os.setgroups(())
    except PermissionError:
        if os.geteuid() == 0 and not _setgroups_is_denied():
            raise


def _setgroups_is_denied() -> bool:
    try:
        with open("/proc/self/setgroups") as file:
            return file.read().strip() == "deny"
    except OSError:
        return False


def plan_user_namespace(spec: dict[str, Any]) -> list[Step]:
    """Plan to become root of the user namespace, new or joined, before any file is made.

    Until then init is still the host's root: it owns root's files out there, and cannot create any on
    file systems mounted inside (EOVERFLOW). Afterwards /proc/self is the host's, not ours (PR_SET_DUMPABLE
    of prctl(2)): what must be written there, plan_time's offsets, comes before. Source:
    user_namespaces(7), runc's nsexec.c.
    """
    if "user" not in dict(entries(spec)):
        return []
    return [
        Step("drop the host's groups", set_groups, ((),)),
        Step("become group 0 of the user namespace", os.setresgid, (0, 0, 0)),
        Step("become user 0 of the user namespace", os.setresuid, (0, 0, 0)),
    ]


# %% notebooks/07_user_cgroup_time.ipynb#plan-user
DEFAULT_UMASK = 0o022  # runc's


def plan_user(spec: dict[str, Any]) -> list[Step]:
    """Plan process.user: umask, supplementary groups, group, user, in this order.

    The user last: without CAP_SETGID nothing could be said about groups any more. Source: OCI config.md,
    setgroups(2), setresgid(2), setresuid(2), umask(2).
    """
    user = spec["process"].get("user", {})
    uid, gid, umask = user.get("uid", 0), user.get("gid", 0), user.get("umask", DEFAULT_UMASK)
    groups = tuple(user.get("additionalGids", ()))
    return [
        Step(f"set umask {umask:04o}", os.umask, (umask,)),
        Step(f"set groups {list(groups)}", set_groups, (groups,)),
        Step(f"become group {gid}", os.setresgid, (gid, gid, gid)),
        Step(f"become user {uid}", os.setresuid, (uid, uid, uid)),
    ]


# %% notebooks/07_user_cgroup_time.ipynb#resolve-user
LARGEST_DOCKER_ID = 2**31 - 1


def resolve_user(text: str, passwd: str, group: str) -> User:
    """Return who is meant by docker's -u: "", name, uid, name:group, uid:gid.

    `passwd` and `group` are the texts of the image's own files. Digits are always a number, never a
    name; a number that is in neither file is itself. The group is among the additional ones too, so
    that no file that shuts it out is opened by "others" (CVE-2022-36109). Raises ValueError in Docker's
    words. Source: Docker's run reference, passwd(5), group(5).
    """
    wanted, _, wanted_group = text.partition(":")
    uid, gid, name, home = _find_user(wanted or "0", passwd)
    groups: tuple[int, ...] = ()
    if wanted_group:
        gid = _find_group(wanted_group, group)
    elif name:
        groups = tuple(int(r[2]) for r in _records(group, 4) if name in r[3].split(","))
    return User(uid, gid, tuple(dict.fromkeys((gid, *groups))), home)


def resolve_groups(names: Sequence[str], group: str) -> tuple[int, ...]:
    """Return the numbers of docker's --group-add, by name or number, from the text of the image's file.

    Raises ValueError in Docker's words.
    """
    try:
        return tuple(_find_group(name, group) for name in names)
    except ValueError as error:
        text = str(error)
        raise ValueError(text[:1].upper() + text[1:]) from None


def _find_user(wanted: str, passwd: str) -> tuple[int, int, str, str]:
    """Return (uid, gid, name, home) of the first line that fits, or of a number alone."""
    uid = _number(wanted)
    for record in _records(passwd, 7):
        if record[0] == wanted if uid is None else int(record[2]) == uid:
            return int(record[2]), int(record[3] or 0), record[0], record[5]
    if uid is None:
        raise ValueError(f"unable to find user {wanted}: no matching entries in passwd file")
    return uid, 0, "", "/"


def _find_group(wanted: str, group: str) -> int:
    gid = _number(wanted)
    if gid is not None:
        return gid
    for record in _records(group, 4):
        if record[0] == wanted:
            return int(record[2])
    raise ValueError(f"unable to find group {wanted}: no matching entries in group file")


def _number(text: str) -> int | None:
    """Return `text` as an id, or None for a name. Raises ValueError for a number that is no id."""
    if not _is_number(text[1:] if text[:1] in ("+", "-") else text):
        return None
    if not 0 <= int(text) <= LARGEST_DOCKER_ID:
        raise ValueError(f"uids and gids must be in range 0-{LARGEST_DOCKER_ID}")
    return int(text)


def _records(text: str, fields: int) -> list[list[str]]:
    """Return the lines of a passwd or group file, cut at the colons, missing fields empty.

    A line whose id is no number is left out: Docker would take it for 0, which is root.
    """
    lines = [line.strip().split(":") for line in text.splitlines()]
    records = [line + [""] * (fields - len(line)) for line in lines if line[0][:1] != "#"]
    return [r for r in records if _is_number(r[2]) and (fields < 7 or _is_number(r[3] or "0"))]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
