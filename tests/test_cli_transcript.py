"""Docker's client and ours say the same to one dockerd: tests/transcript.txt, line by line."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT, cannot_run_here
from tests.transcript import LINES, Said, say

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


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a dockerd of our own; yield the environment in which both clients find it."""
    if not shutil.which("dockerd"):
        cannot_run_here("there is no dockerd (remedy: labs/provision.sh --peers)")
    said = subprocess.run(["docker", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", said)
    if not found or int(found[1]) < OLDEST:
        cannot_run_here(f"docker's client is older than {OLDEST}: {said.strip()}")
    where = tmp_path_factory.mktemp("dockerd")
    host = f"unix://{where}/docker.sock"
    options = {
        "data-root": where / "data",
        "exec-root": where / "exec",
        "pidfile": where / "pid",
        "host": host,
    }
    command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
    environment = {
        **os.environ,
        "DOCKER_HOST": host,
        "DOCKER_CONFIG": str(where),
        "HOME": str(where),
    }
    with open(where / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            if (
                subprocess.run(["docker", "info"], env=environment, capture_output=True).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        else:
            cannot_run_here(f"dockerd does not start: {(where / 'log').read_text()[-300:]}")
        load = ["docker", "import", "-c", 'CMD ["sh"]', "-", "busybox:latest"]
        subprocess.run(
            load, input=busybox_layer(), env=environment, check=True, capture_output=True
        )
        yield environment
    finally:
        process.terminate()
        process.wait()
        clean_up(where)


def clean_up(where: Path) -> None:
    """Remove what a dockerd leaves behind: its bridge and its mounts."""
    subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for mount in reversed([line.split()[4] for line in lines if f" {where}" in line]):
        subprocess.run(["umount", "-l", mount], capture_output=True)


def whole(client: str, prefix: str, environment: dict[str, str]) -> list[Said]:
    """Return the answers of one client to every line."""
    return [say(line, client, prefix, environment) for line in LINES]


def test_both_clients_say_the_same(daemon: dict[str, str]) -> None:
    """Both run at the same time, each with names of its own."""
    with ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(whole, "docker", "qqa", daemon)
        ours = pool.submit(whole, OURS, "qqb", daemon)
        answers = list(zip(LINES, theirs.result(), ours.result(), strict=True))
    differing = [f"{line}\n  docker {a}\n  ours   {b}" for line, a, b in answers if a != b]
    assert not differing, "\n".join(differing)
