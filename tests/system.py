"""The command under test, as a user runs it: a daemon with a network namespace and a data root of its own."""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from ctypes import c_int, c_ulong, c_void_p
from typing import Any, NoReturn

import pytest

from mini_docker.linux.process import CLONE_NEWNET, setns
from mini_docker.linux.syscall import system_call

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")


def cannot_run_here(reason: str) -> NoReturn:
    """Skip the running test, aloud."""
    pytest.skip(f"cannot run here, because {reason}")


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    """Wait until a condition is true; fail when it does not come true on the slowest of machines."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


class Lab:
    """A data root and the network namespace of its daemon; `run` calls mini_docker in both."""

    def __init__(self, data_root: pathlib.Path, netns_fd: int) -> None:
        self.data_root = data_root
        self.netns_fd = netns_fd

    def arguments(self, *words: str) -> list[str]:
        return [COMMAND, "--data-root", str(self.data_root), *words]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[Any]:
        netns_fd = self.netns_fd
        return subprocess.Popen(
            self.arguments(*words), preexec_fn=lambda: setns(netns_fd, CLONE_NEWNET), **options
        )

    def call(
        self, *words: str, input: str | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run `mini_docker WORDS...` to its end and return status, stdout and stderr."""
        pipe = subprocess.PIPE
        stdin = pipe if input is not None else subprocess.DEVNULL
        process = self.popen(*words, stdin=stdin, stdout=pipe, stderr=pipe, text=True)
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `mini_docker run --rm WORDS...`."""
        return self.call("run", "--rm", *words, **options)

    def leftovers(self, patience: float = 60.0) -> list[str]:
        """Return what stays in the data root or the control groups; nothing, if all is well."""
        deadline = time.monotonic() + patience
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def daemon_pid(self) -> int:
        """Return the pid of the data root's daemon."""
        return int((self.data_root / "daemon.lock").read_text())

    def kill_daemon(self) -> None:
        """Kill the data root's daemon, and wait until nothing of it answers any more."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: has_ended(pid))

    def forget_created(self) -> None:
        """Remove what killed clients have asked for and never started; their daemon may still be at it."""
        until(lambda: self.call("container", "prune", "-f").returncode == 0 and not self._found())

    def _found(self) -> list[str]:
        found = [
            f"{name}/{entry}"
            for name in ("containers", "running", "names")
            if (self.data_root / name).is_dir()
            for entry in os.listdir(self.data_root / name)
        ]
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            if os.path.basename(directory) == "mini_docker":
                found += [f"{directory}/{name}" for name in names]
        return found


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A data root with the embedded image, and a network namespace that dies with the session."""
    data_root = tmp_path_factory.mktemp("mini_docker")
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    netns_fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    lab = Lab(data_root, netns_fd)
    try:
        made = lab.call("setup")
        assert made.returncode == 0, made.stderr
        first = lab.call("ps", "-q")
        assert "no daemon was running; started one" in first.stderr
        yield lab
        reset = lab.call("reset")
        assert reset.returncode == 0, reset.stderr
        assert lab.call("reset").stdout == "nothing to remove\n"
    finally:
        os.close(netns_fd)
        holder.kill()
        holder.wait()
        holder.stdout.close()


def ignore_hidden_signal() -> None:
    """Ignore signal 32, as posix_spawn(3) does for the programs it starts; signal.signal() cannot."""
    call = system_call("rt_sigaction", c_int, c_void_p, c_void_p, c_ulong)
    call(32, struct.pack("4Q", signal.SIG_IGN, 0, 0, 0), None, 8)


def has_ended(pid: int) -> bool:
    """Say whether a process, with all its threads, is gone, or a zombie that nobody has reaped yet.

    As long as one of its threads has still to die, its sockets and locks are there.
    """
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, before it was read
        return True
    return stat.rpartition(") ")[2][0] == "Z" and threads <= 1


def catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal by now."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def children(pid: int, name: str) -> list[int]:
    """Return the children of a process that call themselves `name`."""
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in path.read_text().split():
                if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == name:
                    found.append(int(child))
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread, or a child, that has just ended
    return found


def remove_groups(name: str) -> None:
    """Remove the parents that an engine makes for its containers' control groups, and leaves."""
    for root, directories, _ in os.walk("/sys/fs/cgroup"):
        if name in directories and not os.path.islink(f"{root}/{name}"):
            for below, _, _ in sorted(os.walk(f"{root}/{name}"), reverse=True):
                until(functools.partial(is_removed, below))


def is_removed(group: str) -> bool:
    """Remove a control group; say whether it has gone, which it cannot while a process in it still ends."""
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
