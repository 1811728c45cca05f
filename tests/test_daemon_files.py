"""What `docker cp` asks: the archives and the stats of a running container's paths, beside dockerd."""

from __future__ import annotations

import base64
import io
import json
import os
import pathlib
import tarfile
from typing import Any
from urllib.parse import quote

import pytest

from mini_docker.engine.places import Place, final_target
from mini_docker.engine.tars import read_tree
from tests.daemons import Daemon, Dockerd, UnixConnection
from tests.system import until

pytestmark = [pytest.mark.root]

LINKS = "ln -s /etc /dir; ln -s hop /chain; ln -s etc/passwd /hop; ln -s no /off"
MAKE = f"mkdir -p /tmp/a/b; touch /tmp/a/b/c; {LINKS}"
PATHS = [
    "/", "/.", ".", "..", "//tmp//", "/etc", "etc/", "/etc/.", "/tmp/./.", "/tmp/a", "/tmp/a/..",
    "/bin/../tmp",
    "/bin/sh", "/dir", "/dir/", "/dir/.", "/dir/passwd", "/chain", "/off", "/off/", "/etc/passwd/",
    "/etc/passwd/.", "/nosuch", "/nosuch/.",
]  # fmt: skip
OF_DOCKER = (".dockerenv", "mtab")  # not here, as docs/differences.md says
OF_KERNEL = ("dev/", "proc/", "sys/")


def asked(daemon: Daemon, method: str, path: str) -> tuple[int, Any, Any]:
    """Return the status, the stat and the names of an archive."""
    connection = UnixConnection(daemon.path)
    connection.request(method, f"/containers/files/archive?path={quote(path)}")
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    header = answer.headers.get("X-Docker-Container-Path-Stat")
    found = json.loads(base64.b64decode(header)) if header else {}
    stat = {key: found[key] for key in found if key not in ("mtime", "size")}
    if not data or answer.status != 200:
        return answer.status, stat, None
    names = tarfile.open(fileobj=io.BytesIO(data)).getnames()
    own = [name for name in names if not name.endswith(OF_DOCKER)]
    return answer.status, stat, sorted(n for n in own if not n.lstrip("./").startswith(OF_KERNEL))


@pytest.mark.peers
def test_archives_and_stats_are_dockerds(
    daemon: Daemon, dockerd: Dockerd, both: tuple[str, str]
) -> None:
    answers = []
    for one in (dockerd, daemon):
        one.run("files", "sh", "-c", f"{MAKE}; touch /made; sleep 1000")
        until(lambda: asked(one, "HEAD", "/made")[0] == 200)  # noqa: B023 (it is called here)
        answers.append([(m, p, asked(one, m, p)) for p in PATHS for m in ("HEAD", "GET")])
    assert answers[1] == answers[0]


def test_the_root_of_a_running_container_has_none_of_the_kernels_files(daemon: Daemon) -> None:
    daemon.run("files", "sh", "-c", f"{MAKE}; touch /made; sleep 1000")
    until(lambda: asked(daemon, "HEAD", "/made")[0] == 200)
    connection = UnixConnection(daemon.path)
    connection.request("GET", "/containers/files/archive?path=/")
    names = tarfile.open(fileobj=io.BytesIO(connection.getresponse().read())).getnames()
    connection.close()
    assert {"/proc", "/sys", "/dev", "/tmp/a/b/c", "/bin/busybox"} <= set(names)
    assert not [name for name in names if name.startswith(("/proc/", "/sys/", "/dev/"))]


def test_a_file_that_is_shorter_than_it_says_is_filled_up() -> None:
    """Files of /sys say 4,096 bytes and hold a few, as one does that shrinks while it is read."""
    fd = os.open("/sys/kernel/uevent_seqnum", os.O_PATH)
    promised = os.fstat(fd).st_size
    archive = tarfile.open(fileobj=io.BytesIO(b"".join(read_tree(fd, "number"))))
    os.close(fd)
    content = archive.extractfile("number")
    assert content is not None
    data = content.read()
    assert len(data) == promised > len(data.rstrip(b"\0\n")) > 0


def test_a_symlink_leads_to_the_end_of_its_chain_inside_its_root(tmp_path: pathlib.Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("../../../etc/gone")
    (tmp_path / "loop").symlink_to("loop")
    root_fd = os.open(tmp_path, os.O_PATH)
    assert final_target(Place(root_fd, "/one", None)) == "/etc/gone"
    assert final_target(Place(root_fd, "/loop", None)) == "/loop"
    os.close(root_fd)
