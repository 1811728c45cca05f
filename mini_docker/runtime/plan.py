# Exported from notebooks/11_runtime.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11_runtime.ipynb#plan-module
"""The order of things: an OCI document becomes one list of steps, each known by its chapter."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import namedtuple

from mini_docker.linux.process import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, prctl
from mini_docker.linux.step import Step
from mini_docker.namespaces.cgroup import plan_cgroup_namespace
from mini_docker.namespaces.ipc import plan_sysctls
from mini_docker.namespaces.kinds import plan_joins
from mini_docker.namespaces.mnt import (
    make_in_root,
    open_in_root,
    plan_devices,
    plan_mounts,
    plan_pivot,
    plan_private,
    plan_root,
)
from mini_docker.namespaces.net import plan_net
from mini_docker.namespaces.pid import plan_signals
from mini_docker.namespaces.time import plan_time
from mini_docker.namespaces.user import plan_user, plan_user_namespace
from mini_docker.namespaces.uts import plan_uts
from mini_docker.runtime.console import Console, open_console
from mini_docker.runtime.program import DEFAULT_PATH, refuse_host_program
from mini_docker.security.capabilities import plan_bounding_set, plan_capabilities
from mini_docker.security.limits import plan_limits, plan_oom_score
from mini_docker.security.paths import plan_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple

    class Resources(NamedTuple):
        """What the parent opened before the clone, for the steps that need it.

        `enter_cgroup` are the steps into the control group; `rootfs_fd` is a detached mount or None;
        `stdio` are the three standard streams (with a console, None); `console` is a Console or None.
        """

        enter_cgroup: Sequence[Step]
        rootfs_fd: int | None
        stdio: tuple[int, int, int] | None
        console: Console | None

    class Planned(NamedTuple):
        """A step and the module that planned it, from which `--explain` knows the chapter."""

        module: str
        step: Step

else:
    Resources = namedtuple("Resources", ("enter_cgroup", "rootfs_fd", "stdio", "console"))
    Planned = namedtuple("Planned", ("module", "step"))


# %% notebooks/11_runtime.ipynb#plan-order-of-steps
SIGKILL = 9


def plan(spec: dict[str, Any], resources: Resources) -> list[Planned]:
    """Return all that init does between its birth and execve, in order.

    Pure: nothing is opened or changed. Raises ValueError with the JSON path of a wrong value.
    Source: OCI runtime.md and config.md; runc's order in libcontainer/standard_init_linux.go.
    """
    sections: list[tuple[Callable[..., object], Sequence[Step]]] = [
        (plan_life, plan_life()),
        (Resources, resources.enter_cgroup),
        (plan_cgroup_namespace, plan_cgroup_namespace(spec)),
        (plan_joins, plan_joins(spec)),
        (plan_time, plan_time(spec)),
        (plan_oom_score, plan_oom_score(spec)),
        (plan_user_namespace, plan_user_namespace(spec)),
        (plan_private, plan_private(spec)),
        (plan_root, plan_root(spec, resources.rootfs_fd)),
        (plan_mounts, plan_mounts(spec)),
        (plan_devices, plan_devices(spec)),
        (plan_net, plan_net(spec)),
        (plan_uts, plan_uts(spec)),
        (plan_sysctls, plan_sysctls(spec)),
        (plan_streams, plan_streams(spec, resources)),
        (plan_pivot, plan_pivot(spec)),
        (plan_paths, plan_paths(spec)),
        (plan_signals, plan_signals(spec)),
        (plan_limits, plan_limits(spec)),
        (plan_working_directory, plan_working_directory(spec)),
        (plan_program, plan_program(spec)),
        (plan_bounding_set, plan_bounding_set(spec)),
        (plan_user, plan_user(spec)),
        (plan_capabilities, plan_capabilities(spec)),
        (plan_life, plan_last()),
    ]
    return [
        Planned(_chapter_module(planner, step), step)
        for planner, steps in sections
        for step in steps
    ]


# %% notebooks/11_runtime.ipynb#small-plans
def _chapter_module(planner: Callable[..., object], step: Step) -> str:
    """The control group's steps come ready made: their own function tells where from."""
    return step.call.__module__ if planner is Resources else planner.__module__


def plan_life() -> list[Step]:
    """Plan that the container dies with the process that looks after it, PR_SET_PDEATHSIG of prctl(2)."""
    return [Step("die with the supervisor", prctl, (PR_SET_PDEATHSIG, SIGKILL))]


def plan_last() -> list[Step]:
    """Plan what a change of credentials undid, and close this process to ptrace until its execve.

    A process that is not dumpable shows its /proc/PID/exe and memory to nobody: the binary behind it is
    the host's python (CVE-2019-5736). Source: prctl(2), proc(5).
    """
    return [*plan_life(), Step("hide from ptrace until exec", prctl, (PR_SET_DUMPABLE, 0))]


def plan_streams(spec: dict[str, Any], resources: Resources) -> list[Step]:
    """Plan a session of its own and the three standard streams: given descriptors, or a console."""
    steps = [Step("start a session", os.setsid, ())]
    if resources.console is not None:
        arguments = (spec["root"]["path"], *resources.console)
        return [*steps, Step("open the console", open_console, arguments)]
    if resources.stdio is not None:
        names = "stdin, stdout, stderr are descriptors {}, {}, {}".format(*resources.stdio)
        steps.append(Step(names, place_streams, resources.stdio))
    return steps


def place_streams(*fds: int) -> None:
    """Make `fds` the descriptors 0, 1, 2, whatever their numbers are now, dup2(2).

    They are first copied out of each other's way. Raises OSError.
    """
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]
    for number, copy in enumerate(copies):
        os.dup2(copy, number)
        os.close(copy)


def plan_program(spec: dict[str, Any]) -> list[Step]:
    """Plan the look at process.args[0] that only root can take."""
    process = spec["process"]
    values = [entry for entry in process.get("env", ()) if entry.startswith("PATH=")]
    path = values[-1].removeprefix("PATH=") if values else DEFAULT_PATH
    arguments = (os.fsencode(process["args"][0]), os.fsencode(path))
    return [Step("look at the command", refuse_host_program, arguments)]


# %% notebooks/11_runtime.ipynb#working-directory
def plan_working_directory(spec: dict[str, Any]) -> list[Step]:
    """Plan process.cwd, made where missing. Raises ValueError for a relative one."""
    cwd = spec["process"]["cwd"]
    if not cwd.startswith("/"):
        raise ValueError(f"process.cwd: '{cwd}' is not an absolute path")
    return [Step(f"change directory to {cwd}", change_directory, (cwd,))]


def change_directory(path: str) -> None:
    """Enter `path`, made where it is missing, and check that it lies inside the root, chdir(2).

    A path such as /proc/self/fd/7 could be a directory of the host that somebody left open. So it is
    resolved inside the root, where such links are refused, before anything is made; and getcwd(2) must
    have an answer afterwards (CVE-2024-21626). Raises OSError.
    """
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            directory_fd = open_in_root(root_fd, path)
        except FileNotFoundError:
            make_in_root(root_fd, path, directory=True)
            directory_fd = open_in_root(root_fd, path)
        os.chdir(directory_fd)
        os.close(directory_fd)
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EXDEV):
            raise
        inside = False
    finally:
        os.close(root_fd)
    if not inside:
        raise PermissionError(errno.EPERM, f"working directory {path} is outside the container")
