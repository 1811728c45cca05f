# Exported from notebooks/14h_asking.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14h_asking.ipynb#health-module
"""Health checks: a command in the container, again and again, and what its exit codes come to."""

from __future__ import annotations

import signal
import socket
import threading
import time

from mini_docker.engine.moments import SECOND, duration, moment
from mini_docker.engine.orders import StartFailed
from mini_docker.engine.states import renewed, unwatched
from mini_docker.engine.store import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.engine.container import Container
    from mini_docker.engine.containers import Containers
    from mini_docker.engine.execs import Execs


# %% notebooks/14h_asking.ipynb#health-judged
DEFAULT_INTERVAL, DEFAULT_TIMEOUT, DEFAULT_RETRIES = 30 * SECOND, 30 * SECOND, 3
KEPT_RESULTS, KEPT_OUTPUT = 5, 4096


def probe_command(test: list[str]) -> list[str]:
    """Return the words of a HEALTHCHECK; none where there is none, or it is switched off."""
    if len(test) < 2 or test[0] == "NONE":
        return []
    return ["/bin/sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]


def judged(health: dict[str, Any], code: int, retries: int, starting: bool) -> dict[str, Any]:
    """Return a Health object after one more probe; failures of the start period do not count.

    Pure. `starting` says that the start period is not over.
    """
    if code == 0:
        return {**health, "Status": "healthy", "FailingStreak": 0}
    if starting and health["Status"] == "starting":
        return dict(health)
    streak = health["FailingStreak"] + 1
    return {
        **health,
        "FailingStreak": streak,
        "Status": "unhealthy" if streak >= retries else health["Status"],
    }


# %% notebooks/14h_asking.ipynb#health
class Health:
    """Watches the containers that have a health check, each in a thread."""

    def __init__(self, containers: Containers, execs: Execs) -> None:
        """Be told of every start from now on."""
        self.containers, self.execs = containers, execs
        containers.on_start.append(self.watch)

    def watch(self, container: Container) -> None:
        """Begin to watch a container that has just been started, if it wants that."""
        check = container.record["Config"].get("Healthcheck") or {}
        words = probe_command(check.get("Test") or [])
        if words:
            if not container.state.get("Health"):
                container.state["Health"] = renewed({})
            arguments = (container, check, words, container.exits)
            threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(
        self, container: Container, check: dict[str, Any], words: list[str], exits: int
    ) -> None:
        """Probe until the container ends."""
        interval = (check.get("Interval") or DEFAULT_INTERVAL) / SECOND
        timeout = (check.get("Timeout") or DEFAULT_TIMEOUT) / SECOND
        until = time.monotonic() + (check.get("StartPeriod") or 0) / SECOND
        while True:
            with container.lock:
                ended = lambda: container.exits > exits or container.removed  # noqa: E731
                if container.changed.wait_for(ended, interval):
                    self._rest(container)
                    return
            if container.state["Status"] == "running":
                result = self._probe(container, words, timeout)
                retries = check.get("Retries") or DEFAULT_RETRIES
                self._note(container, exits, result, retries, time.monotonic() < until)

    def _rest(self, container: Container) -> None:
        """Call what is not probed any more unhealthy, as Docker does; the next start begins anew."""
        health = container.state.get("Health")
        if health and not container.alive and not container.removed:
            container.state["Health"] = unwatched(health)
            self.containers.write(container)

    def _note(
        self, container: Container, exits: int, result: dict[str, Any], retries: int, starting: bool
    ) -> None:
        with container.lock:
            old = container.state.get("Health")
            if container.exits > exits or not old or container.state["Status"] != "running":
                return
            new = judged(old, result["ExitCode"], retries, starting)
            new["Log"] = [*old["Log"], result][-KEPT_RESULTS:]
            container.state["Health"] = new
            self.containers.note(container)
        if new["Status"] != old["Status"]:
            self.containers.tell(container, f"health_status: {new['Status']}")

    def _probe(self, container: Container, words: list[str], timeout: float) -> dict[str, Any]:
        """Run the command once; return how it ended, and the beginning of what it said."""
        began = moment(time.time_ns())
        ours, theirs = socket.socketpair()
        wanted = {"stdout": True, "stderr": True}
        with ours:
            try:
                with theirs:
                    one = self.execs.create(container, {"Cmd": words})
                    self.execs.start(one, theirs, wanted, [0, 0])
                output, late = _collect(ours, timeout)
            except (Conflict, StartFailed, OSError) as error:
                return _result(began, -1, str(error))
        if late:
            try:
                one.ask({"ask": "kill", "signal": signal.SIGKILL})
            except Conflict:
                pass  # it has ended after all
            late_words = f"Health check exceeded timeout ({duration(int(timeout * SECOND))})"
            return _result(began, -1, late_words)
        with one.changed:
            one.changed.wait_for(lambda: not one.running, 5)
        return _result(began, one.exit_code or 0, output)


# %% notebooks/14h_asking.ipynb#health-answer
def _collect(stream: socket.socket, seconds: float) -> tuple[str, bool]:
    """Return the text of Docker's frames up to the end, and whether the time was over before it."""
    data, deadline = b"", time.monotonic() + seconds
    try:
        while True:
            stream.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = stream.recv(1 << 16)
            if not piece:
                break
            data += piece if len(data) < 2 * KEPT_OUTPUT else b""
    except TimeoutError:
        return "", True
    text = b""
    while len(data) >= 8:
        size = int.from_bytes(data[4:8], "big")
        text, data = text + data[8 : 8 + size], data[8 + size :]
    more = "..." if len(text) > KEPT_OUTPUT else ""
    return text[:KEPT_OUTPUT].decode(errors="replace") + more, False


def _result(began: str, code: int, output: str) -> dict[str, Any]:
    return {"Start": began, "End": moment(time.time_ns()), "ExitCode": code, "Output": output}
