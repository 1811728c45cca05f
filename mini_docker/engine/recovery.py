# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#recovery-module
"""Recovery: what a daemon finds that begins: containers that live, that ended unseen, that are half made."""

from __future__ import annotations

import time

from mini_docker.engine.accidents import log, told
from mini_docker.engine.launch import cgroup_of, forget
from mini_docker.engine.orders import StartFailed
from mini_docker.engine.states import wants_restart, wants_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from mini_docker.engine.container import Container
    from mini_docker.engine.containers import Containers


# %% notebooks/14f_states.ipynb#recovery
SHIM_SECONDS = 20.0  # for one that is starting a container to listen


class Recovery:
    """The first moments of a daemon, whatever became of the one before."""

    def __init__(self, containers: Containers) -> None:
        """Look at the containers of a data root."""
        self.containers, self.store = containers, containers.store

    def run(self) -> None:
        """Take over the containers that live, note those that ended, obey the policies. Raises OSError."""
        self.store.sweep()
        for container_id in self.store.half_made():
            cgroup = cgroup_of(container_id)
            cgroup.kill()
            cgroup.remove()
            forget(self.store, container_id, None)
        for container in self.containers.all():
            with container.lock:
                self._recover(container)

    def _recover(self, container: Container) -> None:
        start_again = wants_start(container.record) or container.state["Status"] == "restarting"
        if container.alive or container.id in self.store.running():
            lifeline, abandoned = self._find_shim(container)
            if lifeline:
                self._adopt(container, lifeline)
                return
            if not abandoned:
                return  # somebody else looks after it
            start_again = self._note_end(container, start_again)
        if container.removed:
            return
        if container.state["Status"] == "restarting":
            container.state["Status"] = "exited"
        container.stopped = False
        if start_again:
            try:
                self.containers.launch(container)
            except StartFailed as error:  # its words are in the record
                log(f"container {container.id} is not started again: {told(error)}")

    def _find_shim(self, container: Container) -> tuple[socket.socket | None, bool]:
        """Return a lifeline to a container's shim, if it lives, and whether nobody looks after it.

        One whose daemon died in the middle of a start does not listen yet; its claim says that it lives.
        """
        patience = SHIM_SECONDS if self.store.has_order(container.id) else 0.0
        deadline = time.monotonic() + patience
        while True:
            abandoned = self.store.is_abandoned(container.id)
            try:
                return self.containers.ask(container, {"ask": "watch"}), False
            except OSError:
                if abandoned or time.monotonic() > deadline:
                    return None, abandoned
            time.sleep(0.01)

    def _adopt(self, container: Container, lifeline: socket.socket) -> None:
        """Take a living container over from the daemon before, which may have died before it noted it."""
        if not container.alive:
            pid = self.store.read_pid(container.id)
            now = time.time()
            container.record["State"] = {
                "Status": "running", "Pid": pid, "ExitCode": 0, "At": now, "StartedAt": now,
            }  # fmt: skip
            self.containers.note(container)
        if container.state["Status"] == "running":
            cgroup_of(
                container.id, container.host
            ).thaw()  # the daemon before may have died in a commit
        self.containers.look_after(container, lifeline)

    def _note_end(self, container: Container, start_again: bool) -> bool:
        """Note the end of a container whose shim has gone unseen; return whether to start it again."""
        store, lived = self.store, container.alive
        if not (lived or store.read_pid(container.id) or store.read_exit(container.id)):
            self.containers.clean(container)  # its start was cut short: it is what it was before
            return start_again
        container.stopped = True  # no timer of its own
        container.state["Status"] = "running"
        self.containers.ended(container)
        code = container.state["ExitCode"]
        return wants_restart(container.record, code, False) if lived else start_again
