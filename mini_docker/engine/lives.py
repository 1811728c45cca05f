# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#lives
"""A container's life: begun by an order to a shim, ended by its lifeline."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

from mini_docker.engine.accidents import log, sentence, told
from mini_docker.engine.container import Container, EngineError
from mini_docker.engine.explain import read_steps
from mini_docker.engine.launch import Launch, cgroup_of
from mini_docker.engine.moments import SECOND
from mini_docker.engine.orders import StartFailed, ask_shim, first_word, not_planned, order_of
from mini_docker.engine.roster import Roster
from mini_docker.engine.starter import what_to_start, with_plan
from mini_docker.engine.states import next_delay, renewed, wants_restart
from mini_docker.engine.store import Claim, Conflict, Store
from mini_docker.engine.watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from mini_docker.cgroups.tree import Cgroup
    from mini_docker.engine.events import Events
    from mini_docker.engine.explain import Done
    from mini_docker.engine.launch import Ready
    from mini_docker.engine.roster import Connector
    from mini_docker.engine.zygote import Zygote

KILL_SECONDS = 10


class Lives(Roster):
    """Starts the containers of a roster, and hears of their ends."""

    def __init__(self, store: Store, zygote: Zygote, events: Events, network: Connector) -> None:
        """Name who forks shims. Raises OSError."""
        super().__init__(store, events, network)
        self.zygote, self.watch = zygote, Watch()
        self.on_start: list[Callable[[Container], None]] = []

    def launch(self, container: Container, explain: bool = False) -> list[Done]:
        """Start a container's process in a shim of its own. Call it under the container's lock."""
        try:
            lifeline, pid, done = self._start_shim(container, explain)
        except StartFailed as error:
            self._not_started(container, error)
        except Exception as error:
            failed = StartFailed(sentence(error), False, 128)
            failed.__cause__ = error
            self._not_started(container, failed)
        now = time.time()
        state = {"Status": "running", "Pid": pid, "ExitCode": 0, "At": now, "StartedAt": now}
        earlier = container.state
        container.record["State"] = {"FinishedAt": earlier.get("FinishedAt"), **state}
        if earlier.get("Health"):
            container.state["Health"] = renewed(earlier["Health"])
        self.note(container)
        self.tell(container, "start")
        container.changed.notify_all()
        self.look_after(container, lifeline)
        return done

    def _not_started(self, container: Container, error: StartFailed) -> NoReturn:
        """Undo a start that failed and note why. Raises the error."""
        for connection, _ in container.clients:
            connection.close()
        container.clients.clear()
        self.clean_up(container)
        container.record["State"] = {**container.state, "ExitCode": error.code, "Error": str(error)}
        if container.state["Status"] == "restarting":
            container.state["Status"] = "exited"
        self.note(container)
        container.exits += 1
        container.changed.notify_all()
        if container.record["HostConfig"].get("AutoRemove"):
            self.erase_if_possible(container, False)
        raise error

    def _start_shim(
        self, container: Container, explain: bool
    ) -> tuple[socket.socket, int, list[Done]]:
        """Make what is needed outside, and have a shim start the process; publish what is made and undone.

        Returns its lifeline, the process's pid, and what was done.
        """
        if container.removed:
            raise Conflict("container is marked for removal and cannot be started")
        claim = self._claim(container)
        launch = Launch(self.store, container.record, self.network.wiring, True, self.zygote)
        try:
            ready = launch.outside(self.network.connect)
            self._tell_outside(container, "connect", "mount")
            try:
                lifeline = self._fork(container, launch, ready, claim.fd, explain)
                word = first_word(lifeline)
            except BaseException:
                self._tell_outside(container, "disconnect", "unmount")
                raise
        finally:
            os.close(claim.fd)
        for connection, _ in container.clients:
            connection.close()
        container.clients.clear()
        inside = read_steps(self.store.directory(container.id)) if explain else []
        return lifeline, word["pid"], launch.done + inside

    def _claim(self, container: Container) -> Claim:
        """Take the lock of who looks after a container; what an earlier life left is cleaned first."""
        if self.store.is_left(container.id):
            self.clean(container)
        with self.store.lock():
            return self.store.claim(container.id)

    def _tell_outside(self, container: Container, of_networks: str, of_volumes: str) -> None:
        self.tell_networks(container, of_networks)
        self.tell_volumes(container, of_volumes)

    def _fork(
        self, container: Container, launch: Launch, ready: Ready, claim_fd: int, explain: bool
    ) -> socket.socket:
        """Hand a shim what was made outside; return its lifeline, and close what is ready."""
        try:
            order = self._write_order(container, launch.cgroup, ready, explain)
            fds = [("claim", claim_fd), ("rootfs", ready.rootfs_fd)]
            fds += [("cgroup", ready.cgroup_fd)] if ready.cgroup_fd is not None else []
            fds += [("netns", ready.netns_fd)] if ready.netns_fd is not None else []
            fds += [("userns", ready.userns_fd)] if ready.userns_fd is not None else []
            fds += [("shm", ready.shm_fd)] if ready.shm_fd is not None else []
            fds += [("client", connection.fileno()) for connection, _ in container.clients]
            return self.zygote.fork_shim(order, self.store.directory(container.id), fds)
        finally:
            for fd in ready[1:]:
                if fd is not None:
                    os.close(fd)

    def _write_order(
        self, container: Container, cgroup: Cgroup, ready: Ready, explain: bool
    ) -> dict[str, Any]:
        """Return what the shim is to do, and write it and the document down."""
        self.store.forget_run(container.id)
        order = {
            **order_of(container.record, self.store.directory(container.id)),
            "directories": cgroup.directories,
            "clients": [wanted for _, wanted in container.clients],
            "explain": explain,
        }
        self.store.write_order(container.id, {**order, "document": ready.spec})
        inside = ready.cgroup_fd is not None
        order |= what_to_start(self.store.root, ready.spec, cgroup, inside)
        given = {"rootfs": ready.rootfs_fd, "netns": ready.netns_fd, "shm": ready.shm_fd}
        names = [name for name, fd in given.items() if fd is not None]
        try:
            return with_plan(order, ready.spec, names)
        except ValueError as error:
            raise not_planned(error) from None

    def look_after(self, container: Container, lifeline: socket.socket) -> None:
        """Be told of the container's end by its lifeline, and tell who wants to know of its start."""
        self.watch.add(lifeline, lambda word: self.ended(container))
        for call in self.on_start:
            call(container)

    def ended(self, container: Container) -> None:
        """Note the end of a container's process, and start it again if its policy says so."""
        with container.lock:
            if container.removed or not container.alive:
                return
            ended = self.store.read_exit(container.id) or {"ExitCode": 137, "At": time.time_ns()}
            lived = float(ended.get("Lived", 0.0))
            code, at = ended["ExitCode"], ended["At"] / SECOND
            killed = self._oom_killed(container)
            if killed:
                self.tell(container, "oom")
            ends = dict((container.record.get("NetworkSettings") or {}).get("Networks") or {})
            self.clean_up(container)
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
            for _ in range(container.stops):  # before it may be removed
                self.tell(container, "stop")
            container.stops = 0
            again = wants_restart(container.record, code, container.stopped)
            if again:
                container.state["Status"] = "restarting"
                container.delay = next_delay(container.delay, lived)
            goes = not again and container.host.get("AutoRemove") and not container.kept
            if not goes:  # else the next daemon finds the end where its shim wrote it
                self.note(container)
            container.exits += 1
            container.changed.notify_all()
            if again:
                threading.Timer(
                    container.delay, self._restart, (container, container.exits)
                ).start()
            elif goes:
                self.erase_if_possible(container, True)

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
            except StartFailed as error:  # its words are in the record
                log(f"container {container.id} does not start again: {told(error)}")

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

    def end_now(self, container: Container) -> None:
        """Kill, and wait for the end. A frozen container must be thawed to die."""
        with container.lock:
            if not container.alive:  # it has ended while we came: no other end is to be waited for
                return
            exits = container.exits
        self.signal(container, signal.SIGKILL)
        self.let_go(container)
        if not self._wait_for_exit(container, exits, KILL_SECONDS):
            cgroup_of(container.id, container.host).kill()
            if not self._wait_for_exit(container, exits, KILL_SECONDS):
                raise EngineError(f"Container {container.id} does not end: it may be in the kernel")

    @staticmethod
    def let_go(container: Container) -> None:
        """Thaw a paused container, so that it can end; one that has ended has no control group any more."""
        with container.lock:
            if container.state["Status"] == "paused":
                cgroup_of(container.id, container.host).thaw()

    @staticmethod
    def _wait_for_exit(container: Container, exits: int, seconds: float) -> bool:
        with container.lock:
            return container.changed.wait_for(lambda: container.exits > exits, seconds)
