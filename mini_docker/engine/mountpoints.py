# Exported from notebooks/16_volumes.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/16_volumes.ipynb#points-module
"""What a container wants mounted: the five places where a request says so, read into one list of points."""

from __future__ import annotations

import posixpath

from mini_docker.engine.document import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Point = dict[str, Any]

# A point is an element of Docker's inspect JSON (Mounts), and a few keys of ours that start small:
#   Type          "bind", "volume" or "tmpfs"
#   Name, Driver  of a volume; Name "" asks for an anonymous one
#   Source        a path of the host
#   Destination   the place in the container, absolute and without ".."
#   Mode, RW, Propagation
#   copy          whether the image's content may fill an empty volume
#   make          whether a missing Source is made, as -v does and --mount does not
#   recursive, subpath, options, labels, driver_options
PROPAGATIONS = {"", "private", "rprivate", "shared", "rshared", "slave", "rslave"}
CONSISTENCY = {"consistent", "cached", "delegated", "default"}
KNOWN_MODES = PROPAGATIONS | CONSISTENCY | {"ro", "rw", "z", "Z", "nocopy"}


def point(kind: str, destination: str, **more: Any) -> Point:
    """Return a mount point with everything that nobody asked for."""
    blank = {
        "Type": kind,
        "Name": "",
        "Source": "",
        "Destination": posixpath.normpath(destination),
        "Driver": "",
        "Mode": "",
        "RW": True,
        "Propagation": "rprivate" if kind == "bind" else "",
        "copy": kind == "volume",
        "make": False,
        "recursive": True,
        "subpath": "",
        "options": [],
        "labels": {},
        "driver_options": {},
    }
    return {**blank, **more}


def check_destination(destination: str, where: str) -> None:
    """Refuse a place that is no place. Raises InvalidRequest in Docker's words."""
    if not destination.startswith("/"):
        words = f"invalid mount path: '{destination}' mount path must be absolute"
        raise InvalidRequest(f"{where}: {words}")
    if posixpath.normpath(destination) in ("/", "//") or "\0" in destination:
        raise InvalidRequest(f"{where}: invalid specification: destination can't be '/'")


# %% notebooks/16_volumes.ipynb#points-binds
def parse_bind(text: str, driver: str = "local") -> Point:
    """Return the point of `SOURCE:DESTINATION[:MODE]`, an element of HostConfig.Binds.

    A source with a leading slash is a directory of the host, another one the name of a volume. Raises
    InvalidRequest in Docker's words.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts[:2]):
        raise InvalidRequest(f"invalid volume specification: '{text}'")
    source, destination, mode = (*parts, "")[:3]
    is_path = source.startswith("/")
    kind = "bind" if is_path else "volume"
    where = f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\""
    words = mode.split(",") if mode else []
    _check_mode(mode, words)
    check_destination(destination, where)
    if not is_path and set(words) & (PROPAGATIONS - {""}):
        raise InvalidRequest(f"{where}: field BindOptions must not be specified")
    if is_path and "nocopy" in words:
        raise InvalidRequest(f"{where}: field VolumeOptions must not be specified")
    found = point(kind, destination, Mode=mode, RW="ro" not in words)
    if is_path:
        chosen = [word for word in words if word in PROPAGATIONS and word]
        propagation = chosen[0] if chosen else "rprivate"
        return {
            **found,
            "Source": posixpath.normpath(source),
            "make": True,
            "Propagation": propagation,
        }
    return {**found, "Name": source, "Driver": driver, "copy": "nocopy" not in words}


def _check_mode(mode: str, words: Sequence[str]) -> None:
    groups = ({"ro", "rw"}, {"z", "Z"}, CONSISTENCY, PROPAGATIONS)
    twice = any(sum(word in group for word in words) > 1 for group in groups)
    if twice or set(words) - KNOWN_MODES or "" in words:
        raise InvalidRequest(f"invalid mode: {mode}")


# %% notebooks/16_volumes.ipynb#points-mounts
def parse_mount(mount: Mapping[str, Any]) -> Point:
    """Return the point of an element of HostConfig.Mounts, the words of --mount. Raises InvalidRequest."""
    kind, target = str(mount.get("Type") or ""), str(mount.get("Target") or "")
    if kind not in ("bind", "volume", "tmpfs"):
        raise InvalidRequest(f'invalid mount config for type "{kind}": mount type unknown')
    where = f'invalid mount config for type "{kind}"'
    if not target:
        raise InvalidRequest(f"{where}: field Target must not be empty")
    check_destination(target, where)
    for options, owner in (
        ("BindOptions", "bind"),
        ("VolumeOptions", "volume"),
        ("TmpfsOptions", "tmpfs"),
    ):
        if mount.get(options) is not None and owner != kind:
            raise InvalidRequest(f"{where}: field {options} must not be specified")
    reader = {"bind": _bind, "volume": _volume, "tmpfs": _tmpfs}[kind]
    found = reader(mount, target, where)
    return {**found, "RW": not mount.get("ReadOnly"), "Mode": ""}


def _bind(mount: Mapping[str, Any], target: str, where: str) -> Point:
    source, options = str(mount.get("Source") or ""), mount.get("BindOptions") or {}
    if not source:
        raise InvalidRequest(f"{where}: field Source must not be empty")
    if not source.startswith("/"):
        words = f"invalid mount path: '{source}' mount path must be absolute"
        raise InvalidRequest(f"{where}: {words}")
    propagation = str(options.get("Propagation") or "rprivate")
    if propagation not in PROPAGATIONS:
        raise InvalidRequest(f"{where}: invalid propagation mode: {propagation}")
    recursive, make = not options.get("NonRecursive"), bool(options.get("CreateMountpoint"))
    found = point("bind", target, Source=posixpath.normpath(source), Propagation=propagation)
    return {**found, "recursive": recursive, "make": make}


def _volume(mount: Mapping[str, Any], target: str, where: str) -> Point:
    options = mount.get("VolumeOptions") or {}
    driver = options.get("DriverConfig") or {}
    if mount.get("ReadOnly") and not mount.get("Source"):
        words = "must not set ReadOnly mode when using anonymous volumes"
        raise InvalidRequest(f"{where}: {words}")
    subpath = str(options.get("Subpath") or "")
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise InvalidRequest(f"{where}: subpath must be a relative path within the volume")
    found = point("volume", target, Name=str(mount.get("Source") or ""), subpath=subpath)
    return {
        **found,
        "Driver": str(driver.get("Name") or "local"),
        "copy": not options.get("NoCopy"),
        "labels": dict(options.get("Labels") or {}),
        "driver_options": dict(driver.get("Options") or {}),
    }


def _tmpfs(mount: Mapping[str, Any], target: str, where: str) -> Point:
    if mount.get("Source"):
        raise InvalidRequest(f"{where}: field Source must not be specified")
    options = mount.get("TmpfsOptions") or {}
    given = [f"size={int(options['SizeBytes'])}"] if options.get("SizeBytes") else []
    given += [f"mode={int(options['Mode']):o}"] if options.get("Mode") else []
    return point("tmpfs", target, options=given)


TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
TMPFS_WORDS = {"rw", "ro", "exec", "suid", "dev", "relatime", "noatime", *TMPFS_DEFAULTS}
TMPFS_KEYS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks")


def parse_tmpfs(destination: str, text: str) -> Point:
    """Return the point of an entry of HostConfig.Tmpfs, "/run": "size=64m,exec". Raises InvalidRequest."""
    check_destination(destination, 'invalid mount config for type "tmpfs"')
    options = [word for word in text.split(",") if word]
    for option in options:
        key, equals, value = option.partition("=")
        if option not in TMPFS_WORDS and not (key in TMPFS_KEYS and equals and value):
            words = " ".join(f'"{word}"' for word in option.split("=", 1))
            raise InvalidRequest(f"invalid tmpfs option [{words}]")
    return point("tmpfs", destination, options=options, RW="ro" not in options, Mode="tmpfs")


# %% notebooks/16_volumes.ipynb#points-collect
def collect(
    request: Mapping[str, Any],
    image_config: Mapping[str, Any],
    others: Mapping[str, Sequence[Point]] | None = None,
) -> list[Point]:
    """Return all points of the body of POST /containers/create, what lies deeper after what it lies in.

    Docker's order of rank: --volumes-from is overridden by -v, --mount and --tmpfs, of which two on one
    place are an error; where none of them is, VOLUME of the image and -v DESTINATION make an anonymous
    volume. `others` are the points of the containers that VolumesFrom names. Raises InvalidRequest.
    """
    host = request.get("HostConfig") or {}
    found = {p["Destination"]: p for p in _from_others(host.get("VolumesFrom") or (), others or {})}
    driver = host.get("VolumeDriver") or "local"
    asked = [parse_bind(text, driver) for text in host.get("Binds") or ()]
    asked += [parse_mount(mount) for mount in host.get("Mounts") or ()]
    asked += [parse_tmpfs(place, text) for place, text in (host.get("Tmpfs") or {}).items()]
    places = [p["Destination"] for p in asked]
    for place in places:
        if places.count(place) > 1:
            raise InvalidRequest(f"Duplicate mount point: {place}")
    for p in asked:
        # Docker says so, with SELinux or without
        labelled = p["Type"] == "volume" and not p["Mode"]
        found[p["Destination"]] = {**p, "Mode": "z"} if labelled else p
    for destination in {**(image_config.get("Volumes") or {}), **(request.get("Volumes") or {})}:
        check_destination(destination, 'invalid mount config for type "volume"')
        blank = point("volume", destination, Driver="local")
        found.setdefault(blank["Destination"], blank)
    return sorted(found.values(), key=lambda p: (p["Destination"].count("/"), p["Destination"]))


def _from_others(texts: Iterable[str], others: Mapping[str, Sequence[Point]]) -> list[Point]:
    """Return copies of other containers' points; `name:ro` makes them read-only."""
    found = []
    for text in texts:
        name, _, mode = text.partition(":")
        if not name:
            raise InvalidRequest(f"invalid volumes-from specification: '{text}'")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidRequest(f"invalid mode: {mode}")
        for original in others.get(name, ()):
            if original["Mode"] != "tmpfs":  # of --tmpfs, which is no volume
                writable = original["RW"] and mode != "ro"
                found.append({**original, "RW": writable, "Mode": "", "copy": False})
    return found


def point_json(found: Point) -> Point:
    """Return a point as Docker's inspect shows it."""
    keys = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")
    empty = ("Name", "Driver")
    return {key: found[key] for key in keys if found[key] != "" or key not in empty}


def check_propagation(found: Point, mountinfo: str) -> None:
    """Refuse to share, or to follow, mounts of a source whose own mount does not. Raises InvalidRequest.

    `mountinfo` is the text of /proc/self/mountinfo, mount_namespaces(7): "shared:N" and "master:N" are
    among its optional fields.
    """
    kind = found["Propagation"].removeprefix("r")
    if found["Type"] != "bind" or kind not in ("shared", "slave"):
        return
    best, fields = "", []
    for line in mountinfo.splitlines():
        words = line.split(" ")
        point = words[4].replace("\\040", " ")
        if len(point) >= len(best) and f"{found['Source']}/".startswith(f"{point.rstrip('/')}/"):
            best, fields = point, words[6 : words.index("-")]
    wanted = ("shared:",) if kind == "shared" else ("shared:", "master:")
    if not any(field.startswith(wanted) for field in fields):
        what = "a shared mount" if kind == "shared" else "a shared or slave mount"
        where = f"path {found['Source']} is mounted on {best} but it is not {what}"
        raise InvalidRequest(where)


def oci_mount(found: Point) -> dict[str, Any]:
    """Return the OCI mount of a point whose Source is known. Pure."""
    if found["Type"] == "tmpfs":
        given = found["options"]
        options = [word for word in TMPFS_DEFAULTS if word.removeprefix("no") not in given]
        options += [word for word in given if word not in (*options, "rw", "ro")]
        source = "tmpfs"
    else:
        bind = "rbind" if found["recursive"] else "bind"
        options, source = [bind, found["Propagation"] or "rprivate"], found["Source"]
    options += [] if found["RW"] else ["ro"]
    mount = {"destination": found["Destination"], "type": found["Type"], "source": source}
    mount["type"] = "tmpfs" if found["Type"] == "tmpfs" else "bind"
    extra = {"subpath": found["subpath"]} if found["subpath"] else {}
    return {**mount, "options": options, **extra}
