"""The loop that looks after a container, here with a shell in the container's place."""

from __future__ import annotations

import os

import pytest

from mini_docker.engine.supervise import Relay, supervise, write_all
from mini_docker.lab import run_in_child
from mini_docker.linux.process import clone3


def looked_after(script: str, given: bytes) -> tuple[int, bytes, bytes]:
    """Supervise a shell as a container is; return its status and what came out of our own streams."""
    pairs = [os.pipe() for _ in range(6)]
    stdin, child_in, child_out, child_err, stdout, stderr = pairs
    os.write(stdin[1], given)
    os.close(stdin[1])
    pid, pidfd = clone3(0)
    if pid == 0:
        for number, fd in enumerate((child_in[0], child_out[1], child_err[1])):
            os.dup2(fd, number)
        os.closerange(3, 64)
        os.execv("/bin/sh", ["sh", "-c", script])
    for fd in (child_in[0], child_out[1], child_err[1]):
        os.close(fd)
    os.dup2(stdout[1], 1)
    os.dup2(stderr[1], 2)
    relay = Relay(stdin[0], child_in[1], child_out[0], child_err[0], None)
    status = supervise(pid, pidfd, relay)
    return status, os.read(stdout[0], 65536), os.read(stderr[0], 65536)


THREE = "for i in 1 2 3; do sleep 0.03; kill -TERM $PPID; done"
SCRIPTS: dict[str, tuple[str, bytes, tuple[int, bytes, bytes]]] = {
    "both outputs": ("cat; echo err >&2; exit 7", b"in", (7, b"in", b"err\n")),
    "killed": ("echo x >&2; echo x; kill -9 $$", b"", (137, b"x\n", b"x\n")),
    "input unread": ("echo x; echo x >&2", b"y" * 60_000, (0, b"x\n", b"x\n")),
    "input closed": ("exec <&-; sleep 0.05; echo x; echo x >&2", b"y", (0, b"x\n", b"x\n")),
    "third TERM": (f"trap '' TERM; ({THREE}) >/dev/null 2>&1 & echo x; echo x >&2; exec sleep 9", b"",
                   (137, b"x\n", b"x\n")),
}  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize(("script", "given", "wanted"), SCRIPTS.values(), ids=SCRIPTS)
def test_bytes_and_signals_pass(
    script: str, given: bytes, wanted: tuple[int, bytes, bytes]
) -> None:
    outcome = run_in_child(looked_after, script, given)
    assert outcome.value == wanted, outcome.output


def test_write_all_waits_for_a_slow_reader() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        write_all(write_fd, b"x" * 300_000)
        os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        assert len(file.read()) == 300_000
    assert os.waitpid(pid, 0)[1] == 0
