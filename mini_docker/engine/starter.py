# Exported from notebooks/14d_shims.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14d_shims.ipynb#starter-module
"""From an order to a process on streams: by a child that plans for itself, or by a process in between."""

from __future__ import annotations

import json
import marshal
import os
import socket
import stat
import sys
from collections import namedtuple
from errno import EPERM

from mini_docker.cgroups.files import write_file
from mini_docker.engine.explain import write_steps
from mini_docker.engine.modes import SHM
from mini_docker.engine.privileges import NO_LIMIT, kept_program
from mini_docker.engine.remap import to_host
from mini_docker.linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_PARENT,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    clone3,
    pidfd_open,
    prctl,
    setns,
)
from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import entries, new_namespaces, plan_births
from mini_docker.runtime.console import Console, receive_console
from mini_docker.runtime.enter import other_namespaces, plan_before, plan_enter
from mini_docker.runtime.idmap import open_sources
from mini_docker.runtime.init import (
    Process,
    StartError,
    init,
    parse_environment,
    release,
    report_failure,
    start,
)
from mini_docker.runtime.listener import take_listener
from mini_docker.runtime.plan import Planned, Resources, plan
from mini_docker.runtime.talk import Talk
from mini_docker.security.seccomp import NOTIFY

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple, NoReturn

    from mini_docker.cgroups.tree import Cgroup

    class Streams(NamedTuple):
        """The shim's ends of a process's streams; None for what it does not have.

        With a terminal `stdin` and `stdout` are both its master, and `stderr` is None.
        """

        stdin: int | None
        stdout: int | None
        stderr: int | None
        terminal: bool

else:
    import _signal as signal  # the C half: the Python half makes an enum's member of each number

    Streams = namedtuple("Streams", ("stdin", "stdout", "stderr", "terminal"))


# %% notebooks/14d_shims.ipynb#streams
def start_on_streams(order: dict[str, Any], fds: dict[str, int]) -> tuple[Process, Streams]:
    """Start the process of an order on pipes or a terminal; return it and our ends.

    Raises StartError, OSError, EOFError.
    """
    if not order["terminal"]:
        return _start_on_pipes(order, fds)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        console = Console(theirs.fileno(), *order["size"])
        process = _start(order, fds, None, console)
        master = receive_console(ours.fileno())
    return process, Streams(master, master, None, True)


def _start_on_pipes(order: dict[str, Any], fds: dict[str, int]) -> tuple[Process, Streams]:
    to_stdin: int | None = None
    if order["stdin"]:
        child_in, to_stdin = os.pipe2(os.O_CLOEXEC)
    else:
        child_in = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    from_stdout, child_out = os.pipe2(os.O_CLOEXEC)
    from_stderr, child_err = os.pipe2(os.O_CLOEXEC)
    process = _start(order, fds, (child_in, child_out, child_err), None)
    for fd in (child_in, child_out, child_err):
        os.close(fd)
    return process, Streams(to_stdin, from_stdout, from_stderr, False)


def _start(
    order: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
) -> Process:
    if "enter" in order:
        return start_inside(order, fds, stdio, console)
    begin = start_apart if order["flags"] is None or order.get("explain") else start_here
    return begin(order, fds, stdio, console)


# %% notebooks/14d_shims.ipynb#starter
def start_apart(
    order: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
) -> Process:
    """Have `start_process` called by a process in between; what it starts is a child of this one.

    Raises StartError, OSError.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    starter, pidfd = clone3(0)
    if starter == 0:
        _be_starter(order, fds, stdio, console, write_fd)
    os.close(pidfd)
    os.close(write_fd)
    answer = os.read(read_fd, 1 << 16)
    os.close(read_fd)
    os.waitpid(starter, 0)
    pid, *failure = marshal.loads(answer) if answer else (0, "set-up", 4, "the starter was killed")
    if failure:
        raise StartError(*failure)
    return Process(pid, os.pidfd_open(pid), ())


def _be_starter(
    order: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
    answer_fd: int,
) -> NoReturn:
    """Start what the order is about, say which process that is or what went wrong, and end."""
    answer: tuple[Any, ...] = ()
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        answer = (start_process(order, fds, stdio, console).pid,)
    except StartError as error:
        answer = (0, error.step, error.errno, error.strerror)
    except OSError as error:
        answer = (0, "starter", error.errno or 0, (error.strerror or str(error))[:4000])
    except ValueError as error:  # of what is planned: something that the document must not say
        answer = (0, "document", 0, str(error)[:4000])
    except BaseException as error:
        answer = (0, "starter", 0, f"an unexpected error, {error}"[:4000])
    finally:
        if answer:
            os.write(answer_fd, marshal.dumps(answer))
        os._exit(0)


def what_to_start(root: str, spec: dict[str, Any], cgroup: Cgroup, inside: bool) -> dict[str, Any]:
    """Return the part of an order that a starter reads: what the daemon, who has it all at hand, finds out.

    A process just forked pays for each page of Python's objects that it looks at, for it writes there. So of
    a seccomp policy, whose program is here, only what asks a listener is left. `root` is the data root;
    `inside` says that the clone puts it into the v2 group. Raises OSError,
    ValueError.
    """
    seccomp = spec["linux"].get("seccomp") or {}
    asking = [entry for entry in seccomp.get("syscalls") or () if entry.get("action") == NOTIFY]
    short = (
        {**spec["linux"], "seccomp": {**seccomp, "syscalls": asking}} if seccomp else spec["linux"]
    )
    return {
        "spec": marshal.dumps({**spec, "linux": short}),
        "flags": flags_here(spec),
        "doors": [(step.name, *step.arguments) for step in cgroup.plan_enter(inside)],
        "seccomp": kept_program(root, spec),
    }


def flags_here(spec: dict[str, Any]) -> int | None:
    """Return the namespaces in which a shim itself can have the first process born, CLONE_NEW* of clone(2).

    None for a process that is to be born inside one that exists, or owned by a user namespace: whoever
    clones it has to go there first. Raises ValueError.
    """
    if plan_births(spec) or "user" in dict(entries(spec)):
        return None
    return new_namespaces(spec) & ~(CLONE_NEWCGROUP | CLONE_NEWTIME)  # their steps come later


def start_process(
    order: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
) -> Process:
    """Start a container's first process, a child of this process's parent.

    Raises StartError, OSError, ValueError.
    """
    spec = with_descriptors(marshal.loads(order["spec"]), fds)
    give_streams(stdio, owner_of_streams(spec))
    if spec["linux"].get("uidMappings"):
        raise_limits(spec["process"])
    planned = plan_first(order, spec, fds, stdio, console)
    steps = [item.step for item in planned]
    process = start(spec, steps, fds.get("cgroup"), teller(spec, None), CLONE_PARENT)
    if order.get("explain"):
        write_steps(".", planned, process.times)
    return process


def with_descriptors(spec: dict[str, Any], fds: dict[str, int]) -> dict[str, Any]:
    """Return a document whose network and user namespaces are those behind descriptors, if there are any."""
    names = {"network": "netns", "user": "userns"}
    namespaces = [
        {**entry, "path": f"/proc/self/fd/{fds[name]}"}
        if (name := names.get(entry["type"], "")) in fds
        else entry
        for entry in spec["linux"]["namespaces"]
    ]
    return {**spec, "linux": {**spec["linux"], "namespaces": namespaces}}


def plan_first(
    order: dict[str, Any],
    spec: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
) -> list[Planned]:
    """Return the plan of a container's first process. Raises OSError, ValueError."""
    sources = open_sources(spec)
    for index, entry in enumerate(spec["mounts"]):
        if "shm" in fds and entry["destination"] == SHM:
            sources[index] = fds["shm"]
    resources = resources_of(order, stdio, console)
    return plan(spec, resources._replace(rootfs_fd=fds.get("rootfs"), mounts=sources))


def resources_of(
    order: dict[str, Any], stdio: tuple[int, int, int] | None, console: Console | None
) -> Resources:
    """Return what an order and its streams give to the plan."""
    enter_cgroup = [Step(name, write_file, (door, text)) for name, door, text in order["doors"]]
    return Resources(enter_cgroup, None, stdio, console, seccomp=order["seccomp"])


def teller(spec: dict[str, Any], running: int | None) -> Callable[[int], bytes] | None:
    """Return what tells a listener of seccomp's of the container, by its OCI state; None without one.

    `running` is the container's first process if it runs already. Source: OCI runtime.md "State".
    """
    if not (spec["linux"].get("seccomp") or {}).get("listenerPath"):
        return None
    bundle = os.getcwd()  # of a shim; who joins a container is somewhere else then
    state = {
        "ociVersion": spec["ociVersion"],
        "id": os.path.basename(bundle),
        "status": "running" if running else "creating",
        "bundle": bundle,
    }
    return lambda pid: json.dumps({**state, "pid": running or pid}).encode()


def raise_limits(process: dict[str, Any]) -> None:
    """Raise what a root of the container's own may only lower: hard limits, and how early it is killed.

    The process inherits them from this one, which ends. Raises OSError. Source: setrlimit(2),
    proc_pid_oom_score_adj(5).
    """
    import resource  # a shared library of its own, which most starts do without

    for limit in process.get("rlimits") or ():
        number = getattr(resource, limit["type"])
        soft, hard = resource.getrlimit(number)
        wanted = -1 if limit["hard"] == NO_LIMIT else limit["hard"]
        if hard != -1 and (wanted == -1 or wanted > hard):
            try:
                resource.setrlimit(number, (soft, wanted))
            except ValueError:
                words = f"limit {limit['type']}: operation not permitted"
                raise PermissionError(EPERM, words) from None
    if score := process.get("oomScoreAdj"):
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))


def give_streams(stdio: Sequence[int] | None, owner: int) -> None:
    """Make pipes the property of the process's user, who may then open /dev/stdout; runc does so too."""
    for fd in stdio or ():
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, owner, -1)


def owner_of_streams(spec: dict[str, Any]) -> int:
    """Return the host's number of a process's user. Raises ValueError for one that it does not have."""
    uid, mappings = spec["process"]["user"]["uid"], spec["linux"].get("uidMappings")
    return to_host(mappings, uid) if mappings else int(uid)


# %% notebooks/14d_shims.ipynb#seats
NAMES = ("stdin", "stdout", "stderr", "console", "rootfs", "netns", "shm", "inside")
SEATS = {name: 200 + index for index, name in enumerate(NAMES)}


def with_plan(order: dict[str, Any], spec: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return an order with the plan of a container's first process, unless a starter is going to plan.

    A descriptor has another number in every process: the plan speaks of its seat, a number that the child
    gives it. `names` are the descriptors that go with the order. Raises ValueError.
    """
    if order["flags"] is None or order.get("explain"):
        return order
    fds = {name: SEATS[name] for name in names if name in SEATS}
    spec = with_descriptors(spec, fds)
    planned = plan_first(order, spec, fds, *_seated_streams(order))
    flags = order["flags"] & ~(CLONE_NEWNET if "netns" in fds else 0)
    return _with_steps({**order, "flags": flags}, spec, [item.step for item in planned])


def with_plan_inside(order: dict[str, Any], process: dict[str, Any]) -> dict[str, Any]:
    """Return the order of an exec with its plan: to join what is left to join, and the rest of it.

    Its pid namespace the shim joins for it. Raises OSError (ESRCH: the container has ended), ValueError.
    """
    spec = {**marshal.loads(order["spec"]), "process": process}
    flags = other_namespaces(order["enter"])
    resources = resources_of(order, *_seated_streams(order))
    before = plan_before(spec, SEATS["inside"], flags & ~CLONE_NEWPID, resources)
    steps = [*before, *(item.step for item in plan_enter(spec, resources))]
    return _with_steps({**order, "flags": flags & CLONE_NEWPID}, spec, steps)


def _seated_streams(order: dict[str, Any]) -> tuple[tuple[int, int, int] | None, Console | None]:
    if order["terminal"]:
        return None, Console(SEATS["console"], *order["size"])
    return (SEATS["stdin"], SEATS["stdout"], SEATS["stderr"]), None


def _with_steps(order: dict[str, Any], spec: dict[str, Any], steps: list[Step]) -> dict[str, Any]:
    """Return an order with all that a child needs to become a document's process, as one row of bytes.

    A step's function travels as its name. What the plan was made of stays here, unless a listener is to be
    told of it: a shim keeps its order as long as it lives.
    """
    told = (spec["linux"].get("seccomp") or {}).get("listenerPath")
    left = {"doors", "seccomp", *(() if told else ("spec",))}
    obey = (
        [(name, call.__module__, call.__name__, _plain(given)) for name, call, given in steps],
        [os.fsencode(argument) for argument in spec["process"]["args"]],
        parse_environment(spec["process"]["env"]),
        owner_of_streams(spec),
    )
    kept = {key: value for key, value in order.items() if key not in left}
    return {**kept, "obey": marshal.dumps(obey)}


def _plain(value: Any) -> Any:
    """Return a value with plain tuples for those whose fields have names, which marshal does not take."""
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


# %% notebooks/14d_shims.ipynb#inside
def start_here(
    order: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
) -> Process:
    """Start a container's first process, a child of this one. Raises StartError, OSError."""
    return _bear(order, order["flags"], fds, _with_streams(fds, stdio, console))


def start_inside(
    order: dict[str, Any],
    fds: dict[str, int],
    stdio: tuple[int, int, int] | None,
    console: Console | None,
) -> Process:
    """Start one more process in a running container, a child of this one, which lives no longer than it.

    A pid namespace is joined for one's children alone, setns(2): so this process asks for that one, and the
    child does all the rest itself. It is born in the container's v2 group (to move would take 7 ms, see
    `Cgroup.open_unified`), and closed to ptrace as this process is from now on. Raises StartError, OSError.
    """
    inside_fd = pidfd_open(order["enter"])
    prctl(PR_SET_DUMPABLE, 0)
    try:
        if order["flags"]:
            setns(inside_fd, order["flags"])
        return _bear(order, 0, fds, _with_streams({"inside": inside_fd}, stdio, console))
    finally:
        os.close(inside_fd)


def _with_streams(
    fds: dict[str, int], stdio: tuple[int, int, int] | None, console: Console | None
) -> dict[str, int]:
    """Return the descriptors that have a seat, by name."""
    streams = (
        zip(NAMES, stdio, strict=False)
        if stdio
        else [("console", console.socket_fd)]
        if console
        else []
    )
    return dict(streams) | {name: fd for name, fd in fds.items() if name in SEATS}


def _bear(
    order: dict[str, Any], flags: int, fds: dict[str, int], seated: dict[str, int]
) -> Process:
    """Clone a child that obeys its plan, in memory that goes with execve, and see it become its command.

    Raises StartError, OSError.
    """
    report_fd, child_report_fd = os.pipe2(os.O_CLOEXEC)
    child_word_fd, word_fd = os.pipe2(os.O_CLOEXEC)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid, pidfd = clone3(flags, fds.get("cgroup"))
    if pid == 0:
        os.close(word_fd)
        _become(order, seated, Talk(child_report_fd, child_word_fd))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(child_report_fd)
    os.close(child_word_fd)
    release(word_fd, report_fd, offered=lambda: _take_offer(order, report_fd, pid))
    os.close(word_fd)
    os.close(report_fd)
    return Process(pid, pidfd, ())


def _become(order: dict[str, Any], seated: dict[str, int], talk: Talk) -> NoReturn:
    """Put every descriptor on its seat, and become the command; or say what went wrong."""
    try:
        named, command, environment, owner = marshal.loads(order["obey"])
        give_streams([fd for name, fd in seated.items() if name in NAMES[:3]], owner)
        for name, fd in seated.items():
            os.dup2(fd, SEATS[name], inheritable=False)
        steps = [Step(name, _function(module, call), given) for name, module, call, given in named]
    except BaseException as error:
        number, words = 0, str(error)
        if isinstance(error, OSError):
            number, words = error.errno or 0, error.strerror or words
        report_failure(talk.report_fd, "set-up", number, words[:4000])
        os._exit(1)
    init(steps, command, environment, talk)


def _function(module: str, name: str) -> Callable[..., object]:
    """Return a function by its name; a few (setrlimit's) are in modules that most starts do without."""
    if module not in sys.modules:
        __import__(module)
    found: Callable[..., object] = getattr(sys.modules[module], name)
    return found


def _take_offer(order: dict[str, Any], report_fd: int, pid: int) -> None:
    """Pass a listener of seccomp's on, with the container's state."""
    spec = marshal.loads(order["spec"])
    tell = teller(spec, order.get("enter"))
    take_listener(report_fd, pid, spec["linux"]["seccomp"], tell(pid) if tell else b"")
