"""Unpacked layers: they go with the last image or container that needs them, and never sooner."""

from __future__ import annotations

import os
import pathlib
import signal
import threading

import pytest

from mini_docker.engine.launch import unpack_layers
from mini_docker.engine.layers import Layers
from mini_docker.engine.roots import MARK
from mini_docker.engine.store import Store
from mini_docker.images import catalog
from mini_docker.images.archive import import_tree
from mini_docker.images.busybox import install_busybox
from mini_docker.images.layout import Digest
from mini_docker.images.pack import pack
from mini_docker.images.remove import prune, remove
from tests.daemons import Daemon
from tests.test_remap import Remapped, base
from tests.test_storage_drivers import btrfs

pytestmark = pytest.mark.root
__all__ = ["base", "btrfs"]  # fixtures

DIFFERENT = "echo new > /etc/motd"


def unpacked(daemon: Daemon) -> list[int]:
    """Return how many layers lie in each place of the daemon's data root that has some."""
    places = (daemon.root / "layers", *daemon.root.glob("*/layers"))
    return [len(os.listdir(place)) for place in places if place.is_dir()]


def commit_and_use(daemon: Daemon) -> None:
    """Make the image `mine`, of busybox and one layer more, and a container `user` of it."""
    daemon.run("first", "sh", "-c", DIFFERENT)
    daemon.ask("POST", "/containers/first/wait")
    assert daemon.ask("POST", "/commit?container=first&repo=mine", {})[0] == 201
    assert daemon.ask("DELETE", "/containers/first")[0] == 204
    daemon.run("user", "cat", "/etc/motd", Image="mine")
    daemon.ask("POST", "/containers/user/wait")


def live_and_go(daemon: Daemon) -> None:
    commit_and_use(daemon)
    assert set(unpacked(daemon)) == {2}
    assert daemon.ask("DELETE", "/images/mine")[0] == 409
    assert daemon.ask("DELETE", "/images/mine?force=1")[0] == 200
    assert set(unpacked(daemon)) == {2}  # the container stands on them
    daemon.kill(signal.SIGKILL)
    daemon.start()
    assert daemon.ask("POST", "/containers/user/start") == (204, "")
    daemon.ask("POST", "/containers/user/wait")
    assert daemon.logs("user").count(b"new\n") == 2
    assert daemon.ask("DELETE", "/containers/user")[0] == 204
    assert set(unpacked(daemon)) == {1}  # the image busybox stands on it
    commit_and_use(daemon)
    assert daemon.ask("DELETE", "/containers/user")[0] == 204
    assert set(unpacked(daemon)) == {2}
    pruned = daemon.ask("POST", '/images/prune?filters={"dangling":["false"]}')
    assert pruned[0] == 200
    assert set(unpacked(daemon)) == {0}


def on_driver(name: str, root: pathlib.Path) -> None:
    (root / MARK).write_text(name)
    daemon = Daemon(root)
    try:
        live_and_go(daemon)
    finally:
        daemon.close()


@pytest.mark.parametrize("name", ["overlay2", "vfs"])
def test_layers_go_with_the_last_that_needs_them(
    name: str, tmp_path: pathlib.Path, leak_free: None
) -> None:
    on_driver(name, tmp_path)


def test_snapshots_go_too(btrfs: pathlib.Path, tmp_path: pathlib.Path, leak_free: None) -> None:
    (btrfs / tmp_path.name).mkdir()
    on_driver("btrfs", btrfs / tmp_path.name)


def test_layers_of_a_remapped_root_go_too(base: pathlib.Path, leak_free: None) -> None:
    daemon = Remapped(base)
    try:
        live_and_go(daemon)
    finally:
        daemon.close()


def test_a_start_removes_what_a_killed_daemon_left(tmp_path: pathlib.Path) -> None:
    daemon = Daemon(tmp_path)
    try:
        daemon.create("user", "true")
        before = os.listdir(tmp_path / "layers")
        daemon.kill(signal.SIGKILL)
        for name in ("0" * 64, f"{'1' * 64}.gone.tmp"):  # before the name is taken, and after
            (tmp_path / "layers" / name / "etc").mkdir(parents=True)
        daemon.start()
        assert os.listdir(tmp_path / "layers") == before
        assert daemon.ask("POST", "/containers/user/start") == (204, "")
    finally:
        daemon.close()


def test_a_layer_in_use_stays_beside_cleaners(tmp_path: pathlib.Path) -> None:
    """Nobody but who is at work needs the layer: in its hands it never vanishes, after that it does."""
    store = Store(str(tmp_path))
    install_busybox(store.layout)
    image = catalog.find(store.layout, "busybox").image
    store.layout.untag("busybox:latest")
    diff_ids, ended = image.config["rootfs"]["diff_ids"], threading.Event()
    layer = tmp_path / "layers" / Digest(diff_ids[0]).encoded
    layers = Layers(store, list)

    def clean() -> None:
        while not ended.is_set():
            layers.clean()

    lease = store.layout.lease()
    with lease as held:
        held.hold(image.layers[0].digest)
        remove(store.layout, image.id, force=True)
        cleaners = [threading.Thread(target=clean) for _ in range(2)]
        for cleaner in cleaners:
            cleaner.start()
        try:
            for _ in range(5):
                with layers.held(diff_ids):
                    unpack_layers(store, image)
                    for _ in range(50):
                        assert (layer / "bin").is_dir()
        finally:
            ended.set()
            for cleaner in cleaners:
                cleaner.join()
    layers.clean()
    assert os.listdir(tmp_path / "layers") == []


def test_a_damaged_index_removes_nothing(tmp_path: pathlib.Path) -> None:
    """It says nothing of what is needed: all stays, and the daemon starts."""
    store = Store(str(tmp_path))
    (tmp_path / "layers" / ("0" * 64)).mkdir()
    store.layout.create()
    (tmp_path / "images/index.json").write_text("{")
    Layers(store, list).clean()
    assert os.listdir(tmp_path / "layers") == ["0" * 64]


def test_a_new_data_root_can_be_pruned_and_filled(tmp_path: pathlib.Path) -> None:
    """The first thing that anybody asks of a daemon may be a load, an import or a prune: not only a pull."""
    store = Store(str(tmp_path))
    assert prune(store.layout) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    (tmp_path / "tree").mkdir()
    tree = pack(str(tmp_path / "tree"), time=0)
    made = import_tree(store.layout, tree, "mine:1", {}, "2026-01-01T00:00:00Z")
    assert catalog.find(Store(str(tmp_path)).layout, "mine:1").image.id == made
