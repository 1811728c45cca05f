"""The engine on each storage driver: the same answers from all, and a data root that is never mixed."""

from __future__ import annotations

import io
import os
import pathlib
import signal
import tarfile

import pytest

from mini_docker.api.daemon import main
from mini_docker.engine.roots import CHOICES, MARK, choose_roots
from tests.daemons import Daemon, UnixConnection
from tests.test_storage_drivers import btrfs

pytestmark = pytest.mark.root
__all__ = ["btrfs"]  # a fixture

CHANGE = "echo new > /etc/motd; rm /bin/vi; mkdir /s; chown 7:8 /s; mv /s /srv; sleep 1000"
CHANGED = [("C", "/bin"), ("D", "/bin/vi"), ("C", "/etc"), ("A", "/etc/motd"), ("A", "/srv")]


def fetch(daemon: Daemon, path: str) -> tarfile.TarFile:
    connection = UnixConnection(daemon.path)
    connection.request("GET", path)
    data = connection.getresponse().read()
    connection.close()
    return tarfile.open(fileobj=io.BytesIO(data))


def test_a_container_on_copies(tmp_path: pathlib.Path, leak_free: None) -> None:
    live_on("vfs", tmp_path)


def test_a_container_on_snapshots(
    btrfs: pathlib.Path, tmp_path: pathlib.Path, leak_free: None
) -> None:
    (btrfs / tmp_path.name).mkdir()
    live_on("btrfs", btrfs / tmp_path.name)


def live_on(name: str, root: pathlib.Path) -> None:
    (root / MARK).write_text(name)
    daemon = Daemon(root)
    try:
        live(daemon, name)
    finally:
        daemon.close()


def live(daemon: Daemon, name: str) -> None:
    info = daemon.ask("GET", "/info")[1]
    assert info["Driver"] == name
    container_id = daemon.run("web", "sh", "-c", CHANGE)
    shown = daemon.ask("GET", "/containers/web/json")[1]
    assert (shown["Driver"], shown["GraphDriver"]) == (name, {"Name": name, "Data": None})
    wait_for_change(daemon)
    kinds = {0: "C", 1: "A", 2: "D"}
    found = daemon.ask("GET", "/containers/web/changes")[1]
    assert [(kinds[one["Kind"]], one["Path"]) for one in found] == CHANGED
    used = daemon.ask("GET", "/system/df")[1]["Containers"]
    assert [one["SizeRw"] for one in used] == [4]
    status, made = daemon.ask("POST", "/commit?container=web&repo=mine", {})
    assert status == 201
    daemon.run("second", "sh", "-c", "cat /etc/motd; ls -nd /srv; ls /bin/vi", Image="mine")
    daemon.ask("POST", "/containers/second/wait")
    words = daemon.logs("second").decode(errors="replace")
    assert "new\n" in words and " 7 " in words and "No such file" in words
    with fetch(daemon, "/containers/web/export") as archive:
        names = archive.getnames()
        assert "etc/motd" in names and "bin/vi" not in names
        assert archive.getmember("srv").uid == 7
    daemon.ask("POST", "/containers/web/kill")
    daemon.kill(signal.SIGTERM)
    daemon.start()
    assert daemon.ask("POST", "/containers/web/start") == (204, "")
    with fetch(daemon, "/containers/web/archive?path=/etc/motd") as archive:
        assert archive.extractfile("motd").read() == b"new\n"  # type: ignore[union-attr]
    assert container_id in os.listdir(daemon.root / name / "roots")
    for name_of in ("web", "second"):
        assert daemon.ask("DELETE", f"/containers/{name_of}?force=1")[0] == 204
    assert os.listdir(daemon.root / name / "roots") == []


def wait_for_change(daemon: Daemon) -> None:
    while not any(
        one["Path"] == "/srv" for one in daemon.ask("GET", "/containers/web/changes")[1] or ()
    ):
        assert daemon.state("web")["Running"]


def test_what_is_chosen_stays_chosen(tmp_path: pathlib.Path) -> None:
    assert choose_roots(str(tmp_path), "vfs").name == "vfs"
    assert choose_roots(str(tmp_path)).name == "vfs"
    with pytest.raises(ValueError, match=r"was made with vfs; remedy: --storage-driver vfs, or"):
        choose_roots(str(tmp_path), "overlay")
    with pytest.raises(ValueError, match=r"zfs: driver not supported; there are overlay2, "):
        choose_roots(str(tmp_path), "zfs")


def test_a_data_root_from_before_the_choice_is_on_overlay(tmp_path: pathlib.Path) -> None:
    (tmp_path / "containers" / "x").mkdir(parents=True)
    with pytest.raises(ValueError, match="was made with overlay2"):
        choose_roots(str(tmp_path), "vfs")


@pytest.mark.parametrize("words", [["--storage-driver", "btrfs"], ["-s", "aufs"]])
def test_an_impossible_driver_ends_the_daemon_with_one_line(
    words: list[str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data-root", str(tmp_path), *words]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "Traceback" not in line
    assert f"storage driver {words[1]}: " in line
    assert not (tmp_path / MARK).exists()


def test_the_first_that_works_is_taken(tmp_path: pathlib.Path) -> None:
    assert choose_roots(str(tmp_path)).name in CHOICES
    assert (tmp_path / MARK).read_text().strip() in CHOICES
    assert not [name for name in os.listdir(tmp_path) if name.startswith("trial")]
