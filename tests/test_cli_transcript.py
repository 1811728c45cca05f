"""Docker's client and ours say the same to one dockerd: tests/transcript.txt, line by line."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from string import ascii_lowercase

import pytest

from tests.conftest import ROOT, cannot_run_here
from tests.daemons import Dockerd
from tests.transcript import LINES, PARTS, Said, say

pytestmark = [pytest.mark.peers, pytest.mark.root]
OURS = f"{ROOT}/labs/bin/mini_docker"
OLDEST = 28  # the texts of this Docker client; older ones say some errors otherwise


def busybox_layer() -> bytes:
    """Return a root file system with busybox in it, as a tar archive."""
    path = shutil.which("busybox")
    if not path:
        cannot_run_here("there is no busybox (remedy: apt-get install busybox-static)")
    names = subprocess.run([path, "--list"], capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(path, "bin/busybox")
        for name in set(names) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for directory in ("etc", "tmp", "var"):
            folder = tarfile.TarInfo(directory)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        user = tarfile.TarInfo("etc/passwd")
        user.size = 31
        archive.addfile(user, io.BytesIO(b"root:x:0:0:root:/root:/bin/sh\n\n"))
    return out.getvalue()


# $AFTER WORD SIGNAL COMMAND...: send COMMAND a signal once it has said WORD
AFTER = """
import signal, subprocess, sys
word, number = sys.argv[1].encode(), signal.Signals["SIG" + sys.argv[2]]
with subprocess.Popen(sys.argv[3:], stdout=subprocess.PIPE) as process:
    for line in process.stdout:
        sys.stdout.buffer.write(line)
        if word in line:
            process.send_signal(number)
sys.exit(process.returncode % 256)
"""


@pytest.fixture(scope="module")
def environment(
    shared_dockerd: Dockerd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Give dockerd an image busybox; yield the environment in which both clients find it."""
    said = subprocess.run(["docker", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", said)
    if not found or int(found[1]) < OLDEST:
        cannot_run_here(f"docker's client is older than {OLDEST}: {said.strip()}")
    where = tmp_path_factory.mktemp("clients")
    (where / "after.py").write_text(AFTER)
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{shared_dockerd.path}",
        "DOCKER_CONFIG": str(where),
        "HOME": str(where),
        "AFTER": f"{sys.executable} {where}/after.py",
    }
    load = ["docker", "import", "-c", 'CMD ["sh"]', "-", "busybox:latest"]
    try:
        subprocess.run(
            load, input=busybox_layer(), env=environment, check=True, capture_output=True
        )
        yield environment
    finally:
        shared_dockerd.forget()
        for path in glob("/tmp/qq[a-z]-*"):
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)


def part(lines: list[str], client: str, prefix: str, environment: dict[str, str]) -> list[Said]:
    """Return the answers of one client to the lines of a part."""
    return [say(line, client, prefix, environment) for line in lines]


def test_both_clients_say_the_same(environment: dict[str, str]) -> None:
    """Both run at the same time, and two parts: each with names of its own."""
    jobs = [(lines, client) for lines in PARTS for client in ("docker", OURS)]
    with ThreadPoolExecutor(4) as pool:
        found = [
            pool.submit(part, *job, f"qq{letter}", environment)
            for letter, job in zip(ascii_lowercase, jobs, strict=False)
        ]
        said = [answers.result() for answers in found]
    theirs, ours = sum(said[::2], []), sum(said[1::2], [])
    answers = zip(LINES, theirs, ours, strict=True)
    differing = [f"{line}\n  docker {a}\n  ours   {b}" for line, a, b in answers if a != b]
    assert not differing, "\n".join(differing)


KEYS: list[tuple[list[str], list[tuple[bytes, bytes]]]] = [
    # what is called, and (wait for this on the screen, then type that): whole lines and echoes,
    # or whatever is still on its way when the client leaves is on one screen and not on the other
    (
        ["run", "--rm", "-it", "busybox", "sh", "-c", "tty; read x; echo got $x"],
        [(b"/dev/pts/0\r\n", b"word\n")],
    ),
    (
        [
            "run",
            "--rm",
            "-it",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 7' INT; echo on; sleep 60 & wait",
        ],
        [(b"on\r\n", b"\x03")],
    ),
    (
        ["run", "-it", "--name", "P-tty", "busybox", "sh", "-c", "echo on; sleep 60"],
        [(b"on\r\n", b"\x10\x11")],
    ),
    (["attach", "P-tty"], [(b"", b"\x10\x11")]),
    (
        ["exec", "-it", "P-tty", "sh", "-c", "echo on; cat"],
        [(b"on\r\n", b"a"), (b"on\r\na", b"\x10\x11")],
    ),
    (
        ["exec", "-it", "--detach-keys", "ctrl-x", "P-tty", "sh", "-c", "echo on; cat"],
        [(b"on\r\n", b"\x18")],
    ),
    (["exec", "-it", "P-tty", "sh", "-c", "stty size; exit 3"], []),
    (["rm", "-f", "P-tty"], []),
]


def is_raw(terminal: int) -> bool:
    """Say whether the client has taken over the keys; until then ^Q is the terminal's own."""
    return not termios.tcgetattr(terminal)[3] & termios.ICANON


def on_a_terminal(
    words: list[str], keys: list[tuple[bytes, bytes]], environment: dict[str, str]
) -> tuple[int, bytes]:
    """Run a client on a terminal, type, and return its status and what is on the screen."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execvpe(words[0], words, environment)
        finally:
            os._exit(127)
    screen, keys, deadline = b"", list(keys), time.monotonic() + 240
    while time.monotonic() < deadline:
        if keys and keys[0][0] in screen and is_raw(terminal):
            os.write(terminal, keys.pop(0)[1])
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:
            data = b""
        if not data:
            break
        screen += data
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen


def test_both_clients_look_the_same_on_a_terminal(environment: dict[str, str]) -> None:
    """Keys, Ctrl-C, detaching, the size: statuses and screens."""
    for words, keys in KEYS:
        theirs, ours = (
            on_a_terminal(
                [client, *(word.replace("P-", prefix) for word in words)], keys, environment
            )
            for client, prefix in (("docker", "qqa-"), (OURS, "qqb-"))
        )
        screens = [screen.replace(b"qqb-", b"qqa-") for _, screen in (theirs, ours)]
        assert (theirs[0], screens[0]) == (ours[0], screens[1]), words
