# Exported from notebooks/11c_exec.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11c_exec.ipynb#enter-module
"""Exec: a second process is born inside a container that runs already."""

from __future__ import annotations

import errno
import os

from mini_docker.linux.process import PR_SET_DUMPABLE, pidfd_open, prctl, setns
from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import FLAGS, PROC_NAMES
from mini_docker.namespaces.pid import plan_signals
from mini_docker.namespaces.user import drop_groups, plan_user, plan_user_namespace
from mini_docker.runtime.init import Process, launch
from mini_docker.runtime.plan import (
    Planned,
    Resources,
    place_seccomp,
    plan_gate,
    plan_last,
    plan_life,
    plan_program,
    plan_session,
    plan_streams,
    plan_working_directory,
    taught_by,
)
from mini_docker.runtime.priority import plan_affinity, plan_priority
from mini_docker.security.capabilities import plan_bounding_set, plan_capabilities
from mini_docker.security.labels import plan_labels
from mini_docker.security.limits import plan_limits, plan_oom_score
from mini_docker.security.seccomp import plan_seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


# %% notebooks/11c_exec.ipynb#other-namespaces
def other_namespaces(pid: int) -> int:
    """Return the CLONE_NEW* flags of the namespaces in which `pid` lives and we do not.

    To join a user namespace in which one is already is an error, hence the comparison. Raises
    ProcessLookupError if it has ended. Source: namespaces(7), setns(2).
    """
    flags = 0
    for kind, flag in FLAGS.items():
        name = PROC_NAMES[kind]
        if not os.path.exists(f"/proc/self/ns/{name}"):
            continue  # a kernel without time namespaces
        try:
            theirs = os.readlink(f"/proc/{pid}/ns/{name}")
        except FileNotFoundError:
            raise ProcessLookupError(errno.ESRCH, "the container has ended") from None
        if theirs != os.readlink(f"/proc/self/ns/{name}"):
            flags |= flag
    return flags


# %% notebooks/11c_exec.ipynb#plan-enter
def plan_before(
    spec: dict[str, Any], pidfd: int, flags: int, resources: Resources
) -> tuple[Step, ...]:
    """Plan what the process in between does: the last things that only the host's side may do, and setns.

    What writes to /proc or to a control group does so before the container's own /proc and paths are in
    sight. And from before the first moment in there, nobody in there may look into our interpreter
    (CVE-2019-5736): a process that is not dumpable is closed to them.
    """
    return (
        *plan_affinity(spec, "initial"),
        *resources.enter_cgroup,
        *plan_affinity(spec, "final"),
        *plan_oom_score(spec),
        *plan_labels(spec),
        Step("drop the host's groups", drop_groups, ()),
        Step("hide from ptrace", prctl, (PR_SET_DUMPABLE, 0)),
        Step("join the container's namespaces", setns, (pidfd, flags)),
    )


def plan_enter(spec: dict[str, Any], resources: Resources) -> list[Planned]:
    """Plan what the new process does to itself: the tail of `plan`, without what the container has.

    Pure. Raises ValueError with the JSON path of a wrong value. Source: OCI runtime.md has no exec; runc's
    order in libcontainer/setns_init_linux.go.
    """
    early, late = place_seccomp(spec, resources)
    sections: list[tuple[Callable[..., object], Sequence[Step]]] = [
        (plan_life, [] if resources.detached else plan_life()),
        (plan_user_namespace, plan_user_namespace(spec)),
        (plan_session, plan_session(resources)),
        (plan_streams, plan_streams("/", resources)),
        (plan_signals, plan_signals(spec)),
        (plan_priority, plan_priority(spec)),
        (plan_working_directory, plan_working_directory(spec, make=False)),
        (plan_program, plan_program(spec)),
        (plan_limits, plan_limits(spec)),
        (plan_seccomp, early),
        (plan_bounding_set, plan_bounding_set(spec)),
        (plan_user, plan_user(spec)),
        (plan_capabilities, plan_capabilities(spec)),
        (plan_gate, plan_gate({"process": spec["process"]}, resources)),
        (plan_last, plan_last(resources)),
        (plan_seccomp, late),
    ]
    return [
        Planned(taught_by(planner, step), step) for planner, steps in sections for step in steps
    ]


# %% notebooks/11c_exec.ipynb#enter
def enter(
    pid: int,
    spec: dict[str, Any],
    process: dict[str, Any],
    resources: Resources,
    cgroup_fd: int | None = None,
    more_flags: int = 0,
    watch: Callable[[int], bytes] | None = None,
) -> Process:
    """Start `process` (an OCI process object) inside the running container whose first process is `pid`.

    It joins the namespaces in which `pid` lives, and its control group by `resources.enter_cgroup` and
    `cgroup_fd`, as `start` does (for `watch` too); it is the caller's child, with CLONE_PARENT its sibling.
    With a gate it returns once the process waits there. The caller has one thread. Raises StartError,
    OSError (ESRCH: the container has ended), ValueError; nothing is left running then.
    """
    inside = {**spec, "process": process}
    steps = [planned.step for planned in plan_enter(inside, resources)]
    pidfd = pidfd_open(pid)
    try:
        flags = other_namespaces(pid)
        before = plan_before(inside, pidfd, flags, resources)
        return launch(inside, steps, more_flags, cgroup_fd, before, watch)
    finally:
        os.close(pidfd)
