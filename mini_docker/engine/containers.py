# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#containers
"""Containers as Docker's clients know them: created, started, stopped, renamed, removed."""

from __future__ import annotations

import os
import signal

from mini_docker.engine.container import Container, EngineError, NotModified
from mini_docker.engine.document import InvalidRequest, resources
from mini_docker.engine.launch import cgroup_of, new_record, unpack_layers
from mini_docker.engine.lives import Lives
from mini_docker.engine.log_options import check_log
from mini_docker.engine.modes import by_id
from mini_docker.engine.names import valid_name
from mini_docker.engine.orders import StartFailed, check_update
from mini_docker.engine.remap import new_mappings, root_of
from mini_docker.engine.states import parse_policy, parse_signal, unwatched
from mini_docker.engine.store import Conflict, NoSuchContainer, Store
from mini_docker.engine.wishes import discard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mini_docker.engine.events import Events
    from mini_docker.engine.explain import Done
    from mini_docker.engine.remap import Remap
    from mini_docker.engine.roster import Connector
    from mini_docker.engine.zygote import Zygote
    from mini_docker.images.layout import Image

STOP_SECONDS = 10
RETRIES = 10


def stop_signal(container: Container) -> int:
    """Return the number of the signal that asks a container to end."""
    return parse_signal(container.record["Config"].get("StopSignal") or "SIGTERM")


class Containers(Lives):
    """The manager of all containers of a data root."""

    def __init__(
        self,
        store: Store,
        zygote: Zygote,
        events: Events,
        network: Connector,
        remap: Remap | None = None,
    ) -> None:
        """Read all records; new containers' ids are mapped by `remap`. Raises OSError."""
        super().__init__(store, zygote, events, network)
        self.remap = remap
        self.on_start.append(self.tell_parents)

    def create(self, request: dict[str, Any], name: str, image: Image, image_id: str) -> Container:
        """Create a container from the body of Docker's POST /containers/create.

        Raises Conflict, InvalidRequest, OSError; nothing is half made then.
        """
        wanted = valid_name(name) if name else ""
        parse_policy(request.get("HostConfig") or {})
        if request.get("StopSignal"):
            parse_signal(request["StopSignal"])
        host = by_id(request.get("HostConfig") or {}, self._id_of)
        check_log(host)
        for key in ("IpcMode", "PidMode"):
            kind, _, donor = (host.get(key) or "").partition(":")
            if kind == "container" and donor and donor not in self.by_id:
                raise InvalidRequest(f"No such container: {donor}")
        request = {**request, "HostConfig": host}
        container_id = os.urandom(32).hex()
        record = {
            **new_record(request, image, container_id),
            "ImageID": image_id,
            "Driver": self.store.roots.name,
            **new_mappings(request, self.remap),
        }
        unpack_layers(self.store, image)
        record |= self.network.wiring.create(request, record["ImageConfig"])
        os.mkdir(self.store.directory(container_id), 0o710)
        os.chown(self.store.directory(container_id), 0, root_of(record)[1])
        try:
            record["Name"] = self.store.claim_name(wanted, container_id)
            self.store.write(record)
        except BaseException:
            self.forget(container_id, record["Name"])
            raise
        container = Container(record)
        with self.lock:
            self.by_id[container_id] = self.by_name[container.name] = container
        for point in record["MountPoints"]:
            if point["Type"] == "volume":
                self.events.publish("volume", "create", point["Name"], {"driver": point["Driver"]})
        self.tell(container, "create")
        return container

    def _id_of(self, name: str) -> str:
        """Return a container's id; of one that is not there (yet), the name."""
        try:
            return self.find(name).id
        except NoSuchContainer:
            return name

    def start(self, reference: str, explain: bool = False) -> list[Done]:
        """Start a container; return what was done for it, init's steps only to `explain` them.

        Raises NotModified, Conflict, StartFailed, NoSuchContainer.
        """
        container = self.find(reference)
        with container.lock:
            if container.state["Status"] == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.alive or container.restarting:
                raise NotModified
            if container.removed or container.state["Status"] in ("removing", "dead"):
                raise Conflict("container is marked for removal and cannot be started")
            container.stopped = False
            container.delay = 0.0
            container.record["RestartCount"] = 0
            return self.launch(container, explain)

    def kill(self, reference: str, text: str) -> None:
        """Send a signal. Raises InvalidRequest for an unknown one, Conflict when it does not run."""
        number = parse_signal(text or "SIGKILL")
        container = self.find(reference)
        with container.lock:  # before its end is told, which takes the lock too
            if container.restarting:
                self._cancel_restart(container)
                return
            if not container.alive:
                raise Conflict(
                    f"Cannot kill container: {reference}: Container {container.id} is not running"
                )
            self.tell(container, "kill", signal=str(number))
            if number in (signal.SIGKILL, stop_signal(container)):
                container.stopped = True
            if number != signal.SIGKILL:
                self.signal(container, number)
                return
        self.end_now(container)

    def stop(self, reference: str, seconds: int | None) -> None:
        """Ask a container to end, and after `seconds` (-1: never) kill it. Raises NotModified."""
        container = self.find(reference)
        with container.lock:
            if container.restarting:
                self._cancel_restart(container)
                return
            if not container.alive:
                raise NotModified
            exits = container.exits
            container.stopped = True
            container.stops += 1
        try:
            self._stop(container, exits, seconds)
        finally:
            with container.lock:  # an end has told of the stops, and begun to count anew
                container.stops -= container.exits == exits

    def _cancel_restart(self, container: Container) -> None:
        container.stopped = True
        container.state["Status"] = "exited"
        container.exits += 1
        container.changed.notify_all()
        self.note(container)

    def _stop(self, container: Container, exits: int, seconds: int | None) -> None:
        config = container.record["Config"]
        if seconds is None:
            seconds = config.get("StopTimeout")
        patience = STOP_SECONDS if seconds is None else seconds
        number = stop_signal(container)
        self.tell(container, "kill", signal=str(number))
        self.signal(container, number)
        self.let_go(container)
        with container.lock:
            done = container.changed.wait_for(
                lambda: container.exits > exits, None if patience < 0 else patience
            )
        if not done:
            self.tell(container, "kill", signal="9")
            self.end_now(container)

    def restart(self, reference: str, seconds: int | None) -> None:
        """Stop a container that runs, and start it. Raises EngineError."""
        container = self.find(reference)
        container.kept = True
        try:
            self.stop(reference, seconds)
        except NotModified:
            pass
        finally:
            container.kept = False
        try:
            self.start(reference)
        except NotModified:
            pass
        except StartFailed as error:
            raise EngineError(f"Cannot restart container {reference}: {error}") from error
        self.tell(container, "restart")

    def pause(self, reference: str, briefly: bool = False) -> None:
        """Freeze all processes of a container; `briefly`, a next daemon lets them go on. Raises Conflict."""
        container = self.find(reference)
        with container.lock:
            if container.state["Status"] == "paused":
                raise Conflict(f"Container {container.id} is already paused")
            container.require_alive()
            cgroup_of(container.id, container.host).freeze()
            container.state["Status"] = "paused"
            if not briefly:
                if container.state.get("Health"):
                    container.state["Health"] = unwatched(container.state["Health"])
                self.note(container)
        self.tell(container, "pause")

    def unpause(self, reference: str) -> None:
        """Let a paused container run on. Raises EngineError (Docker answers 500)."""
        container = self.find(reference)
        with container.lock:
            if container.state["Status"] != "paused":
                raise EngineError(f"Container {container.id} is not paused")
            cgroup_of(container.id, container.host).thaw()
            container.state["Status"] = "running"
            self.note(container)
        self.tell(container, "unpause")

    def rename(self, reference: str, name: str) -> None:
        """Give a container another name. Raises InvalidRequest, Conflict."""
        container = self.find(reference)
        if not name:
            raise InvalidRequest("Neither old nor new names may be empty")
        try:
            wanted = valid_name(f"/{name.removeprefix('/')}")
        except InvalidRequest as error:
            raise InvalidRequest(f"Error when allocating new name: {error}") from None
        with container.lock:
            container.require_there()
            old = container.name
            if wanted == old:
                raise InvalidRequest("Renaming a container with the same name as its current name")
            try:
                self.store.claim_name(wanted, container.id)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error}") from None
            container.record["Name"] = wanted
            try:
                self.write(container)
            except OSError:
                container.record["Name"] = old
                self.store.release_name(wanted, container.id)
                raise
            self.store.release_name(old, container.id)
            self.network.wiring.networks.rename(container.id, wanted)
            with self.lock:
                self.by_name.pop(old, None)
                self.by_name[wanted] = container
        self.tell(container, "rename", oldName=f"/{old}")

    def unlink(self, reference: str) -> None:
        """Remove a legacy link by its name, "web/db". Raises NoSuchContainer, InvalidRequest."""
        child = self.find(reference)
        parent, _, alias = reference.strip("/").partition("/")
        if not alias:
            raise InvalidRequest("Conflict, cannot remove the default link name of the container")
        container = self.find(parent)
        with container.lock:
            container.require_there()
            links = container.record["Links"]
            kept = [one for one in links if (one["Alias"], one["Id"]) != (alias, child.id)]
            self.store.write({**container.record, "Links": kept})
            container.record["Links"] = kept
            self.network.wiring.write_names(container.record, alias)

    def tell_parents(self, container: Container) -> None:
        """Write the address of a container that has just been started for those that are linked to it."""
        for parent in self.all():
            if any(link["Id"] == container.id for link in parent.record.get("Links") or ()):
                with parent.lock:
                    self.network.wiring.write_names(parent.record)

    def remove(self, reference: str, force: bool, volumes: bool = False) -> None:
        """Remove a container, a running one only by `force`, its anonymous `volumes` too. Raises Conflict."""
        container = self.find(reference)
        with container.lock:
            if (container.alive or container.restarting) and not force:
                status = container.state["Status"]
                remedy = "Unpause and then stop" if status == "paused" else "Stop"
                raise Conflict(
                    f"You cannot remove a {status} container {container.id}. "
                    f"{remedy} the container before attempting removal or force remove"
                )
            if container.state["Status"] == "removing":
                raise Conflict(f"removal of container {reference} is already in progress")
            container.stopped = True
        for _ in range(RETRIES):  # somebody else may start it again meanwhile
            if container.alive:
                self.tell(container, "kill", signal="9")
                self.end_now(container)
            with container.lock:
                container.stopped = True
                if not container.alive:
                    self.erase(container, True, volumes)
                    return
        raise Conflict(f"container {reference} is started again and again")

    def update(
        self, reference: str, limits: dict[str, Any], asked: dict[str, Any] | None = None
    ) -> list[str]:
        """Change limits and policy, of a running container at once; return what there is to warn of.

        `asked` is all that was asked for, the `limits` and what does not change. Raises InvalidRequest,
        Conflict, OSError.
        """
        container = self.find(reference)
        with container.lock:
            container.require_there()
            check_update(container.record, limits)
            host = {**container.record["HostConfig"], **limits}
            parse_policy(host)
            wishes = {key: value for key, value in (asked or limits).items() if value}
            warnings = discard(wishes, resources({**host, **wishes}))[1]
            if container.alive:
                cgroup_of(container.id, container.host).update(resources(host))
            self.store.write({**container.record, "HostConfig": host})
            container.record["HostConfig"] = host
        self.tell(container, "update")
        return warnings

    def prune(
        self, until: float, matches: Callable[[dict[str, str]], bool]
    ) -> tuple[list[str], int]:
        """Remove the stopped containers made before `until` whose labels match; return ids and bytes."""
        removed, freed = [], 0
        for container in self.all():
            with container.lock:
                stopped = container.state["Status"] in ("created", "exited", "dead")
                old = container.record["Created"] < until
                labels = container.record["Config"].get("Labels") or {}
                if stopped and old and not container.removed and matches(labels):
                    freed += self.store.roots.size(container.record)
                    self.erase(container, True)
                    removed.append(container.id)
        return removed, freed
