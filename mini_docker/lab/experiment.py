# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#experiment-head
"""Run an experiment in a throw-away child, so that the notebook's kernel stays clean.

    kernel (many threads)   fork, read the pipes, print
      supervisor            new pid and mount namespaces, mounts made private; waits
        pid 1  init         mounts a fresh /proc, reaps orphans
          pid 2  experiment calls the function, or executes /bin/sh

When pid 1 of a pid namespace ends, the kernel kills every process in it: that is how nothing
an experiment started outlives it. Source: pid_namespaces(7).
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import select
import signal
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from mini_docker.lab.verdict import CannotRun, describe
from mini_docker.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, mount
from mini_docker.linux.process import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    PR_SET_PDEATHSIG,
    close_range,
    default_action,
    prctl,
    set_process_name,
    unshare,
)

OUTPUT_LIMIT = 1 << 16  # characters of output shown of one experiment
BUFFER_LIMIT = 1 << 24  # bytes kept of one pipe; the rest is read and dropped
OUTPUT_FD, VALUE_FD, STATUS_FD = 3, 4, 5  # the write ends of the three pipes, in every child
REMEDY = "start the notebooks as root: sudo make lab"


class Outcome(NamedTuple):
    """What became of an experiment.

    `output` is what it and its children wrote; `status` its exit status, or minus the signal that
    killed it; `value` what the function returned; `error` the exception it raised, as one line.
    """

    output: str
    status: int
    value: Any
    timed_out: bool
    error: str | None


# %% notebooks/A_lab_kit.ipynb#supervisor-fork
def fork() -> int:
    """Fork as os.fork does; the warning about threads is for programs that do not exec or _exit soon."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def supervise(
    write_fds: list[int], function: Callable[..., Any], args: tuple[Any, ...]
) -> NoReturn:
    """Be the supervisor: make the namespaces, fork pid 1, kill it when the kernel process says so or dies."""
    kernel = os.getppid()
    try:
        keep_only(write_fds)
        os.setsid()  # an interrupt is sent to the kernel's whole process group
        gc.freeze()  # the finalizers of the kernel's objects are not ours to run
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
        new_namespaces()
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == kernel:
            init = fork()
            if init == 0:
                be_init(function, args)
            close_range(OUTPUT_FD)
            ended = 0
            while not ended and signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD:
                ended, _ = os.waitpid(init, os.WNOHANG)  # it may only have been stopped, or go on
            if not ended:
                os.kill(init, signal.SIGKILL)
                os.waitpid(init, 0)
    except BaseException as error:
        os.write(STATUS_FD, b"!" + describe(error).encode())
    finally:
        os._exit(0)


# %% notebooks/A_lab_kit.ipynb#supervisor-parts
def keep_only(write_fds: list[int]) -> None:
    """Move the pipes to descriptors 3, 4 and 5 and close all others but 0, 1 and 2."""
    high = [os.dup(fd) for fd in write_fds]
    spare = [os.dup(fd) for fd in high] if min(high) <= STATUS_FD else high
    for fd, place in zip(spare, (OUTPUT_FD, VALUE_FD, STATUS_FD), strict=True):
        os.dup2(fd, place, inheritable=False)
    close_range(STATUS_FD + 1)


def new_namespaces() -> None:
    """Enter a new mount namespace whose mounts are private; children get a new pid namespace.

    An ordinary user gets a user namespace as well, as its root. Raises OSError.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWPID | CLONE_NEWNS)
    except PermissionError:
        unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)
        write_maps(uid, gid)
    mount(None, "/", None, MS_REC | MS_PRIVATE)


def write_maps(uid: int, gid: int) -> None:
    """Make the caller root of its new user namespace, user_namespaces(7)."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


# %% notebooks/A_lab_kit.ipynb#be-init
def be_init(function: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    """Be pid 1: a fresh /proc, the experiment as pid 2, reap whoever ends until the experiment does."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        set_process_name(b"lab-init")
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        experiment = fork()
        if experiment == 0:
            be_experiment(function, args)
        ended, status = os.wait()
        while ended != experiment:
            ended, status = os.wait()
        os.write(STATUS_FD, b"%d" % os.waitstatus_to_exitcode(status))
    except BaseException as error:
        os.write(STATUS_FD, b"!" + describe(error).encode())
    finally:
        os._exit(0)


# %% notebooks/A_lab_kit.ipynb#be-experiment
def be_experiment(function: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
    """Be pid 2: standard streams on the pipe, signals as after a login, then the function."""
    status, me = 1, os.getpid()
    try:
        set_process_name(b"experiment")
        os.setsid()
        reset_signals()
        replace_streams()
        os.close(STATUS_FD)
        value, error, status = call(function, args)
        sys.stdout.flush()
        if os.getpid() == me:  # not a child that the function forked and forgot to end
            with open(VALUE_FD, "wb") as file:
                file.write(pickle.dumps((value, error)))
    except BaseException as failure:
        os.write(2, f"{describe(failure)}\n".encode())
    finally:
        os._exit(status)


def call(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, str | None, int]:
    """Return (value, error, exit status) of `function(*args)`; print an exception as one line."""
    try:
        value = function(*args)
        pickle.dumps(value)
        return value, None, 0
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            print(exit_.code)
        return None, None, exit_.code if isinstance(exit_.code, int) else int(bool(exit_.code))
    except BaseException as error:
        line = describe(error)
        print(line)
        return None, line, 1


def reset_signals() -> None:
    """Give every signal its default action: what Python ignores (SIGPIPE) would stay ignored after exec."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    default_action(32)  # ignored where make or another user of posix_spawn(3) started us
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def replace_streams() -> None:
    """Make /dev/null standard input, the pipe standard output and error, and Python's streams anew.

    Whole lines are written at once, and before every fork, so that order is kept and nothing comes twice.
    """
    null_fd = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((null_fd, 0), (OUTPUT_FD, 1), (OUTPUT_FD, 2)):
        os.dup2(fd, place)
    os.close(null_fd)
    os.close(OUTPUT_FD)
    sys.stdin = os.fdopen(0, closefd=False)  # IPython forbids its own open() this one
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.FileIO(fd, "w", closefd=False),
            encoding="utf-8",
            errors="replace",
            line_buffering=True,
        )
        for fd in (1, 2)
    )
    os.register_at_fork(before=sys.stdout.flush)


# %% notebooks/A_lab_kit.ipynb#run-in-child
def run_in_child(function: Callable[..., Any], *args: Any, timeout: float = 10.0) -> Outcome:
    """Call `function(*args)` as `in_child` does, but print nothing and return the Outcome.

    Raises CannotRun where the kernel does not allow the namespaces.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pipes = [os.pipe() for _ in (OUTPUT_FD, VALUE_FD, STATUS_FD)]
    supervisor = 0
    try:
        supervisor = fork()
        if supervisor == 0:
            supervise([write_fd for _, write_fd in pipes], function, args)
        for index, (read_fd, write_fd) in enumerate(pipes):
            os.close(write_fd)
            pipes[index] = (read_fd, -1)
        fds = [read_fd for read_fd, _ in pipes]
        received, timed_out = collect(supervisor, fds, stretched(timeout))
    finally:
        if supervisor:
            stop(supervisor)
        for fd in (fd for pipe in pipes for fd in pipe if fd >= 0):
            os.close(fd)
    return outcome_of(received, timed_out)


def stretched(seconds: float) -> float:
    """Return a limit of time as long as this machine needs it: times what MINI_DOCKER_LAB_PATIENCE says.

    The labs' virtual machine sets it, for software emulation is ten times slower; tests do too.
    """
    return seconds * float(os.environ.get("MINI_DOCKER_LAB_PATIENCE") or 1)


def stop(supervisor: int) -> None:
    """End a supervisor and with it all of its namespace; return when the last process is gone."""
    os.kill(supervisor, signal.SIGTERM)
    os.waitpid(supervisor, 0)


# %% notebooks/A_lab_kit.ipynb#collect
def collect(supervisor: int, fds: list[int], timeout: float) -> tuple[list[bytes], bool]:
    """Read `fds` until the supervisor ends; return what came and whether `timeout` seconds were over.

    The supervisor's end counts, not the pipes': a forgotten daemon may hold them open.
    """
    received = {fd: bytearray() for fd in fds}
    pidfd = os.pidfd_open(supervisor)
    try:
        poller = select.poll()
        for fd in (pidfd, *fds):
            poller.register(fd, select.POLLIN)
        timed_out = read_until_end(poller, pidfd, received, time.monotonic() + timeout)
        if timed_out:
            os.kill(supervisor, signal.SIGTERM)
            read_until_end(poller, pidfd, received, time.monotonic() + 60)
    finally:
        os.close(pidfd)
    return [bytes(received[fd]) for fd in fds], timed_out


def read_until_end(
    poller: select.poll, pidfd: int, received: dict[int, bytearray], deadline: float
) -> bool:
    """Fill `received` until the process behind `pidfd` ended and the pipes are empty.

    Returns True when the deadline (monotonic seconds) came first.
    """
    ended = False
    while True:
        left = 0.0 if ended else max(0.0, deadline - time.monotonic())
        ready = [fd for fd, _ in poller.poll(left * 1000)]
        if pidfd in ready:
            ended = True
            poller.unregister(pidfd)
        for fd in ready:
            if fd != pidfd and not read_some(fd, received[fd]):
                poller.unregister(fd)
        if not ready and (ended or left == 0.0):
            return not ended


def read_some(fd: int, buffer: bytearray) -> bool:
    """Append one read of `fd` to `buffer`, up to the limit; return False at its end."""
    chunk = os.read(fd, 65536)
    if len(buffer) < BUFFER_LIMIT:
        buffer += chunk
    return bool(chunk)


def outcome_of(received: Sequence[bytes], timed_out: bool) -> Outcome:
    """Make the Outcome of the bytes that came through the three pipes. Raises CannotRun."""
    output, value, status = received
    if status.startswith(b"!"):
        raise CannotRun(status[1:].decode(errors="replace"), REMEDY)
    text = output.decode(errors="replace")
    if len(text) > OUTPUT_LIMIT:
        text = text[:OUTPUT_LIMIT] + "\n(the rest of the output is not shown)\n"
    code = int(status) if status else -signal.SIGKILL
    result, error = None, None
    if value and not timed_out:
        result, error = pickle.loads(value)
    return Outcome(text, code, result, timed_out, error)


# %% notebooks/A_lab_kit.ipynb#in-child
def in_child(function: Callable[..., Any], *args: Any, timeout: float = 10.0) -> Any:
    """Call `function(*args)` as pid 2 of a fresh pid namespace; print what it wrote; return its value.

    Its mounts are private and its /proc is its own. After `timeout` seconds (`stretched`) it is stopped.
    Everything it started dies with it. Returns None when it failed. Raises CannotRun where the kernel
    forbids namespaces.
    """
    outcome = run_in_child(function, *args, timeout=timeout)
    report_outcome(outcome, timeout)
    return outcome.value


def sh(script: str, timeout: float = 10.0) -> None:
    """Print `script` as a shell session shows it, run it by /bin/sh as `in_child` does, print its output.

    Programs speak English (LC_ALL=C), find the tools in sbin, and get a TMPDIR that goes with the experiment.
    Raises CannotRun as `in_child` does.
    """
    script = textwrap.dedent(script).strip()
    print(prompted(script))
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    with tempfile.TemporaryDirectory(prefix="mini_docker_sh_") as scratch:
        os.chmod(scratch, 0o755)
        environment = {**os.environ, "LC_ALL": "C", "PATH": path, "TMPDIR": scratch}
        words = ["sh", "-c", script]
        outcome = run_in_child(os.execve, "/bin/sh", words, environment, timeout=timeout)
    report_outcome(outcome, timeout)


def prompted(script: str) -> str:
    """Return `script` with "$ " before each command and "> " before the lines that continue one."""
    closing = {"done", "fi", "esac", "}", ")", "EOF", "END"}
    return "\n".join(
        ("> " if line[:1] in (" ", "\t") or line.split(" ")[0].rstrip(";") in closing else "$ ")
        + line
        for line in script.splitlines()
    )


def report_outcome(outcome: Outcome, timeout: float) -> None:
    """Print the output, and the end if it was not a quiet one."""
    print(outcome.output, end="" if outcome.output.endswith("\n") or not outcome.output else "\n")
    if outcome.timed_out:
        print(f"stopped after {timeout:g} s")
    elif outcome.status < 0:
        print(f"killed by {signal.Signals(-outcome.status).name}")
    elif outcome.status > 0 and outcome.error is None:
        print(f"(exit status {outcome.status})")
