"""Volumes, sizes and copies over the daemon's API, as dockerd answers them."""

from __future__ import annotations

import io
import pathlib
import tarfile
from typing import Any

import pytest

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.hosts import port_ranges
from mini_docker.engine.launch import check_health
from tests.daemons import Daemon, UnixConnection

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("leak_free")]


def fetch(daemon: Daemon, name: str, path: str) -> dict[str, bytes]:
    """Return {name: content} of what GET archive gives; {} where the path is not there."""
    connection = UnixConnection(daemon.path)
    connection.request("GET", f"/containers/{name}/archive?path={path}")
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.status != 200:
        return {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [member for member in archive if not member.isdir()]
        return {
            m.name: (archive.extractfile(m) or io.BytesIO()).read() if m.isfile() else b""
            for m in files
        }


def put(daemon: Daemon, name: str, path: str, file: str) -> tuple[int, Any]:
    """Send a tar with one file to a directory of a container."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(file)
        info.size = 2
        archive.addfile(info, io.BytesIO(b"up"))
    connection = UnixConnection(daemon.path)
    connection.request("PUT", f"/containers/{name}/archive?path={path}", data.getvalue())
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_a_stopped_container_is_copied_with_all_its_volumes(
    daemon: Daemon,
    tmp_path: pathlib.Path,  # noqa: F811
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "file").write_text("host")
    binds = ["one:/a", "two:/a/deep", f"{tmp_path}/src:/c:ro"]
    script = "echo y >/a/y; echo er >/a/deep/er; ln -s /a/deep /link; ln -s ../../../../c /a/out"
    daemon.run("cc", "sh", "-c", script, HostConfig={"Binds": binds})
    daemon.ask("POST", "/containers/cc/wait")
    assert fetch(daemon, "cc", "/a/y") == {"y": b"y\n"}
    assert fetch(daemon, "cc", "a") == {"a/deep/er": b"er\n", "a/out": b"", "a/y": b"y\n"}
    assert fetch(daemon, "cc", "/link/er") == {"er": b"er\n"}, "a symlink of one leads into another"
    assert fetch(daemon, "cc", "/a/out/file") == {"file": b"host"}
    assert "c/file" in {name.removeprefix("/") for name in fetch(daemon, "cc", "/")}
    assert put(daemon, "cc", "/link", "new")[0] == 200
    assert fetch(daemon, "cc", "/a/deep/new") == {"new": b"up"}
    status, text = put(daemon, "cc", "/c", "new")
    assert status == 400 and "mounted volume is marked read-only" in text
    assert not (tmp_path / "src" / "new").exists()
    assert fetch(daemon, "cc", "/nosuch") == {}
    changed = {change["Path"] for change in daemon.ask("GET", "/containers/cc/changes")[1]}
    assert changed == {"/a", "/c", "/link"}, "what lies in a volume is no change of the container"


def test_a_container_that_never_ran_has_its_volumes_too(daemon: Daemon) -> None:  # noqa: F811
    binds = {"Binds": ["one:/v"], "ReadonlyRootfs": True}
    daemon.create("cc", "true", HostConfig=binds)
    assert put(daemon, "cc", "/v", "new")[0] == 200
    assert fetch(daemon, "cc", "/v/new") == {"new": b"up"}
    status, text = put(daemon, "cc", "/etc", "new")
    assert status == 400 and "container rootfs is marked read-only" in text


def test_sizes_where_they_are_asked_for(daemon: Daemon) -> None:  # noqa: F811
    daemon.run("cc", "sh", "-c", "echo hello >/f", HostConfig={"Binds": ["one:/v"]})
    daemon.ask("POST", "/containers/cc/wait")
    (row,) = daemon.ask("GET", "/containers/json?all=1&size=1")[1]
    shown = daemon.ask("GET", "/containers/cc/json?size=1")[1]
    image = daemon.ask("GET", "/images/busybox/json")[1]["Size"]
    for found in (row, shown):
        assert (found["SizeRw"], found["SizeRootFs"]) == (6, 6 + image)
    assert "SizeRw" not in daemon.ask("GET", "/containers/cc/json")[1]
    assert "SizeRw" not in daemon.ask("GET", "/containers/json?all=1")[1][0]


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"VolumesFrom": ["nosuch"]}, "No such container: nosuch"),
        ({"VolumesFrom": ["nosuch:bad"]}, "No such container: nosuch"),
        (
            {"Links": ["nosuch"], "NetworkMode": "bridge"},
            "could not get container for nosuch: No such",
        ),
        ({"Binds": ["/etc:/d:bad"]}, "invalid mode: bad"),
        ({"Mounts": [{"Type": "bad", "Target": "/d"}]}, 'for type "bad": mount type unknown'),
        ({"Tmpfs": {"/x": "bad=1"}}, 'invalid tmpfs option ["bad" "1"]'),
    ],
)
def test_refusals_are_no_404_and_leave_nothing(
    daemon: Daemon,
    host: dict[str, Any],
    words: str,  # noqa: F811
) -> None:
    """A 404 would make the docker command pull the image."""
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "none", **host}}
    status, answer = daemon.ask("POST", "/containers/create", body)
    assert status == 400 and words in answer["message"]
    assert daemon.ask("GET", "/containers/json?all=1")[1] == []


@pytest.mark.anywhere
@pytest.mark.parametrize("key", ["Interval", "Timeout", "StartPeriod"])
def test_a_health_check_has_time(key: str) -> None:
    check_health({key: 0})
    check_health({key: 1_000_000})
    with pytest.raises(InvalidRequest, match=f"{key} in Healthcheck cannot be less than 1ms"):
        check_health({key: 999_999})


@pytest.mark.anywhere
def test_ports_without_a_gap_are_a_range_for_links() -> None:
    tcp = [(port, "tcp") for port in (53, 80, 81, 90, 91, 92)]
    assert list(port_ranges(tcp)) == [((90, "tcp"), (92, "tcp"))]
    assert list(port_ranges([])) == []
