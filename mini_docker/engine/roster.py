# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#roster
"""The containers of a data root: in memory by id and name, on the disk by their records."""

from __future__ import annotations

import threading

from mini_docker.engine.accidents import log, sentence, told
from mini_docker.engine.container import Container, EngineError
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.launch import cgroup_of, remove_cgroup
from mini_docker.engine.layers import Layers
from mini_docker.engine.store import Conflict, NoSuchContainer, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Protocol

    from mini_docker.engine.connect import Wiring
    from mini_docker.engine.events import Events
    from mini_docker.engine.launch import Launch

    class Connector(Protocol):
        """What gives a container its networks and volumes: the engine's plug, or a stand-in."""

        wiring: Wiring

        def connect(self, launch: Launch, spec: dict[str, Any]) -> int | None:
            """Return the network namespace that was made for it, if one was."""

        def disconnect(self, record: dict[str, Any]) -> None:
            """Take away what `connect` gave; what is gone is fine."""


class Roster:
    """Who is there. `lock` is of the two tables; a container's own lock is taken before it."""

    def __init__(self, store: Store, events: Events, network: Connector) -> None:
        """Read all records; `Recovery` then finds out which of them live. Raises OSError."""
        self.store, self.events, self.network = store, events, network
        self.lock = threading.Lock()
        self.by_id = {record["Id"]: Container(record) for record in store.records()}
        self.by_name = {container.name: container for container in self.by_id.values()}
        self.layers = Layers(store, lambda: [container.record for container in self.all()])

    def all(self) -> list[Container]:
        """Return all containers, the newest first."""
        with self.lock:
            found = list(self.by_id.values())
        return sorted(found, key=lambda container: -float(container.record["Created"]))

    def busy(self) -> bool:
        """Say whether a container lives, or waits to be started again."""
        return any(one.alive or one.state["Status"] == "restarting" for one in self.all())

    def find(self, reference: str) -> Container:
        """Return the container with this id, name, name of a link ("web/db") or unique start of an id.

        Raises NoSuchContainer, Conflict.
        """
        if not reference:
            raise InvalidRequest('invalid name or ID supplied: ""')
        with self.lock:
            name = reference.removeprefix("/")
            exact = self.by_id.get(reference) or self.by_name.get(name) or self._linked(name)
            if exact is not None:
                return exact
            matches = [key for key in self.by_id if reference and key.startswith(reference)]
            if len(matches) > 1:
                raise Conflict(f"Multiple IDs found with provided prefix: {reference}")
            if not matches:
                raise NoSuchContainer(f"No such container: {reference}")
            return self.by_id[matches[0]]

    def _linked(self, name: str) -> Container | None:
        """Return the container that another one's legacy link leads to: "web/db". Call it under `lock`."""
        parent, _, alias = name.partition("/")
        links = self.by_name[parent].record.get("Links") if parent in self.by_name else None
        return next(
            (self.by_id.get(one["Id"]) for one in links or () if one["Alias"] == alias), None
        )

    def link_names(self) -> dict[str, list[str]]:
        """Return {id: the names, "/web/db", that legacy links gave to a container}."""
        found: dict[str, list[str]] = {}
        for container in self.all():
            for link in container.record.get("Links") or ():
                found.setdefault(link["Id"], []).append(f"/{container.name}/{link['Alias']}")
        return found

    def links_of(self, container: Container) -> list[str]:
        """Return a container's legacy links as Docker shows them: "/db:/web/alias"."""
        links = container.record.get("Links") or ()
        there = {link["Id"]: self.by_id.get(link["Id"]) for link in links}
        return [
            f"/{(child.name if (child := there[link['Id']]) else link['Name'])}"
            f":/{container.name}/{link['Alias']}"
            for link in links
        ]

    def volume_users(self) -> dict[str, list[str]]:
        """Return {volume: ids} of the containers that name it, running or not."""
        users: dict[str, list[str]] = {}
        for container in self.all():
            for found in container.record.get("MountPoints") or ():
                users.setdefault(found["Name"], []).append(container.id)
        return users

    def write(self, container: Container) -> None:
        """Write a container's record, unless it is gone. Raises OSError."""
        if not container.removed:
            self.store.write(container.record)

    def note(self, container: Container) -> None:
        """Write down what has happened to a container, which a full disk does not undo.

        The daemon remembers it; the next one finds out from the shim, or from the exit code it left.
        """
        try:
            self.write(container)
        except OSError:
            pass

    def forget(self, container_id: str, name: str) -> None:
        """Remove what the disk knows of a container; it keeps its name until its root is gone."""
        self.store.remove_root(container_id)
        if name:
            self.store.release_name(name, container_id)
        self.store.remove(container_id)

    def erase(self, container: Container, tell: bool, volumes: bool = False) -> None:
        """Remove a container that does not run. Call it under its lock; once gone is gone.

        Raises EngineError where something of it stays: it is dead then, and can be removed again.
        """
        if container.removed:
            return
        container.state["Status"] = "removing"
        with self.lock:
            self.by_id.pop(container.id, None)
            self.by_name.pop(container.name, None)
        try:
            if self.store.is_left(container.id):
                self.clean(container)
            self.forget(container.id, container.name)
        except Exception as error:
            self._not_erased(container, error)
        container.removed = True
        for link in (one for other in self.all() for one in other.record.get("Links") or ()):
            if link["Id"] == container.id:
                link["Name"] = container.name  # as it was called in the end
        container.changed.notify_all()
        for connection, _ in container.clients:
            connection.close()
        container.clients.clear()
        if volumes or container.record["HostConfig"].get("AutoRemove"):
            for name in self.network.wiring.forget(container.record, self.volume_users()):
                self.events.publish("volume", "destroy", name, {"driver": "local"})
        if tell:
            self.tell(container, "destroy")
        self.layers.clean_after(container.record)

    def _not_erased(self, container: Container, error: Exception) -> NoReturn:
        """Keep a container that could not be removed, under its name, as dead. Raises EngineError."""
        words = f"container {container.id} cannot be removed: {sentence(error)}"
        container.state.update(Status="dead", Error=words)
        with self.lock:
            self.by_id[container.id] = container
            self.by_name.setdefault(container.name, container)
        container.changed.notify_all()
        raise EngineError(words) from error

    def erase_if_possible(self, container: Container, tell: bool) -> None:
        """Remove a container that goes with its end; where that cannot be, the log says why."""
        try:
            self.erase(container, tell)
        except EngineError as error:
            log(told(error))

    def clean(self, container: Container) -> None:
        """Remove what a container that has ended has outside its directory. Repeating it is fine."""
        remove_cgroup(cgroup_of(container.id, container.host))
        self.network.disconnect(container.record)
        self.store.release_claim(container.id)

    def clean_up(self, container: Container) -> None:
        """Clean, as far as it goes; what stays is left to the next start, removal or daemon."""
        try:
            self.clean(container)
        except Exception as error:
            log(f"container {container.id} is not cleaned up: {told(error)}")

    # --- events

    def tell(self, container: Container, action: str, **more: str) -> None:
        """Publish an event of a container, with its labels, image and name."""
        record = container.record
        labels = {key: str(value) for key, value in (record["Config"].get("Labels") or {}).items()}
        attributes = {**labels, "image": record["Config"]["Image"], "name": container.name, **more}
        self.events.publish("container", action, container.id, attributes)

    def tell_networks(
        self, container: Container, action: str, ends: dict[str, Any] | None = None
    ) -> None:
        """Publish that a container has been connected to its networks, or (from `ends`) disconnected."""
        if ends is None:
            ends = (container.record.get("NetworkSettings") or {}).get("Networks") or {}
        for name, end in ends.items():
            kind = {"host": "host", "none": "null"}.get(name, "bridge")
            about = {"container": container.id, "name": name, "type": kind}
            self.events.publish("network", action, end.get("NetworkID", ""), about)

    def tell_volumes(self, container: Container, action: str) -> None:
        """Publish that a container's volumes have been mounted, or unmounted."""
        for point in container.record.get("Mounts") or ():
            if point["Type"] != "volume":
                continue
            about = {"container": container.id, "driver": point["Driver"]}
            if action == "mount":
                writes = str(bool(point["RW"])).lower()
                about |= {"destination": point["Destination"], "read/write": writes}
                about["propagation"] = point["Propagation"]
            self.events.publish("volume", action, point["Name"], about)
