"""Containers that look for a way out, and callers that leave one open: real runs, each door tried."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.system import Lab, lab  # noqa: F401 (a fixture)

pytestmark = pytest.mark.root


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory of the host to be mounted at /x."""
    tmp_path.chmod(0o755)
    return tmp_path


SCRIPTS = {
    # CVE-2019-5736: the interpreter is the host's python until execve is done
    "interpreter": {"run": b"#!/proc/self/exe\n"},
    "with an argument": {"run": b"#! \t/proc/self/exe -c pass\n"},
    "by a link": {"run": b"#!/x/link\n", "link": b"->/proc/self/exe"},
    "of the interpreter": {"run": b"#!/x/next\n", "next": b"#!/proc/self/exe\n"},
    "the kernel reads a space, a tab and nothing else as space": {
        "run": b"#!/x/sh\x0clink\n",
        "sh": b"->/bin/sh",
        "sh\x0clink": b"->/proc/self/exe",
    },
    "a thread's": {"run": b"#!/proc/thread-self/exe\n"},
    "the program": {"run": b"->/proc/self/exe"},
}


@pytest.mark.parametrize("files", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_the_host_s_python_cannot_be_the_interpreter(
    lab: Lab, shared: Path, files: dict[str, bytes], user: str
) -> None:
    for name, content in files.items():
        if content.startswith(b"->"):
            os.symlink(content[2:], shared / name)
        else:
            (shared / name).write_bytes(content)
            (shared / name).chmod(0o711)
    done = lab.run("--network", "none", "-u", user, "-v", f"{shared}:/x", "busybox", "/x/run")
    assert (done.returncode, done.stdout) == (126, "")
    assert 'exec: "/x/run": permission denied' in done.stderr


@pytest.mark.parametrize("below", ["", "/made"])
def test_an_open_directory_of_the_host_is_no_working_directory(
    lab: Lab, shared: Path, below: str
) -> None:
    """CVE-2024-21626: whoever called us left it open, and /proc/self/fd/N leads there."""
    directory_fd = os.open(shared, os.O_RDONLY)
    try:
        words = ("-w", f"/proc/self/fd/{directory_fd}{below}", "busybox", "touch", "here")
        process = lab.popen("run", "--rm", *words, stderr=subprocess.PIPE, pass_fds=[directory_fd])
        _, err = process.communicate(timeout=120)
    finally:
        os.close(directory_fd)
    assert process.returncode in (125, 126)
    assert b"Traceback" not in err
    assert os.listdir(shared) == []


def test_the_caller_s_umask_does_not_close_the_container(lab: Lab) -> None:
    before = os.umask(0o077)
    try:
        script = "cat /etc/hostname /etc/hosts && ls / /etc >/dev/null && umask && stat -c %a /"
        done = lab.run(
            "-h", "web", "-u", "nobody", "--network", "none", "busybox", "sh", "-c", script
        )
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("web\n") and done.stdout.endswith("0022\n755\n")


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_not_closed_inside(lab: Lab, shared: Path, closed: str) -> None:
    """A command that opens a file would get it as its own output else."""
    command = f"'{lab.arguments()[0]}' --data-root {lab.data_root} run --rm --network none"
    script = f"{command} -v {shared}:/x busybox sh -c 'ls /proc/self/fd >/x/list; exit 5' {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 5
    assert (shared / "list").read_text().split() == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3 is the directory itself


def test_the_console_is_the_container_s_own(lab: Lab) -> None:
    script = "test -t 0 -a -t 1 -a -t 2 && tty && ls /dev/pts && readlink /proc/self/fd/0 && ps | grep -c ."
    pid, master = pty.fork()
    if pid == 0:
        words = ("run", "--rm", "-it", "--network", "none", "busybox", "sh", "-c", script)
        try:
            os.execv(lab.arguments()[0], lab.arguments(*words))
        finally:
            os._exit(127)
    output = b""
    try:
        while chunk := os.read(master, 4096):
            output += chunk
    except OSError:
        pass
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"ptmx" in output and b"/dev/" in output
