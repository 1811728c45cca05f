# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#states-module
"""The states of a container, and what its restart policy says when it ends: no files, no processes."""

from __future__ import annotations

import signal
import time

from mini_docker.engine.document import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/14f_states.ipynb#states
# STATES
#
#   created --start--> running --end--> exited --start--> running ...
#                      running --pause--> paused --unpause--> running
#                      running --end, policy--> restarting --start--> running
#   any of them --rm--> removing --> (gone), or dead where its files could not be removed
ALIVE = frozenset(("running", "paused"))
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
POLICIES = ("no", "always", "on-failure", "unless-stopped")

# Docker's back-off: it doubles up to a minute, and begins anew after ten seconds of life.
FIRST_DELAY, LONGEST_DELAY = 0.1, 60.0
LONG_LIFE = 10.0


def is_alive(record: dict[str, Any]) -> bool:
    """Return whether the container has a process."""
    return record["State"]["Status"] in ALIVE


def parse_policy(host: dict[str, Any]) -> tuple[str, int]:
    """Return the restart policy of a HostConfig and its maximum count. Raises InvalidRequest."""
    policy = host.get("RestartPolicy") or {}
    name, count = policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0
    if name not in POLICIES:
        raise InvalidRequest(f"invalid restart policy '{name}'")
    if count and name != "on-failure":
        raise InvalidRequest(f"maximum retry count cannot be used with restart policy '{name}'")
    if count < 0:
        raise InvalidRequest("maximum retry count cannot be negative")
    if name != "no" and host.get("AutoRemove"):
        raise InvalidRequest("can't create 'AutoRemove' container with restart policy")
    return name, count


def wants_restart(record: dict[str, Any], code: int, stopped: bool) -> bool:
    """Return whether a container that ended with `code` is to be started again.

    `stopped` says that its user stopped or killed it.
    """
    name, most = parse_policy(record["HostConfig"])
    if stopped or name == "no":
        return False
    if name == "on-failure":
        return code != 0 and (not most or int(record.get("RestartCount", 0)) < most)
    return True


def wants_start(record: dict[str, Any]) -> bool:
    """Return whether a daemon that begins is to start this container, which does not run."""
    name, _ = parse_policy(record["HostConfig"])
    status: str = record["State"]["Status"]
    if name == "always":
        return status != "created"
    was_alive = status in ("running", "restarting")
    return name in ("unless-stopped", "on-failure") and was_alive


def next_delay(last: float, lived: float) -> float:
    """Return how many seconds to wait before the next start, after the `last` delay and a life."""
    return FIRST_DELAY if not last or lived > LONG_LIFE else min(last * 2, LONGEST_DELAY)


def renewed(health: dict[str, Any]) -> dict[str, Any]:
    """Return a Health object at a new start: Docker keeps the results of the lives before."""
    return {"Status": "starting", "FailingStreak": 0, "Log": health.get("Log", [])}


def unwatched(health: dict[str, Any]) -> dict[str, Any]:
    """Return a Health object of a container that is not probed any more: Docker calls it unhealthy."""
    return {**health, "Status": "unhealthy"}


# The real-time signals have no names of their own: signal(7) counts them from either end.
SIGNALS = {one.name.removeprefix("SIG"): int(one) for one in signal.Signals} | {
    f"{end}{sign}{n}": signal.Signals[f"SIG{end}"] + int(f"{sign}{n}")
    for end, sign in (("RTMIN", "+"), ("RTMAX", "-"))
    for n in range(1, 16)
}


def parse_signal(text: str) -> int:
    """Return the number of "KILL", "SIGKILL", "RTMIN+3" or "9". Raises InvalidRequest in Docker's words."""
    number = int(text) if text.isdigit() else SIGNALS.get(text.upper().removeprefix("SIG"), 0)
    if not 0 < number < signal.NSIG:
        raise InvalidRequest(f"Invalid signal: {text}")
    return number


# %% notebooks/14f_states.ipynb#status-words
def ago(seconds: float) -> str:
    """Return a duration in Docker's words: "5 minutes". Source: go-units' HumanDuration."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return f"{whole} second{'s' * (whole > 1)}"
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    hours = int(whole / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for unit, length, until in (("days", 24, 336), ("weeks", 168, 1440), ("months", 720, 17520)):
        if hours < until:
            return f"{hours // length} {unit}"
    return f"{hours // 24 // 365} years"


def status_words(record: dict[str, Any]) -> str:
    """Return the STATUS column of `docker ps`: "Up 2 minutes (healthy)"."""
    state = record["State"]
    status, since = state["Status"], ago(time.time() - state.get("At", record["Created"]))
    if status == "running":
        health = (state.get("Health") or {}).get("Status", "")
        words = {
            "starting": " (health: starting)",
            "healthy": " (healthy)",
            "unhealthy": " (unhealthy)",
        }
        return f"Up {since}{words.get(health, '')}"
    if status == "paused":
        return f"Up {since} (Paused)"
    if status == "restarting":
        return f"Restarting ({state['ExitCode']}) {since} ago"
    if status == "exited":
        return f"Exited ({state['ExitCode']}) {since} ago"
    return {"created": "Created", "removing": "Removal In Progress", "dead": "Dead"}[status]
