# Exported from notebooks/16_volumes.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/16_volumes.ipynb#volumes-module
"""Volumes: directories that stay when a container goes."""

from __future__ import annotations

import json
import os
import re
import time

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import (
    NameTaken,
    NetworkFailure,
    NoSuchPlugin,
    NoSuchVolume,
    VolumeInUse,
)
from mini_docker.engine.fill import fill
from mini_docker.engine.filters import check_filters, check_truths, has_labels, matches
from mini_docker.engine.network_files import Locked
from mini_docker.linux.files import write_atomically
from mini_docker.linux.mount import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    mount,
    umount2,
)
from mini_docker.storage.overlay import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    Record = dict[str, Any]

# VOLUME DIRECTORY
#   lock                held while volumes are made, removed or filled
#   NAME/volume.json    the record, written last when it is made, removed first
#   NAME/_data/         what containers see
#   NAME/users/ID       of a volume with a file system of its own: the containers that have it mounted
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
RECORD = "volume.json"


def check_name(name: str) -> None:
    """Refuse what is no name of a volume. Raises InvalidRequest in Docker's words."""
    if len(name) == 1:
        words = "volume name is too short, names should be at least two alphanumeric characters"
        raise InvalidRequest(f"create {name}: {words}")
    if not NAME.fullmatch(name) or len(name) > 255:
        allowed = 'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed'
        hint = "If you intended to pass a host directory, use absolute path"
        words = f'"{name}" includes invalid characters for a local volume name, {allowed}. {hint}'
        raise InvalidRequest(f"create {name}: {words}")


# %% notebooks/16_volumes.ipynb#volumes-options
FLAGS = {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
FLAGS |= {"bind": MS_BIND, "rbind": MS_BIND | MS_REC, "rw": 0, "defaults": 0}


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Refuse options of the local driver that nobody could obey: type, device, o. Raises InvalidRequest."""
    for key in options:
        if key not in ("type", "device", "o", "size"):
            raise InvalidRequest(f'create {name}: invalid option: "{key}"')
    kind = options.get("type", "")
    if kind.startswith(("nfs", "cifs")):
        words = f"{kind} is not supported; mount it on the host, then use type=none,o=bind"
        raise InvalidRequest(f"create {name}: invalid option: {words}")
    if "size" in options:
        words = "quota size requested but no quota support"
        raise InvalidRequest(f"create {name}: {words}")
    if options and not options.get("device"):
        raise InvalidRequest(f'create {name}: missing required option: "device"')
    if options.get("device") and not kind:
        raise InvalidRequest(f'create {name}: missing required option: "type"')


def mount_options(text: str) -> tuple[int, str]:
    """Return (MS_* flags, the rest for the file system) of "bind,ro,size=1m", mount(2)."""
    words = [word for word in text.split(",") if word]
    flags = 0
    for word in words:
        flags |= FLAGS.get(word, 0)
    return flags, ",".join(word for word in words if word not in FLAGS)


# %% notebooks/16_volumes.ipynb#volumes-class
class Volumes:
    """The volumes of one data root."""

    def __init__(self, root: str, owner: tuple[int, int] = (0, 0)) -> None:
        """Name the data root; directories are made when needed, and volumes given to `owner` (uid, gid)."""
        self.owner = owner
        self.directory = f"{root}/volumes"

    def locked(self) -> Locked:
        """Return the lock of all volumes, for a `with` statement."""
        return Locked(f"{self.directory}/lock")

    def data(self, name: str) -> str:
        """Return the directory of a volume's content."""
        return f"{self.directory}/{name}/_data"

    def read(self, name: str) -> Record | None:
        """Return the record of a volume, None where there is none."""
        try:
            with open(f"{self.directory}/{name}/{RECORD}", "rb") as file:
                record: Record = json.loads(file.read())
                return record
        except (OSError, ValueError):
            return None

    def names(self) -> list[str]:
        """Return the names of all volumes."""
        try:
            entries = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        return [name for name in entries if os.path.exists(f"{self.directory}/{name}/{RECORD}")]

    # --- Docker's operations

    def create(self, request: Mapping[str, Any]) -> Record:
        """Make a volume from the body of POST /volumes/create, or find the one of that name; return its JSON.

        Without a name it is anonymous. Raises InvalidRequest, NoSuchPlugin, NameTaken (another driver or
        other options).
        """
        name = str(request.get("Name") or "")
        anonymous, name = not name, name or os.urandom(32).hex()
        check_name(name)
        driver = str(request.get("Driver") or "local")
        if driver != "local":
            words = f'error looking up volume plugin {driver}: plugin "{driver}" not found'
            raise NoSuchPlugin(f"create {name}: {words}")
        options = {str(k): str(v) for k, v in sorted((request.get("DriverOpts") or {}).items())}
        check_options(name, options)
        with self.locked():
            record = self.read(name)
            if record and options and options != record["Options"]:
                words = "volume already exists with other options; choose another name or remove it"
                raise NameTaken(f"create {name}: {words}")
            return volume_json(
                record or self._make(name, options, request, anonymous), self.data(name)
            )

    def _make(
        self, name: str, options: Mapping[str, str], request: Mapping[str, Any], anonymous: bool
    ) -> Record:
        record = {
            "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Driver": "local",
            "Labels": request.get("Labels"),
            "Name": name,
            "Options": dict(options) if request.get("DriverOpts") is not None else None,
            "Scope": "local",
            "Anonymous": anonymous,
        }
        try:
            os.makedirs(self.data(name), mode=0o755, exist_ok=True)
            os.chmod(f"{self.directory}/{name}", 0o701)
            os.chown(self.data(name), *self.owner)
            path = f"{self.directory}/{name}/{RECORD}"
            write_atomically(path, json.dumps(record).encode(), 0o600)
        except BaseException:
            remove_tree(f"{self.directory}/{name}")
            raise
        return record

    def inspect(self, name: str) -> Record:
        """Return Docker's JSON of a volume. Raises NoSuchVolume."""
        record = self.read(name) if NAME.fullmatch(name) else None
        if record is None:
            raise NoSuchVolume(f"get {name}: no such volume")
        return volume_json(record, self.data(name))

    def listing(
        self,
        filters: Mapping[str, Collection[str]] | None = None,
        users: Mapping[str, Collection[str]] | None = None,
    ) -> Record:
        """Return the answer to GET /volumes. `users` are {volume: container ids}. Raises InvalidRequest."""
        wanted, used = dict(filters or {}), users or {}
        check_filters(wanted, ("dangling", "driver", "label", "name"))
        check_truths(wanted, "dangling")
        found = []
        for name in self.names():
            record = self.read(name)
            if record is None or not matches(name, wanted.get("name", ())):
                continue
            if wanted.get("driver") and record["Driver"] not in wanted["driver"]:
                continue
            dangling = {
                "true" if not used.get(name) else "false",
                "1" if not used.get(name) else "0",
            }
            if wanted.get("dangling") and not dangling & set(wanted["dangling"]):
                continue
            if has_labels(record["Labels"] or {}, wanted.get("label", ())):
                found.append(volume_json(record, self.data(name)))
        return {"Volumes": found, "Warnings": None}

    def remove(self, name: str, users: Collection[str] = (), force: bool = False) -> None:
        """Remove a volume and its content; `users` are the containers that name it.

        Raises NoSuchVolume (never with `force`), VolumeInUse.
        """
        with self.locked():  # of two who remove it at once, one finds it
            if not NAME.fullmatch(name) or self.read(name) is None:
                if force:
                    return
                raise NoSuchVolume(f"get {name}: no such volume")
            if users:
                raise VolumeInUse(f"remove {name}: volume is in use - [{', '.join(sorted(users))}]")
            self._unmount(name)
            os.unlink(f"{self.directory}/{name}/{RECORD}")
            remove_tree(f"{self.directory}/{name}")

    def prune(
        self,
        filters: Mapping[str, Collection[str]] | None = None,
        users: Mapping[str, Collection[str]] | None = None,
        named: bool = True,
    ) -> Record:
        """Remove the volumes that no container names: all of them if `named` (Docker's API before 1.42), else
        the anonymous alone, or what the filter `all` says. Raises InvalidRequest."""
        wanted, used = dict(filters or {}), users or {}
        check_filters(wanted, ("label", "label!", *(() if named else ("all",))))
        check_truths(wanted, "all")
        named = named or bool({"1", "true"} & set(wanted.get("all", ())))
        deleted, reclaimed = [], 0
        for name in self.names():
            record = self.read(name)
            if record is None or used.get(name) or not (named or record["Anonymous"]):
                continue
            if record["Options"]:  # what is mounted there is somebody's
                continue
            labels = record["Labels"] or {}
            refused = any(has_labels(labels, [text]) for text in wanted.get("label!", ()))
            if refused or not has_labels(labels, wanted.get("label", ())):
                continue
            reclaimed += usage(self.data(name))
            self.remove(name)
            deleted.append(name)
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}

    # --- for containers

    def resolve(self, points: Sequence[Record]) -> list[Record]:
        """Return the points with their volumes made and every Source known; run it when a container is
        created.

        Raises InvalidRequest, NoSuchPlugin, NameTaken.
        """
        found = []
        for asked in points:
            resolved = dict(asked)
            if asked["Type"] == "volume":
                request = {
                    "Name": asked["Name"],
                    "Driver": asked["Driver"],
                    "Labels": asked["labels"] or None,
                }
                made = self.create({**request, "DriverOpts": asked["driver_options"] or None})
                resolved |= {"Name": made["Name"], "Source": made["Mountpoint"], "Driver": "local"}
            elif (
                asked["Type"] == "bind"
                and not asked["make"]
                and not os.path.exists(asked["Source"])
            ):
                words = f"bind source path does not exist: {asked['Source']}"
                raise InvalidRequest(f'invalid mount config for type "bind": {words}')
            found.append(resolved)
        return found

    def prepare(self, points: Sequence[Record], container_id: str, rootfs_fd: int) -> None:
        """Have everything there that the points name: directories, file systems, the image's content.

        Run it before a container starts; `rootfs_fd` is its root, in which the image's content is looked
        for. Raises OSError, NetworkFailure (a device that cannot be mounted).
        """
        for found in points:
            if found["Type"] == "bind" and found["make"] and not os.path.exists(found["Source"]):
                os.makedirs(found["Source"], exist_ok=True)
            if found["Type"] != "volume":
                continue
            with self.locked():
                record = self.read(found["Name"])
                if record is None:
                    raise NoSuchVolume(f"get {found['Name']}: no such volume")
                if record["Options"]:
                    self._mount(record, container_id)
                if found["copy"]:
                    fill(rootfs_fd, found["Destination"], self.data(found["Name"]))

    def release(self, container_id: str) -> None:
        """Unmount the volumes that only this container, which has ended, had mounted."""
        for name in self.names():
            users = f"{self.directory}/{name}/users"
            if not os.path.exists(f"{users}/{container_id}"):
                continue
            with self.locked():
                os.unlink(f"{users}/{container_id}")
                if not os.listdir(users):
                    self._unmount(name)

    def recover(self, alive: Collection[str]) -> None:
        """After a crash: forget the users that do not live, remove what is half made."""
        for name in self.names():
            users = f"{self.directory}/{name}/users"
            for container_id in os.listdir(users) if os.path.isdir(users) else ():
                if container_id not in alive:
                    self.release(container_id)
        if not os.path.isdir(self.directory):
            return
        with self.locked():
            whole = {*self.names(), "lock"}
            for name in set(os.listdir(self.directory)) - whole:
                remove_tree(f"{self.directory}/{name}")

    def _mount(self, record: Record, container_id: str) -> None:
        """Mount a volume's own file system on its directory, once for all containers; under the lock."""
        name, options = record["Name"], record["Options"]
        os.makedirs(f"{self.directory}/{name}/users", exist_ok=True)
        os.close(
            os.open(
                f"{self.directory}/{name}/users/{container_id}", os.O_CREAT | os.O_WRONLY, 0o600
            )
        )
        if is_mounted(self.data(name)):
            return
        flags, data = mount_options(options.get("o", ""))
        kind = None if flags & MS_BIND else options["type"]
        try:
            mount(options["device"], self.data(name), kind, flags, data or None)
        except OSError as error:
            os.unlink(f"{self.directory}/{name}/users/{container_id}")
            place = self.data(name)
            words = f"failed to mount local volume: mount {options['device']}:{place}, flags: {flags:#x}"
            reason = str(error.strerror).rpartition(": ")[2].lower()
            words = f"error while mounting volume '{place}': {words}: {reason}"
            raise NetworkFailure(words) from None

    def _unmount(self, name: str) -> None:
        while is_mounted(self.data(name)):
            umount2(self.data(name), MNT_DETACH)


def volume_json(record: Record, mountpoint: str) -> Record:
    """Return Docker's JSON of a volume."""
    keys = ("CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope")
    return {key: {**record, "Mountpoint": mountpoint}[key] for key in keys}


def is_mounted(path: str) -> bool:
    """Say whether something is mounted on `path`, proc_pid_mountinfo(5): a bind has no other sign."""
    try:
        with open("/proc/thread-self/mountinfo") as file:
            return any(line.split(" ")[4] == path for line in file)
    except FileNotFoundError:
        return False


def usage(path: str) -> int:
    """Return the bytes that the files below `path` have."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(f"{directory}/{name}").st_size
            except FileNotFoundError:
                continue
    return total
