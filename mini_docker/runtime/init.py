# Exported from notebooks/11_runtime.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11_runtime.ipynb#init-module
"""From clone to execve: the parent starts init, init makes its plan true and becomes the command."""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
from collections import namedtuple

from mini_docker.linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_PARENT,
    CLOSE_RANGE_CLOEXEC,
    close_range,
)
from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import new_namespaces, plan_births
from mini_docker.namespaces.user import write_id_maps
from mini_docker.runtime.birth import bear
from mini_docker.runtime.jsontext import dumps, loads
from mini_docker.runtime.listener import OFFERED, offer_listener, stay_outside, take_listener
from mini_docker.runtime.program import DEFAULT_PATH, candidates
from mini_docker.runtime.talk import PAUSED, Talk, listen, pause, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple, NoReturn

    from mini_docker.runtime.listener import Take

    class Process(NamedTuple):
        """A process in a container: its pid and pidfd, and how long each step took, in nanoseconds.

        One that waits at its gate has no times yet.
        """

        pid: int
        pidfd: int
        times: tuple[int, ...]

else:
    import _signal as signal  # the C half: the Python half imports enum

    Process = namedtuple("Process", ("pid", "pidfd", "times"))


# %% notebooks/11_runtime.ipynb#report-protocol
# The end of the conversation (its beginning is in talk.py). The pipe closes itself on execve, so its
# end means "the command runs".
#
#   init    READY count times...        every step is done; execve comes next
#   init    FAILED {step, errno, text}  a step, or execve, was refused; init exits
#   (end without READY or FAILED)       init was killed in set-up
READY = b"!"
FAILED = b"E"
EXEC = "exec"


class StartError(OSError):
    """A container that did not start: `step` is what failed, `errno` why, `strerror` the sentence."""

    def __init__(self, step: str, error: int, text: str) -> None:
        """Keep the name of the step; the rest is an OSError's."""
        super().__init__(error, text)
        self.step = step

    @property
    def about_command(self) -> bool:
        """Whether it was the command that could not be executed (126, 127), not the set-up (125)."""
        return str(self.strerror).startswith("exec: ")

    def __str__(self) -> str:
        """Return the sentence alone for the command, with the step's name for all others."""
        return f"{self.strerror}" if self.about_command else f"{self.step}: {self.strerror}"


# %% notebooks/11_runtime.ipynb#start
def start(
    spec: dict[str, Any],
    steps: Sequence[Step],
    cgroup_fd: int | None = None,
    watch: Callable[[int], bytes] | None = None,
    more_flags: int = 0,
) -> Process:
    """Clone init with the namespaces that `spec` asks for, let it do `steps`, and return once it runs.

    With a gate among the steps (see `pause`) it returns once init waits there. With `cgroup_fd`, a
    directory of the v2 tree, it is born in that control group. `watch(pid)` is called when it is born, and
    at each pause; what it returns is the state for hooks, and for a listener of seccomp's. The caller
    has one thread (see clone3). CLONE_PARENT among `more_flags` makes init a child of the caller's parent,
    and lets the caller itself join the namespaces that exist. Raises StartError and what `watch` raises;
    nothing is left running then.
    """
    flags = new_namespaces(spec) & ~(CLONE_NEWCGROUP | CLONE_NEWTIME)  # their steps come later
    return launch(spec, steps, flags | more_flags, cgroup_fd, plan_births(spec), watch)


def launch(
    spec: dict[str, Any],
    steps: Sequence[Step],
    flags: int,
    cgroup_fd: int | None,
    before: Sequence[Step],
    watch: Callable[[int], bytes] | None = None,
) -> Process:
    """Bear a process (see `bear`), and lead it to its command or its gate (see `start`).

    All signals stay blocked across the clone, so that none finds this process's handlers in the child.
    """
    command = [os.fsencode(argument) for argument in spec["process"]["args"]]
    environment = parse_environment(spec["process"].get("env", ()))
    report_fd, child_report_fd = os.pipe2(os.O_CLOEXEC)
    child_word_fd, word_fd = os.pipe2(os.O_CLOEXEC)
    seccomp = (spec.get("linux") or {}).get("seccomp") or {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        take = taker(steps, seccomp, bool(flags & CLONE_PARENT and before))
        pid, pidfd = bear(flags, cgroup_fd, before)
        if pid == 0:
            os.close(word_fd)
            init(steps, command, environment, Talk(child_report_fd, child_word_fd))
        os.close(child_report_fd)
        child_report_fd = -1
        if flags & CLONE_NEWUSER:
            _or_kill(pid, write_id_maps, pid, spec)
        times = _or_kill(pid, _lead, pid, steps, word_fd, report_fd, take, watch)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for fd in (report_fd, child_report_fd, child_word_fd, word_fd):
            if fd >= 0:
                os.close(fd)
    return Process(pid, pidfd, times)


def taker(steps: Sequence[Step], seccomp: dict[str, Any], leaves: bool) -> Take:
    """Return what takes a listener of seccomp's: this process, or, if it leaves for a container, another."""
    if leaves and any(step.call is offer_listener for step in steps):
        return stay_outside(seccomp)
    return lambda report_fd, pid, state: take_listener(report_fd, pid, seccomp, state)


def _or_kill(pid: int, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return `call(*arguments)`; if that raises, kill and reap the child first."""
    try:
        return call(*arguments)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # by CLONE_PARENT it is a sibling: our parent reaps it
        raise


def _lead(
    pid: int,
    steps: Sequence[Step],
    word_fd: int,
    report_fd: int,
    take: Take,
    watch: Callable[[int], bytes] | None,
) -> tuple[int, ...]:
    """Give the child its words, up to its gate if there is one, else to the end of its report."""
    state = watch(pid) if watch else b""
    say(word_fd, state)
    for step in steps:
        if step.call not in (pause, offer_listener):
            continue
        mark = os.read(report_fd, 1)
        if mark == OFFERED:
            take(report_fd, pid, state)
        elif mark != PAUSED:
            read_report(report_fd, mark)
        elif len(step.arguments) > 1:  # the gate
            return ()
        elif watch:
            state = watch(pid)
        say(word_fd, state)
    return read_report(report_fd)


# %% notebooks/11_runtime.ipynb#read-report
def read_report(report_fd: int, begun: bytes = b"") -> tuple[int, ...]:
    """Read init's report to its end, after what is `begun`; return the steps' times. Raises StartError."""
    report = begun
    while chunk := os.read(report_fd, 65536):
        report += chunk
    times: tuple[int, ...] = ()
    if report[:1] == READY:
        (count,) = struct.unpack_from("=I", report, 1)
        times = struct.unpack_from(f"={count}Q", report, 5)
        report = report[5 + 8 * count :]
    elif not report:
        raise StartError("set-up", errno.EINTR, "the container was killed before its command ran")
    if report[:1] == FAILED:
        failure = loads(report[1:].decode())
        raise StartError(failure["step"], failure["errno"], failure["text"])
    return times


def release(
    word_fd: int,
    report_fd: int,
    state: bytes = b"",
    offered: Callable[[], object] | None = None,
) -> tuple[int, ...]:
    """Let a process that waits at its gate go on; return its steps' times once its command runs.

    `offered` is called if it offers a listener of seccomp's. Raises StartError, and what `offered` raises.
    """
    say(word_fd, state)
    mark = os.read(report_fd, 1)
    if mark == OFFERED and offered:
        offered()
        say(word_fd)
        mark = b""
    return read_report(report_fd, mark)


def parse_environment(variables: Sequence[str]) -> dict[bytes, bytes]:
    """Return process.env (a list of NAME=value) as execve wants it. Raises ValueError."""
    environment = {}
    for index, variable in enumerate(variables):
        name, separator, value = os.fsencode(variable).partition(b"=")
        if not name or not separator or b"\0" in variable.encode(errors="surrogateescape"):
            raise ValueError(f"process.env[{index}]: {variable!r} is not NAME=value")
        environment[name] = value
    return environment


# %% notebooks/11_runtime.ipynb#init
def init(
    steps: Sequence[Step], command: list[bytes], environment: dict[bytes, bytes], talk: Talk
) -> NoReturn:
    """Be the container's first process: wait for the word, do the steps, execve. Never returns.

    Nothing is imported from here on: after pivot_root the modules would be the container's.
    """
    name = "set-up"
    try:
        sys.meta_path.clear()
        listen(talk.word_fd)
        times = []
        for step in steps:
            name, began = step.name, time.perf_counter_ns()
            if step.call is pause:
                talk = pause(talk, *step.arguments)
            elif step.call is offer_listener:
                talk = offer_listener(talk, *step.arguments)
            else:
                step.call(*step.arguments)
            times.append(time.perf_counter_ns() - began)
        name = EXEC
        program = find_program(command[0], environment.get(b"PATH", DEFAULT_PATH.encode()))
        os.write(talk.report_fd, READY + struct.pack(f"=I{len(times)}Q", len(times), *times))
        os.execve(program, command, environment)
    except OSError as error:
        text = _sentence(error, name, command)
        report_failure(talk.report_fd, name, error.errno or errno.EIO, text)
    except ValueError as error:  # by which resource.setrlimit says EPERM
        words = "operation not permitted" if "not allowed" in str(error) else str(error)
        report_failure(talk.report_fd, name, errno.EPERM, words)
    except BaseException as error:
        report_failure(talk.report_fd, name, errno.EIO, f"an unexpected error, {error}")
    finally:
        os._exit(1)


def close_others(first: int) -> None:
    """Mark every descriptor from `first` on to be closed by execve, close_range(2)."""
    close_range(first, flags=CLOSE_RANGE_CLOEXEC)


def _sentence(error: OSError, step: str, command: list[bytes]) -> str:
    text = error.strerror or str(error)
    if step != EXEC or text.startswith("exec: "):
        return text
    return f'exec: "{os.fsdecode(command[0])}": {text.lower()}'


def report_failure(report_fd: int, step: str, error: int, text: str) -> None:
    """Say which step was refused and why, as `read_report` reads it."""
    failure = {"step": step, "errno": error, "text": text}
    os.write(report_fd, FAILED + dumps(failure).encode())


# %% notebooks/11_runtime.ipynb#find-program
def find_program(name: bytes, path: bytes) -> bytes:
    """Return the file to execute for `name`, looked up in the directories of `path` as execvp(3) does.

    Raises FileNotFoundError or PermissionError in the words by which Docker chooses 127 or 126.
    """
    shown = os.fsdecode(name)
    if b"/" in name:
        _check_program(name, shown)
        return name
    for candidate in candidates(name, path):
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, f'exec: "{shown}": executable file not found in $PATH')


def _check_program(name: bytes, shown: str) -> None:
    """Raise, in Docker's words, what execve(2) would refuse: nothing there, a directory, no permission."""
    if not os.path.exists(name):
        text = f'exec: "{shown}": stat {shown}: no such file or directory'
        raise FileNotFoundError(errno.ENOENT, text)
    if os.path.isdir(name):
        raise PermissionError(errno.EISDIR, f'exec: "{shown}": is a directory')
    if not os.access(name, os.X_OK):
        raise PermissionError(errno.EACCES, f'exec: "{shown}": permission denied')
