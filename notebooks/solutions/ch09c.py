"""Solutions of chapter 9c, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from typing import Any

from exercises.ch09c import check_audit, check_clock_setter
from mini_docker.lab import Exercise

CLOCK: dict[str, Any] = {
    "CapDrop": ["ALL"],
    "CapAdd": ["SYS_TIME"],
    "SecurityOpt": ["no-new-privileges"],
    "ReadonlyRootfs": True,
}


def clock_blank() -> dict[str, Any]:
    """The untouched exercise."""
    return {}


def clock_setter() -> dict[str, Any]:
    """Return the HostConfig of a container that sets the clock."""
    return CLOCK


def clock_privileged() -> dict[str, Any]:
    """Wrong: everything."""
    return {"Privileged": True}


def clock_added() -> dict[str, Any]:
    """Wrong: nothing dropped."""
    return {**CLOCK, "CapDrop": []}


def clock_unfiltered() -> dict[str, Any]:
    """Wrong: no filter."""
    return {**CLOCK, "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}


def clock_raised() -> dict[str, Any]:
    """Wrong: setuid programs work."""
    return {**CLOCK, "SecurityOpt": []}


def clock_misspelt() -> dict[str, Any]:
    """Wrong: there is no such capability."""
    return {**CLOCK, "CapAdd": ["CLOCK"]}


def audit_blank(host: dict[str, Any]) -> list[str]:
    """The untouched exercise."""
    return []


def audit(host: dict[str, Any]) -> list[str]:
    """Return what is dangerous about a HostConfig, sorted."""
    added = {name.upper().removeprefix("CAP_") for name in host.get("CapAdd") or ()}
    options = {option.replace(":", "=", 1) for option in host.get("SecurityOpt") or ()}
    privileged = host.get("Privileged")
    found = {
        "all capabilities": privileged or "ALL" in added,
        "no filter": privileged or "seccomp=unconfined" in options,
        "open paths": privileged or host.get("MaskedPaths") == [],
        "SYS_ADMIN": "SYS_ADMIN" in added,
        "host's network": host.get("NetworkMode") == "host",
        "Docker's socket": any("docker.sock:" in bind for bind in host.get("Binds") or ()),
    }
    return sorted(words for words, holds in found.items() if holds)


def audit_by_name(host: dict[str, Any]) -> list[str]:
    """Wrong: it knows one spelling."""
    found = [words for words in audit(host) if words != "SYS_ADMIN"]
    return sorted(found + ["SYS_ADMIN"] * ("SYS_ADMIN" in (host.get("CapAdd") or ())))


def audit_anxious(host: dict[str, Any]) -> list[str]:
    """Wrong: every added capability is an alarm."""
    return sorted({*audit(host), *(["all capabilities"] if host.get("CapAdd") else [])})


EXERCISES = [
    Exercise(
        "clock_setter",
        check_clock_setter,
        blank=clock_blank,
        solution=clock_setter,
        wrong=[
            (clock_privileged, "name the one capability"),
            (clock_added, "does not need, and may use all the same: CAP_"),
            (clock_unfiltered, "need not be changed"),
            (clock_raised, "setuid program"),
            (clock_misspelt, "Docker would refuse it"),
        ],
    ),
    Exercise(
        "audit",
        check_audit,
        blank=audit_blank,
        solution=audit,
        wrong=[(audit_by_name, "and you do not say so"), (audit_anxious, "a false alarm")],
    ),
]
