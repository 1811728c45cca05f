# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#containers-module
"""Containers: named, started, stopped, watched, removed. The shims hold them; the files remember them."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time

from mini_docker.engine.document import InvalidRequest, resources
from mini_docker.engine.errors import Refused
from mini_docker.engine.explain import read_steps
from mini_docker.engine.launch import Launch, cgroup_of, new_record, remove_cgroup, unpack_layers
from mini_docker.engine.layers import Layers
from mini_docker.engine.logs import SECOND
from mini_docker.engine.modes import by_id
from mini_docker.engine.names import valid_name
from mini_docker.engine.orders import (
    StartFailed,
    ask_shim,
    check_update,
    first_word,
    order_of,
    words_of,
)
from mini_docker.engine.remap import new_mappings, root_of
from mini_docker.engine.starter import what_to_start
from mini_docker.engine.states import (
    is_alive,
    next_delay,
    parse_policy,
    parse_signal,
    wants_restart,
)
from mini_docker.engine.store import Conflict, NoSuchContainer, Store, replace_file
from mini_docker.engine.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    from mini_docker.cgroups.tree import Cgroup
    from mini_docker.engine.connect import Wiring
    from mini_docker.engine.events import Events
    from mini_docker.engine.explain import Done
    from mini_docker.engine.launch import Ready
    from mini_docker.engine.remap import Remap
    from mini_docker.engine.zygote import Zygote
    from mini_docker.images.layout import Image

    class Connector(Protocol):
        """What gives a container its networks and volumes: the engine's plug, or a stand-in."""

        wiring: Wiring

        def connect(self, launch: Launch, spec: dict[str, Any]) -> int | None:
            """Return the network namespace that was made for it, if one was."""

        def disconnect(self, record: dict[str, Any]) -> None:
            """Take away what `connect` gave; what is gone is fine."""


# %% notebooks/14f_states.ipynb#container-errors
class NotModified(Exception):
    """The container is already in the state that was asked for."""


class EngineError(Exception):
    """An operation that failed; the text is for the user."""


# %% notebooks/14f_states.ipynb#container
class Container:
    """A container in the daemon's memory: its record, and who waits for it. Change it under `lock`."""

    def __init__(self, record: dict[str, Any]) -> None:
        """Hold a record; nothing runs yet, as far as is known."""
        self.record = record
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.exits = 0
        self.removed = False
        self.stopped = False  # by its user: no policy starts it again
        self.kept = False  # between the two halves of a restart: no end removes it
        self.delay = 0.0
        self.clients: list[tuple[socket.socket, dict[str, Any]]] = []

    @property
    def id(self) -> str:
        """The 64 hex digits."""
        return str(self.record["Id"])

    @property
    def name(self) -> str:
        """The name, without a slash."""
        return str(self.record["Name"])

    @property
    def host(self) -> dict[str, Any]:
        """The HostConfig."""
        host: dict[str, Any] = self.record["HostConfig"]
        return host

    @property
    def state(self) -> dict[str, Any]:
        """The state as it is on disk."""
        state: dict[str, Any] = self.record["State"]
        return state

    @property
    def alive(self) -> bool:
        """Whether it has a process."""
        return is_alive(self.record)

    def require_alive(self) -> None:
        """Raise Conflict, in Docker's words, where there is no process."""
        if not self.alive:
            raise Conflict(f"Container {self.id} is not running")


# %% notebooks/14f_states.ipynb#containers
STOP_SECONDS = 10
KILL_SECONDS = 10
RETRIES = 10


class Containers:
    """The manager of all containers of a data root."""

    def __init__(
        self,
        store: Store,
        zygote: Zygote,
        events: Events,
        network: Connector,
        remap: Remap | None = None,
    ) -> None:
        """Read all records; `Recovery` then finds out which of them live. Raises OSError."""
        self.remap = remap
        self.store, self.zygote, self.events, self.network = store, zygote, events, network
        self.lock = threading.Lock()
        self.watch = Watch()
        self.on_start: list[Callable[[Container], None]] = []
        self.by_id = {record["Id"]: Container(record) for record in store.records()}
        self.by_name = {container.name: container for container in self.by_id.values()}
        self.layers = Layers(store, lambda: [container.record for container in self.all()])

    # --- finding

    def all(self) -> list[Container]:
        """Return all containers, the newest first."""
        with self.lock:
            found = list(self.by_id.values())
        return sorted(found, key=lambda container: -float(container.record["Created"]))

    def busy(self) -> bool:
        """Say whether a container lives, or waits to be started again."""
        return any(one.alive or one.state["Status"] == "restarting" for one in self.all())

    def find(self, reference: str) -> Container:
        """Return the container with this id, name or unique start of an id.

        Raises NoSuchContainer, Conflict.
        """
        with self.lock:
            exact = self.by_id.get(reference) or self.by_name.get(reference.removeprefix("/"))
            if exact is not None:
                return exact
            matches = [key for key in self.by_id if reference and key.startswith(reference)]
            if len(matches) > 1:
                raise Conflict(f"Multiple IDs found with provided prefix: {reference}")
            if not matches:
                raise NoSuchContainer(f"No such container: {reference}")
            return self.by_id[matches[0]]

    def _id_of(self, name: str) -> str:
        """Return a container's id; of one that is not there (yet), the name."""
        try:
            return self.find(name).id
        except NoSuchContainer:
            return name

    # --- creating

    def create(self, request: dict[str, Any], name: str, image: Image, image_id: str) -> Container:
        """Create a container from the body of Docker's POST /containers/create.

        Raises Conflict, InvalidRequest, OSError; nothing is half made then.
        """
        wanted = valid_name(name) if name else ""
        parse_policy(request.get("HostConfig") or {})
        if request.get("StopSignal"):
            parse_signal(request["StopSignal"])
        host = by_id(request.get("HostConfig") or {}, self._id_of)
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
            self._forget(container_id, record["Name"])
            raise
        container = Container(record)
        with self.lock:
            self.by_id[container_id] = self.by_name[container.name] = container
        self.tell(container, "create")
        return container

    def _forget(self, container_id: str, name: str) -> None:
        if name:
            self.store.release_name(name, container_id)
        self.store.remove(container_id)

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

    # --- starting

    def start(self, reference: str, explain: bool = False) -> list[Done]:
        """Start a container; return what was done for it, init's steps only to `explain` them.

        Raises NotModified, Conflict, StartFailed, NoSuchContainer.
        """
        container = self.find(reference)
        with container.lock:
            if container.state["Status"] == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.alive:
                raise NotModified
            if container.removed or container.state["Status"] in ("removing", "dead"):
                raise Conflict("container is marked for removal and cannot be started")
            container.stopped = False
            container.delay = 0.0
            container.record["RestartCount"] = 0
            return self.launch(container, explain)

    def launch(self, container: Container, explain: bool = False) -> list[Done]:
        """Start a container's process in a shim of its own. Call it under the container's lock."""
        try:
            lifeline, pid, done = self._start_shim(container, explain)
        except (OSError, ValueError, InvalidRequest, Refused, NoSuchContainer) as error:
            self._not_started(container, StartFailed(words_of(error), False, 128))
        except StartFailed as error:
            self._not_started(container, error)
        now = time.time()
        state = {"Status": "running", "Pid": pid, "ExitCode": 0, "At": now, "StartedAt": now}
        container.record["State"] = {"FinishedAt": container.state.get("FinishedAt"), **state}
        self.note(container)
        self.tell_volumes(container, "mount")
        self.tell_networks(container, "connect")
        self.tell(container, "start")
        container.changed.notify_all()
        self.look_after(container, lifeline)
        return done

    def _not_started(self, container: Container, error: StartFailed) -> NoReturn:
        """Undo a start that failed and note why. Raises the error."""
        self.clean(container)
        for connection, _ in container.clients:
            connection.close()
        container.clients.clear()
        container.record["State"] = {**container.state, "ExitCode": error.code, "Error": str(error)}
        if container.state["Status"] == "restarting":
            container.state["Status"] = "exited"
        self.note(container)
        container.exits += 1
        container.changed.notify_all()
        if container.record["HostConfig"].get("AutoRemove"):
            self.erase(container, False)
        raise error

    def _start_shim(
        self, container: Container, explain: bool
    ) -> tuple[socket.socket, int, list[Done]]:
        """Make what is needed outside, and have a shim start the process.

        Returns its lifeline, the process's pid, and what was done.
        """
        if container.removed:
            raise Conflict("container is marked for removal and cannot be started")
        with self.store.lock():
            claim = self.store.claim(container.id)
        launch = Launch(self.store, container.record, self.network.wiring, True, self.zygote)
        ready = None
        try:
            ready = launch.outside(self.network.connect)
            order = self._write_order(container, launch.cgroup, ready, explain)
            fds = [("claim", claim.fd), ("rootfs", ready.rootfs_fd)]
            fds += [("cgroup", ready.cgroup_fd)] if ready.cgroup_fd is not None else []
            fds += [("netns", ready.netns_fd)] if ready.netns_fd is not None else []
            fds += [("userns", ready.userns_fd)] if ready.userns_fd is not None else []
            fds += [("shm", ready.shm_fd)] if ready.shm_fd is not None else []
            fds += [("client", connection.fileno()) for connection, _ in container.clients]
            directory = self.store.directory(container.id)
            lifeline = self.zygote.fork_shim(order, directory, fds)
        finally:
            os.close(claim.fd)
            for fd in ready[1:] if ready else ():
                if fd is not None:
                    os.close(fd)
        word = first_word(lifeline)
        for connection, _ in container.clients:
            connection.close()
        container.clients.clear()
        inside = read_steps(self.store.directory(container.id)) if explain else []
        return lifeline, word["pid"], launch.done + inside

    def _write_order(
        self, container: Container, cgroup: Cgroup, ready: Ready, explain: bool
    ) -> dict[str, Any]:
        """Return what the shim is to do, and write it and the document into the container's directory."""
        directory = self.store.directory(container.id)
        replace_file(f"{directory}/config.json", json.dumps(ready.spec).encode())
        self.store.forget_run(container.id)
        order = {
            **order_of(container.record, directory),
            "directories": cgroup.directories,
            "clients": [wanted for _, wanted in container.clients],
            "explain": explain,
        }
        replace_file(f"{directory}/order.json", json.dumps(order).encode())
        inside = ready.cgroup_fd is not None
        return order | what_to_start(self.store.root, ready.spec, cgroup, inside)

    # --- ending

    def look_after(self, container: Container, lifeline: socket.socket) -> None:
        """Be told of the container's end by its lifeline, and tell who wants to know of its start."""
        self.watch.add(lifeline, lambda word: self.ended(container))
        for call in self.on_start:
            call(container)

    def clean(self, container: Container) -> None:
        """Remove what a container that has ended has outside its directory. Repeating it is fine."""
        remove_cgroup(cgroup_of(container.id, container.host))
        self.network.disconnect(container.record)
        self.store.release_claim(container.id)

    def ended(self, container: Container) -> None:
        """Note the end of a container's process, and start it again if its policy says so."""
        with container.lock:
            if container.removed or not container.alive:
                return
            ended = self.store.read_exit(container.id) or {"ExitCode": 137, "At": time.time_ns()}
            lived = float(ended.get("Lived", 0.0))
            code, at = ended["ExitCode"], ended["At"] / SECOND
            killed = self._oom_killed(container)
            self.tell(container, "oom") if killed else None
            ends = dict((container.record.get("NetworkSettings") or {}).get("Networks") or {})
            self.clean(container)
            started = container.state.get("StartedAt", at)
            container.record["State"] = {
                "Status": "exited",
                "Pid": 0,
                "ExitCode": code,
                "At": at,
                "StartedAt": started,
                "FinishedAt": at,
                "OOMKilled": killed,
                "Health": container.state.get("Health"),
            }
            self.tell(container, "die", exitCode=str(code))
            self.tell_networks(container, "disconnect", ends)
            self.tell_volumes(container, "unmount")
            again = wants_restart(container.record, code, container.stopped)
            if again:
                container.state["Status"] = "restarting"
                container.delay = next_delay(container.delay, lived)
            self.note(container)
            container.exits += 1
            container.changed.notify_all()
            if again:
                threading.Timer(
                    container.delay, self._restart, (container, container.exits)
                ).start()
            elif container.record["HostConfig"].get("AutoRemove") and not container.kept:
                self.erase(container, True)

    @staticmethod
    def _oom_killed(container: Container) -> bool:
        try:
            return cgroup_of(container.id, container.host).oom_kills() > 0
        except OSError:
            return False

    def _restart(self, container: Container, exits: int) -> None:
        """Start a container again, unless somebody did something else with it meanwhile."""
        with container.lock:
            if container.state["Status"] != "restarting" or container.exits != exits:
                return
            container.record["RestartCount"] = container.record.get("RestartCount", 0) + 1
            try:
                self.launch(container)
            except StartFailed:
                pass  # it is in the record

    # --- stopping

    def ask(
        self, container: Container, request: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> socket.socket:
        """Send a request to a container's shim; return the connection. Raises OSError."""
        return ask_shim(self.store.directory(container.id), "shim.sock", request, fds)

    def signal(self, container: Container, number: int) -> None:
        """Send a signal to a container's first process; one that has ended is fine."""
        try:
            self.ask(container, {"ask": "kill", "signal": number}).close()
        except OSError:
            pass

    def kill(self, reference: str, text: str) -> None:
        """Send a signal. Raises InvalidRequest for an unknown one, Conflict when it does not run."""
        number = parse_signal(text or "SIGKILL")
        container = self.find(reference)
        if not container.alive:
            raise Conflict(
                f"Cannot kill container: {reference}: Container {container.id} is not running"
            )
        if number == signal.SIGKILL:
            container.stopped = True
            self._kill(container)
        else:
            self.signal(container, number)
        self.tell(container, "kill", signal=str(number))

    def _kill(self, container: Container) -> None:
        """Kill, and wait for the end. A frozen container must be thawed to die."""
        exits = container.exits
        self.signal(container, signal.SIGKILL)
        if container.state["Status"] == "paused":
            cgroup_of(container.id, container.host).thaw()
        if not self._wait_for_exit(container, exits, KILL_SECONDS):
            cgroup_of(container.id, container.host).kill()
            if not self._wait_for_exit(container, exits, KILL_SECONDS):
                raise EngineError(f"Container {container.id} does not end: it may be in the kernel")

    @staticmethod
    def _wait_for_exit(container: Container, exits: int, seconds: float) -> bool:
        with container.lock:
            return container.changed.wait_for(lambda: container.exits > exits, seconds)

    def stop(self, reference: str, seconds: int | None) -> None:
        """Ask a container to end, and after `seconds` (-1: never) kill it. Raises NotModified."""
        container = self.find(reference)
        with container.lock:
            if container.state["Status"] == "restarting":
                self._cancel_restart(container)
                return
            if not container.alive:
                raise NotModified
            exits = container.exits
            container.stopped = True
        self._stop(container, exits, seconds)
        self.tell(container, "stop")

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
        number = parse_signal(config.get("StopSignal") or "SIGTERM")
        self.signal(container, number)
        self.tell(container, "kill", signal=str(number))
        if container.state["Status"] == "paused":
            cgroup_of(container.id, container.host).thaw()
        with container.lock:
            done = container.changed.wait_for(
                lambda: container.exits > exits, None if patience < 0 else patience
            )
        if not done:
            self._kill(container)
            self.tell(container, "kill", signal="9")

    def restart(self, reference: str, seconds: int | None) -> None:
        """Stop a container that runs, and start it. Raises StartFailed."""
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
        wanted = valid_name(name)
        with container.lock:
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

    # --- removing and waiting

    def remove(self, reference: str, force: bool, volumes: bool = False) -> None:
        """Remove a container, a running one only by `force`, its anonymous `volumes` too. Raises Conflict."""
        container = self.find(reference)
        with container.lock:
            if container.alive and not force:
                paused = container.state["Status"] == "paused"
                raise Conflict(
                    f"You cannot remove a {'paused' if paused else 'running'} container {container.id}. "
                    + ("Unpause and then stop the container before attempting removal or force remove"
                       if paused else "Stop the container before attempting removal or force remove")
                )  # fmt: skip
            if container.state["Status"] == "removing":
                raise Conflict(f"removal of container {reference} is already in progress")
            container.stopped = True
        for _ in range(RETRIES):  # somebody else may start it again meanwhile
            if container.alive:
                self._kill(container)
            with container.lock:
                container.stopped = True
                if not container.alive:
                    self.erase(container, True, volumes)
                    return
        raise Conflict(f"container {reference} is started again and again")

    def erase(self, container: Container, tell: bool, volumes: bool = False) -> None:
        """Remove a container that does not run. Call it under its lock; once gone is gone."""
        if container.removed:
            return
        container.state["Status"] = "removing"
        self.note(container)
        with self.lock:
            self.by_id.pop(container.id, None)
            self.by_name.pop(container.name, None)
        self._forget(container.id, container.name)
        container.removed = True
        if volumes or container.record["HostConfig"].get("AutoRemove"):
            self.network.wiring.forget(container.record, self.volume_users())
        container.changed.notify_all()
        for connection, _ in container.clients:
            connection.close()
        if tell:
            self.tell(container, "destroy")
        self.layers.clean_after(container.record)

    def volume_users(self) -> dict[str, list[str]]:
        """Return {volume: ids} of the containers that name it, running or not."""
        users: dict[str, list[str]] = {}
        for container in self.all():
            for found in container.record.get("MountPoints") or ():
                users.setdefault(found["Name"], []).append(container.id)
        return users

    def update(self, reference: str, limits: dict[str, Any]) -> None:
        """Change limits and policy, of a running container at once. Raises InvalidRequest, OSError."""
        container = self.find(reference)
        with container.lock:
            host = {**container.record["HostConfig"], **limits}
            parse_policy(host)
            written = resources(host)
            check_update(container.record, limits)
            if container.alive:
                cgroup_of(container.id, container.host).update(written)
            self.store.write({**container.record, "HostConfig": host})
            container.record["HostConfig"] = host
        self.tell(container, "update")

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

    def waiter(
        self, container: Container, condition: str
    ) -> Callable[[Callable[[], bool]], int | None]:
        """Return what waits for "not-running" (the default), "next-exit" or "removed", from this moment on.

        Called with `gone`, which is asked regularly, it returns the exit code, or None when nobody waits.
        """
        exits = container.exits

        def reached() -> bool:
            if condition == "next-exit":
                return container.exits > exits or container.removed
            if condition == "removed":
                return container.removed
            if container.exits > exits:  # between two lives it does not run
                return True
            return not container.alive and container.state["Status"] != "restarting"

        def wait(gone: Callable[[], bool]) -> int | None:
            with container.lock:
                while not container.changed.wait_for(reached, 1.0):
                    if gone():
                        return None
                return int(container.state["ExitCode"])

        return wait
