# Exported from notebooks/14h_asking.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14h_asking.ipynb#execs-module
"""Exec: more processes in a container that runs, each with a shim of its own."""

from __future__ import annotations

import fcntl
import json
import math
import os
import struct
import termios
import threading
import time
from collections import namedtuple

from mini_docker.engine.accidents import is_accident, log, sentence, told
from mini_docker.engine.attached import CHUNK, STDOUT, frame
from mini_docker.engine.container import Container
from mini_docker.engine.document import InvalidRequest, environment
from mini_docker.engine.launch import cgroup_of, look_up_user
from mini_docker.engine.orders import StartFailed, first_word, not_planned
from mini_docker.engine.starter import what_to_start, with_plan_inside
from mini_docker.engine.store import Conflict
from mini_docker.security.capabilities import available

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NamedTuple

    from mini_docker.cgroups.tree import Cgroup
    from mini_docker.engine.containers import Containers

    class Ground(NamedTuple):
        """What the execs of one life of a container stand on: a part of their orders, its process and group.

        `life` is its pid, and since when.
        """

        life: tuple[int, float | None]
        order: dict[str, Any]
        process: dict[str, Any]
        cgroup: Cgroup

else:
    Ground = namedtuple("Ground", ("life", "order", "process", "cgroup"))


# %% notebooks/14h_asking.ipynb#exec-one
KEPT_SECONDS = 300  # after its end: a health check alone makes thousands a day
KNOWN_SECONDS = 10  # for a start or an end to be noted, as dockerd waits for a start


class NoSuchExec(Exception):
    """No exec of that id."""


class Exec:
    """A process that was added to a container, or is going to be."""

    def __init__(self, container: Container, request: dict[str, Any]) -> None:
        """Take a request, the body of Docker's POST /containers/ID/exec."""
        self.id = os.urandom(32).hex()
        self.container = container
        self.request = request
        self.running = self.started = False
        self.exit_code: int | None = None
        self.ended_at = math.inf  # by the monotonic clock
        self.pid = 0
        self.lifeline: socket.socket | None = None
        self.changed = threading.Condition()

    def ask(self, request: dict[str, Any]) -> None:
        """Have its shim do something. Raises Conflict where it does not run."""
        try:
            if self.lifeline is None or not self.running:
                raise BrokenPipeError
            self.lifeline.send(json.dumps(request).encode())
        except OSError:
            raise Conflict(f"Exec {self.id} is not running") from None

    @property
    def terminal(self) -> bool:
        """Whether it has a terminal."""
        return bool(self.request.get("Tty"))

    @property
    def words(self) -> str:
        """The command, as events show it."""
        program, *arguments = self.request["Cmd"]
        return f"{program} {' '.join(arguments)}"  # with the space, as Docker writes it

    def view(self) -> dict[str, Any]:
        """Return what GET /exec/ID/json answers."""
        program, *arguments = self.request["Cmd"]
        process: dict[str, Any] = {
            "tty": self.terminal,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": bool(self.request.get("Privileged")),
        }
        if self.request.get("User"):
            process["user"] = self.request["User"]
        return {
            "ID": self.id,
            "Running": self.running,
            "ExitCode": self.exit_code,
            "ProcessConfig": process,
            "OpenStdin": bool(self.request.get("AttachStdin")),
            "OpenStderr": bool(self.request.get("AttachStderr")),
            "OpenStdout": bool(self.request.get("AttachStdout")),
            "CanRemove": False,
            "ContainerID": self.container.id,
            "DetachKeys": self.request.get("DetachKeys") or "",
            "Pid": self.pid,
        }


# %% notebooks/14h_asking.ipynb#execs
# runc's words for it
TOO_LATE = "OCI runtime exec failed: exec failed: cannot exec in a stopped container: unknown"


def has_ended(container: Container) -> bool:
    """Return whether a container's process has ended, which nobody may have been told yet."""
    pid = container.state.get("Pid")
    return not container.alive or not os.path.exists(f"/proc/{pid}/ns/net")


class Execs:
    """All execs of the containers; they are forgotten with their container, or with the daemon."""

    def __init__(self, containers: Containers) -> None:
        """Begin with none."""
        self.containers = containers
        self.by_id: dict[str, Exec] = {}
        self.grounds: dict[str, Ground] = {}

    def create(self, container: Container, request: dict[str, Any]) -> Exec:
        """Note a process that is going to be started. Raises Conflict, InvalidRequest."""
        words = request.get("Cmd") or []
        if not words or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise InvalidRequest("No exec command specified")
        container.require_alive()
        if container.state["Status"] == "paused":
            raise Conflict(
                f"Container {container.name} is paused, unpause the container before exec"
            )
        new = Exec(container, request)
        self.forget()
        self.by_id[new.id] = new
        self.containers.tell(container, f"exec_create: {new.words}", execID=new.id)
        return new

    def forget(self) -> None:
        """Forget the execs of containers that are gone, and those that ended a while ago, as dockerd does."""
        long_ago = time.monotonic() - KEPT_SECONDS
        for one in list(self.by_id.values()):
            if one.container.removed:
                self.grounds.pop(one.container.id, None)
            if one.container.removed or one.ended_at < long_ago:
                self.by_id.pop(one.id, None)

    def find(self, exec_id: str) -> Exec:
        """Return an exec. Raises NoSuchExec."""
        if exec_id not in self.by_id:
            raise NoSuchExec(f"No such exec instance: {exec_id}")
        one = self.by_id[exec_id]
        with one.changed:  # its stream may have ended already: whoever asks now wants to know how
            one.changed.wait_for(lambda: self._is_known(one), KNOWN_SECONDS)
        return one

    def _is_known(self, one: Exec) -> bool:
        """Return whether an exec is noted as it is: neither in the middle of its start, nor of its end."""
        if not one.started or one.exit_code is not None:
            return True
        return one.lifeline is not None and self.containers.watch.is_silent(one.lifeline)

    def running_in(self, container: Container) -> list[str]:
        """Return the ids of the execs that run in a container, or wait for their start."""
        own = [one for one in list(self.by_id.values()) if one.container is container]
        return sorted(one.id for one in own if one.running or (container.alive and not one.started))

    # --- starting

    def check_start(self, one: Exec) -> None:
        """Raise Conflict or NoSuchExec where an exec cannot start: it did, or its container is not up."""
        if one.started:
            raise Conflict(f"Error: Exec command {one.id} has already run")
        if not one.container.alive:
            raise NoSuchExec(f"No such exec instance: {one.id}")
        if one.container.state["Status"] == "paused":
            words = "is paused, unpause the container before exec"
            raise Conflict(f"Container {one.container.id} {words}")

    def start(
        self, one: Exec, connection: socket.socket | None, wanted: dict[str, Any], size: list[int]
    ) -> None:
        """Start an exec, with a client attached from its first moment. Raises Conflict, StartFailed.

        The connection stays the caller's: the shim has a descriptor of its own.
        """
        self.check_start(one)
        one.started = True
        self.containers.tell(one.container, f"exec_start: {one.words}", execID=one.id)
        try:
            lifeline = self._start_shim(one, connection, wanted, size)
            one.pid = first_word(lifeline, "exec failed")["pid"]
        except Exception as error:
            with one.changed:
                one.exit_code, one.ended_at = 126, time.monotonic()
                one.changed.notify_all()
            if has_ended(one.container):
                raise StartFailed(TOO_LATE, False, 126) from error
            if isinstance(error, StartFailed):
                raise
            if is_accident(error):
                log(f"exec {one.id}: {told(error)}")
            raise StartFailed(sentence(error), False, 126) from error
        with one.changed:
            one.running, one.lifeline = True, lifeline
            one.changed.notify_all()
        self.containers.watch.add(lifeline, lambda word: self._ended(one, word), at_once=True)

    def _start_shim(
        self, one: Exec, connection: socket.socket | None, wanted: dict[str, Any], size: list[int]
    ) -> socket.socket:
        ground = self._ground(one.container)
        cgroup_fd = ground.cgroup.open_unified()
        fds = [("client", connection.fileno())] if connection else []
        try:
            order = {
                **ground.order,
                "terminal": one.terminal,
                "stdin": bool(one.request.get("AttachStdin")),
                "once": True,
                "size": size,
                "clients": [wanted] if connection else [],
            }
            fds += [("cgroup", cgroup_fd)] if cgroup_fd is not None else []
            directory = self.containers.store.directory(one.container.id)
            process = self._process(one, ground.process)
            try:
                order = with_plan_inside(order, process)
            except (OSError, ValueError) as error:
                raise not_planned(error, "exec failed") from None
            if connection:
                wait_for_reader(connection)
            return self.containers.zygote.fork_shim(order, directory, fds)
        finally:
            if cgroup_fd is not None:
                os.close(cgroup_fd)

    def _ground(self, container: Container) -> Ground:
        """Return what all execs of one life of a container have in common; the first one finds it out.

        Raises OSError, ValueError.
        """
        life = (container.state["Pid"], container.state.get("StartedAt"))
        found = self.grounds.get(container.id)
        if found is None or found.life != life:
            store = self.containers.store
            given = store.read_order(container.id)
            spec = given["document"]
            cgroup = cgroup_of(container.id, container.host)
            cgroup.directories = given["directories"]
            order = what_to_start(
                store.root, spec, cgroup, cgroup.trees.unified in cgroup.directories
            )
            found = Ground(life, {**order, "enter": life[0]}, spec["process"], cgroup)
            self.grounds[container.id] = found
        return found

    def _process(self, one: Exec, first: dict[str, Any]) -> dict[str, Any]:
        """Return the OCI process object: the container's own, with what the request changes."""
        request = one.request
        process = {
            **first,
            "terminal": one.terminal,
            "args": request["Cmd"],
            "cwd": request.get("WorkingDir") or first["cwd"],
        }
        home = dict(entry.split("=", 1) for entry in first["env"])["HOME"]
        if request.get("User"):
            root_fd = os.open(f"/proc/{one.container.state['Pid']}/root", os.O_PATH | os.O_CLOEXEC)
            try:
                user = look_up_user(root_fd, request["User"])
            finally:
                os.close(root_fd)
            groups, home = list(user.additional_gids), user.home
            process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": groups}
        if request.get("Privileged"):
            all_of_ours = available()
            process["capabilities"] = dict.fromkeys(
                ("bounding", "effective", "permitted"), all_of_ours
            )
            process.pop("apparmorProfile", None)
        elif request.get("User"):
            bounding = first["capabilities"]["bounding"]
            held = bounding if process["user"]["uid"] == 0 else []
            process["capabilities"] = {"bounding": bounding, "effective": held, "permitted": held}
        process["env"] = self._environment(one, first["env"], home)
        return process

    @staticmethod
    def _environment(one: Exec, first: list[str], home: str) -> list[str]:
        """Return the first process's variables with the request's; HOME and TERM are this process's own."""
        config = one.container.record["Config"]
        asked = {entry.partition("=")[0] for entry in config["Env"]}
        own = {"HOME", "TERM"} - asked
        kept = [entry for entry in first if entry.partition("=")[0] not in own]
        wanted = {
            "Hostname": config["Hostname"],
            "Tty": one.terminal,
            "Env": [*kept, *(one.request.get("Env") or ())],
        }
        return environment(wanted, {}, home)

    def _ended(self, one: Exec, word: bytes) -> None:
        """Note the end of an exec; without a last word its shim was killed, and it with it."""
        code = json.loads(word)["ExitCode"] if word else 137
        with one.changed:
            one.running, one.exit_code, one.ended_at = False, code, time.monotonic()
            one.changed.notify_all()
        self.containers.tell(one.container, "exec_die", execID=one.id, exitCode=str(code))

    def resize(self, one: Exec, rows: int, columns: int) -> None:
        """Set the size of a running exec's terminal. Raises Conflict."""
        one.ask({"ask": "resize", "rows": rows, "columns": columns})

    def attach_error(self, one: Exec, connection: socket.socket, error: Exception) -> None:
        """Tell a client in its stream, as Docker does, why there is none."""
        data = f"{error}\r\n".encode()
        try:
            wait_for_reader(connection)
            connection.sendall(data if one.terminal else frame(STDOUT, data[:CHUNK]))
        except OSError:
            pass


# %% notebooks/14h_asking.ipynb#execs-reader
def wait_for_reader(connection: socket.socket, seconds: float = 2.0) -> None:
    """Wait a moment until the client has taken the answer's head, TIOCOUTQ(2const).

    Docker's SDK for Python reads the head through a buffer and the stream past it: what comes together
    with the head is lost there. `seconds` are for a machine that has no time for the client.
    """
    deadline = time.monotonic() + seconds
    pause = 0.0001
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
