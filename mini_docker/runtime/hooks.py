# Exported from notebooks/11b_create_and_start.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11b_create_and_start.ipynb#hooks-module
"""Hooks: the engine's own programs, run at six points of a container's life."""

from __future__ import annotations

import errno
import os
import select

from mini_docker.linux.process import pidfd_open
from mini_docker.namespaces.pid import default_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn

else:
    import _signal as signal  # the C half: the Python half imports enum


# %% notebooks/11b_create_and_start.ipynb#run-hooks
def run_hooks(hooks: Sequence[dict[str, Any]], state: bytes) -> None:
    """Run each hook, one after another, with `state` (JSON) on its stdin.

    The first that fails, or takes longer than its `timeout` in seconds, ends it with an OSError that holds
    the hook's own words. Source: OCI config.md "POSIX-platform Hooks".
    """
    for index, hook in enumerate(hooks):
        output_fd = os.memfd_create("output")
        try:
            fate = _run_hook(hook, state, output_fd)
            if fate:
                words = os.pread(output_fd, 4096, 0).decode(errors="replace").strip()
                text = f"hook #{index} {hook['path']}: {fate}" + (f": {words}" if words else "")
                raise OSError(errno.ECANCELED, text)
        finally:
            os.close(output_fd)


def _run_hook(hook: dict[str, Any], state: bytes, output_fd: int) -> str:
    """Run one hook; return what went wrong, "" for nothing."""
    pid = os.fork()
    if pid == 0:
        _become_hook(hook, state, output_fd)
    try:
        os.setpgid(pid, pid)  # both sides do: its group has to be there when its time is up
    except PermissionError:
        pass  # it has done so, and is another program by now
    pidfd = pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    in_time = poll.poll(hook["timeout"] * 1000 if hook.get("timeout") else None)
    os.close(pidfd)
    if not in_time:
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not in_time:
        return f"timed out after {hook['timeout']} s"
    return "" if code == 0 else f"exit status {code}" if code > 0 else f"killed by signal {-code}"


def _become_hook(hook: dict[str, Any], state: bytes, output_fd: int) -> NoReturn:
    """Execute the hook with its own arguments and environment; its streams are files in memory.

    A pipe would do for stdin, but a state larger than the pipe would wait for a hook that does not read.
    """
    try:
        os.setpgid(0, 0)
        default_signals()
        state_fd = os.memfd_create("state")
        os.write(state_fd, state)
        os.lseek(state_fd, 0, os.SEEK_SET)
        for number, fd in enumerate((state_fd, output_fd, output_fd)):
            os.dup2(fd, number)
        environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    except OSError as error:
        os.write(output_fd, str(error.strerror).encode())
    finally:
        os._exit(127)
