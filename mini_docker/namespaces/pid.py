# Exported from notebooks/02_pid.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/02_pid.ipynb#pid-module
"""The pid namespace: signals as a fresh process has them, and what PID 1 owes to orphans."""

from __future__ import annotations

import os

from mini_docker.linux.process import default_action, exit_code
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

else:
    import _signal as signal  # the C half: the Python half imports enum


# %% notebooks/02_pid.ipynb#plan-signals
# These two cannot be caught, so there is nothing to set back.
UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}
SIGNALS = 64  # _NSIG of asm/signal.h


def default_signals() -> None:
    """Give every signal its default action, then let them all come, sigaction(2), sigprocmask(2).

    Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored over execve: `yes | head`
    would never end. The order matters: unblocked first, a waiting signal would find our handlers.
    """
    for number in range(1, SIGNALS + 1):
        if number not in UNCATCHABLE:
            default_action(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def plan_signals(spec: dict[str, Any]) -> list[Step]:
    """Plan a fresh process's signals, whatever the document says. Source: execve(2), signal(7)."""
    return [Step("signals to default", default_signals, ())]


# %% notebooks/02_pid.ipynb#reap-until
def reap_until(pid: int) -> int:
    """Wait for every child, ours or adopted, until `pid` has ended; return its exit code, wait(2).

    Killed by a signal it is 128 + n. This is what PID 1 owes: the children of dead processes become its
    own, and stay zombies until it asks for them. Raises ChildProcessError if `pid` is no child.
    """
    while True:
        ended, status = os.wait()
        if ended == pid:
            return exit_code(status)


# %% notebooks/02_pid.ipynb#run-init
def run_init(command: list[bytes], environment: dict[bytes, bytes]) -> int:
    """Be a small init as docker's --init: run `command`, pass signals on, reap orphans, return its code.

    The command gets a process group of its own. Source: signal(7), wait(2), tini's README.
    """
    forwarded = signal.valid_signals() - UNCATCHABLE - {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            default_signals()
            os.execvpe(command[0], command, environment)
        finally:
            os._exit(127)
    while True:
        number = signal.sigwait({*forwarded, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            os.kill(pid, number)
            continue
        code = _reap_waiting(pid)
        if code is not None:
            return code


def _reap_waiting(pid: int) -> int | None:
    """Reap all that have ended, without waiting; return the exit code of `pid` if it is among them."""
    code = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if ended == 0:
            return code
        if ended == pid:
            code = exit_code(status)
