# Exported from notebooks/11_runtime.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11_runtime.ipynb#plan-module
"""The order of things: an OCI document becomes one list of steps, each known by its chapter."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import namedtuple

from mini_docker.linux.process import (
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    join_session_keyring,
    prctl,
)
from mini_docker.linux.step import Step
from mini_docker.namespaces.cgroup import plan_cgroup_namespace
from mini_docker.namespaces.devices import plan_devices
from mini_docker.namespaces.ipc import owner_of, plan_sysctls
from mini_docker.namespaces.kinds import FLAGS, PROC_NAMES, plan_joins
from mini_docker.namespaces.mnt import plan_mounts, plan_pivot, plan_private, plan_root
from mini_docker.namespaces.net import plan_net
from mini_docker.namespaces.pid import plan_signals
from mini_docker.namespaces.places import make_in_root, open_in_root
from mini_docker.namespaces.time import plan_time
from mini_docker.namespaces.user import plan_user, plan_user_namespace
from mini_docker.namespaces.uts import plan_uts
from mini_docker.runtime.console import Console, open_console
from mini_docker.runtime.init import close_others, find_program
from mini_docker.runtime.listener import offer_listener
from mini_docker.runtime.priority import plan_priority
from mini_docker.runtime.program import DEFAULT_PATH, refuse_host_program
from mini_docker.runtime.talk import Talk, pause
from mini_docker.security.capabilities import plan_bounding_set, plan_capabilities
from mini_docker.security.labels import plan_labels
from mini_docker.security.limits import plan_limits, plan_oom_score
from mini_docker.security.paths import plan_paths
from mini_docker.security.seccomp import asks_listener, plan_seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NamedTuple

    class Resources(NamedTuple):
        """What the parent opened before the clone, for the steps that need it.

        `enter_cgroup` are the steps into the control group; `rootfs_fd` is a detached mount or None;
        `stdio` are the three standard streams (with a console, None); `console` is a Console or None.
        With a `gate` init waits there until `release`: that is what parts create from start. `detached`
        says that init may outlive the process that made it; `preserve_fds` that so many descriptors
        after 2 stay open. `seccomp` is the program for linux.seccomp where somebody has it compiled.
        `mounts` are detached mounts that the parent made for entries of mounts, by their index. Without
        `pivot` the root is moved and entered by chroot(2), for a host whose own root is a ramfs; with
        `keyring` the container gets a session keyring of its own. `rootless` says that the parent has
        no privileges: it may not reach into a process that hides.
        """

        enter_cgroup: Sequence[Step]
        rootfs_fd: int | None
        stdio: tuple[int, int, int] | None
        console: Console | None
        gate: Talk | None = None
        detached: bool = False
        preserve_fds: int = 0
        seccomp: bytes | None = None
        mounts: Mapping[int, int] = {}
        pivot: bool = True
        keyring: bool = True
        rootless: bool = False

    class Planned(NamedTuple):
        """A step and the module that teaches it, from which `--explain` knows the chapter."""

        module: str
        step: Step

else:
    Resources = namedtuple(
        "Resources",
        (
            "enter_cgroup",
            "rootfs_fd",
            "stdio",
            "console",
            "gate",
            "detached",
            "preserve_fds",
            "seccomp",
            "mounts",
            "pivot",
            "keyring",
            "rootless",
        ),
        defaults=(None, False, 0, None, {}, True, True, False),
    )
    Planned = namedtuple("Planned", ("module", "step"))


# %% notebooks/11_runtime.ipynb#plan-order-of-steps
SIGKILL = 9


def plan(spec: dict[str, Any], resources: Resources) -> list[Planned]:
    """Return all that init does between its birth and execve, in order.

    Pure: nothing is opened or changed. Raises ValueError with the JSON path of a wrong value.
    Source: OCI runtime.md and config.md; runc's order in libcontainer/standard_init_linux.go.
    """
    early, late = place_seccomp(spec, resources)
    sections: list[tuple[Callable[..., object], Sequence[Step]]] = [
        (plan_life, plan_life()),
        (plan_labels, plan_labels(spec)),
        (Resources, resources.enter_cgroup),
        (plan_cgroup_namespace, plan_cgroup_namespace(spec)),
        (plan_joins, plan_joins(spec)),
        (plan_time, plan_time(spec)),
        (plan_oom_score, plan_oom_score(spec)),
        (plan_user_namespace, plan_user_namespace(spec)),
        (plan_private, plan_private(spec)),
        (plan_root, plan_root(spec, resources.rootfs_fd)),
        (plan_mounts, plan_mounts(spec, resources.mounts)),
        (plan_devices, plan_devices(spec)),
        (plan_net, plan_net(spec)),
        (plan_hooks, plan_hooks(spec)),
        (plan_uts, plan_uts(spec)),
        (plan_sysctls, plan_sysctls(spec)),
        (plan_session, plan_session(resources)),
        (plan_streams, plan_streams(spec["root"]["path"], resources)),
        (plan_pivot, plan_pivot(spec, resources.pivot)),
        (plan_paths, plan_paths(spec)),
        (plan_signals, plan_signals(spec)),
        (plan_priority, plan_priority(spec)),
        (plan_working_directory, plan_working_directory(spec)),
        (plan_program, plan_program(spec)),
        (plan_limits, plan_limits(spec)),
        (plan_seccomp, early),
        (plan_bounding_set, plan_bounding_set(spec)),
        (plan_user, plan_user(spec)),
        (plan_capabilities, plan_capabilities(spec)),
        (plan_gate, plan_gate(spec, resources)),
        (plan_life, plan_last(resources)),
        (plan_seccomp, late),
    ]
    return [
        Planned(taught_by(planner, step), step) for planner, steps in sections for step in steps
    ]


# %% notebooks/11_runtime.ipynb#small-plans
def taught_by(planner: Callable[..., object], step: Step) -> str:
    """Return the module whose chapter teaches a step: its planner's, unless that serves several chapters.

    Namespaces by path and sysctls belong to the kind of namespace; the control group's steps come ready
    made, and a listener is offered where a filter was planned: their own function tells where from.
    """
    kind = None
    if planner is plan_joins:
        kind = next(kind for kind, flag in FLAGS.items() if flag == step.arguments[1])
    elif planner is plan_sysctls:
        kind = owner_of(step.arguments[0])
    elif planner is Resources or step.call is offer_listener:
        return step.call.__module__
    return f"mini_docker.namespaces.{PROC_NAMES[kind]}" if kind else planner.__module__


def place_seccomp(
    spec: dict[str, Any], resources: Resources
) -> tuple[Sequence[Step], Sequence[Step]]:
    """Return the steps of plan_seccomp for its two places: while still privileged, or last of all.

    A filter that asks a listener is installed in conversation with the parent, which reaches into this
    process for it. A parent without privileges may do that only while the process hides from nobody:
    what a container could reach there is then a python that it cannot write. Source: runc's order in
    libcontainer/standard_init_linux.go; PTRACE_MODE_ATTACH of ptrace(2).
    """
    steps = plan_seccomp(spec, resources.seccomp)
    if steps and asks_listener(spec["linux"]["seccomp"]):
        name = f"{steps[0].name}, some by a listener"
        shown = [Step("show to the runtime", prctl, (PR_SET_DUMPABLE, 1))]
        offered = Step(name, offer_listener, steps[0].arguments)
        steps = [*(shown if resources.rootless else ()), offered]
    return ((), steps) if spec["process"].get("noNewPrivileges") else (steps, ())


def plan_life() -> list[Step]:
    """Plan that the container dies with the process that looks after it, PR_SET_PDEATHSIG of prctl(2)."""
    return [Step("die with the supervisor", prctl, (PR_SET_PDEATHSIG, SIGKILL))]


def plan_hooks(spec: dict[str, Any]) -> list[Step]:
    """Plan the pause for hooks: the namespaces are made, the root is not yet changed.

    The parent runs prestart and createRuntime in its own namespaces, then init runs createContainer in
    those of the container. Source: OCI config.md "POSIX-platform Hooks".
    """
    hooks = spec.get("hooks") or {}
    inside = tuple(hooks.get("createContainer") or ())
    if not (inside or hooks.get("prestart") or hooks.get("createRuntime")):
        return []
    return [Step("wait for the engine's hooks", pause, (inside,))]


def plan_gate(spec: dict[str, Any], resources: Resources) -> list[Step]:
    """Plan the wait between create and start, with the command already found and nothing left to fail.

    What waits is still our interpreter, so nobody may look into it. Hooks of startContainer run after
    the wait. Source: OCI runtime.md.
    """
    if resources.gate is None:
        return []
    inside = tuple((spec.get("hooks") or {}).get("startContainer") or ())
    return [
        Step("find the command", find_program, program_and_path(spec)),
        Step("hide from ptrace", prctl, (PR_SET_DUMPABLE, 0)),
        *([Step("outlive the maker", prctl, (PR_SET_PDEATHSIG, 0))] if resources.detached else []),
        Step("wait for start", pause, (inside, resources.gate, 3 + resources.preserve_fds)),
    ]


def plan_last(resources: Resources) -> list[Step]:
    """Plan what a change of credentials undid, close all descriptors, and this process to ptrace.

    A process that is not dumpable shows its /proc/PID/exe and memory to nobody: the binary behind it is
    the host's python (CVE-2019-5736). Source: prctl(2), proc(5).
    """
    return [
        *([] if resources.detached else plan_life()),
        Step("close what else is open", close_others, (3 + resources.preserve_fds,)),
        Step("hide from ptrace until exec", prctl, (PR_SET_DUMPABLE, 0)),
    ]


def plan_session(resources: Resources) -> list[Step]:
    """Plan that no key of the caller's session keyring is the container's, session-keyring(7)."""
    return [Step("a session keyring of its own", new_keyring, ())] if resources.keyring else []


def new_keyring() -> None:
    """Join a new session keyring, keyctl(2); a kernel without keys has none to protect. Raises OSError."""
    try:
        join_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def plan_streams(root: str, resources: Resources) -> list[Step]:
    """Plan a session of its own and the three standard streams: given descriptors, or a console.

    `root` is where the container's root is mounted; "/" for a process that enters one that runs.
    """
    steps = [Step("start a session", os.setsid, ())]
    if resources.console is not None:
        arguments = (root, *resources.console, root != "/")
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
    return [Step("look at the command", refuse_host_program, program_and_path(spec))]


def program_and_path(spec: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return process.args[0] and the PATH of process.env."""
    process = spec["process"]
    values = [entry for entry in process.get("env") or () if entry.startswith("PATH=")]
    path = values[-1].removeprefix("PATH=") if values else DEFAULT_PATH
    return os.fsencode(process["args"][0]), os.fsencode(path)


# %% notebooks/11_runtime.ipynb#working-directory
def plan_working_directory(spec: dict[str, Any], make: bool = True) -> list[Step]:
    """Plan process.cwd, made where missing if `make`. Raises ValueError for a relative one."""
    cwd = spec["process"]["cwd"]
    if not cwd.startswith("/"):
        raise ValueError(f"process.cwd: '{cwd}' is not an absolute path")
    return [Step(f"change directory to {cwd}", change_directory, (cwd, make))]


def change_directory(path: str, make: bool = True) -> None:
    """Enter `path`, made where it is missing if `make`, and check that it lies inside the root, chdir(2).

    A path such as /proc/self/fd/7 could be a directory of the host that somebody left open. So it is
    resolved inside the root, where such links are refused, before anything is made; and getcwd(2) must
    have an answer afterwards (CVE-2024-21626). Raises OSError.
    """
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directory_fd = _open_directory(root_fd, path, make)
        os.chdir(directory_fd)
        os.close(directory_fd)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EXDEV):
            raise OSError(error.errno, f"chdir to cwd ({path!r}): {error.strerror}") from None
        raise _outside(path) from None
    finally:
        os.close(root_fd)
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise _outside(path)


def _open_directory(root_fd: int, path: str, make: bool) -> int:
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        if not make:
            raise
    make_in_root(root_fd, path, directory=True)
    return open_in_root(root_fd, path)


def _outside(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, f"working directory {path} is outside the container")
