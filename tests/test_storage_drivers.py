"""The storage drivers: the same tests for all, for they differ in what they copy, not in what they answer."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images.pack import pack
from mini_docker.images.unpack import unpack_pieces
from mini_docker.lab import run_in_child
from mini_docker.storage.driver import DRIVERS, Driver, Root, disk_usage, open_driver
from mini_docker.storage.overlay import remove_tree
from mini_docker.storage.subvolume import create_subvolume
from mini_docker.storage.tree import OPAQUE, Copier, tree_changes
from tests.conftest import cannot_run_here

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A btrfs file system in a file."""
    if not shutil.which("mkfs.btrfs"):
        cannot_run_here("there is no mkfs.btrfs (remedy: sudo apt-get install btrfs-progs)")
    folder = tmp_path_factory.mktemp("btrfs")
    with open(folder / "disk", "wb") as disk:
        disk.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", folder / "disk"], check=True)
    (folder / "there").mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop", folder / "disk", folder / "there"], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        cannot_run_here(f"btrfs cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield folder / "there"
    finally:
        subprocess.run(["umount", folder / "there"], check=True)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    if request.param == "btrfs":
        there: Path = request.getfixturevalue("btrfs")
        return open_driver("btrfs", str(there / tmp_path.name))
    return open_driver(request.param, str(tmp_path / "home"))


def scratch(driver: Driver, name: str) -> Path:
    """Return a new directory on the driver's own file system, as an unpacker makes it."""
    path = Path(driver.home, name)
    path.mkdir()
    return path


def base_layer(driver: Driver) -> None:
    diff = scratch(driver, "base-diff")
    for name in ("etc/apt", "usr/bin", "var/log"):
        (diff / name).mkdir(parents=True)
    (diff / "etc/version").write_text("old")
    (diff / "etc/apt/sources").write_text("list")
    (diff / "etc/apt/keys").write_text("keys")
    (diff / "usr/bin/tool").write_text("tool")
    (diff / "usr/bin/tool").chmod(0o4755)
    (diff / "usr/bin/same").hardlink_to(diff / "usr/bin/tool")
    (diff / "etc/link").symlink_to("/etc/passwd")
    (diff / "var/log/messages").write_text("long")
    os.setxattr(diff / "etc/version", "user.note", b"kept")
    os.chown(diff / "etc/version", 1000, 1001)
    driver.add_layer("base", (), str(diff))


def second_layer(driver: Driver) -> None:
    """A layer that changes, adds and deletes a name, and replaces a whole directory."""
    diff = scratch(driver, "second-diff")
    (diff / "etc").mkdir()
    (diff / "etc/version").write_text("new")
    (diff / "opt").mkdir()
    (diff / "opt/program").write_text("program")
    (diff / "var").mkdir()
    os.mknod(diff / "var/log", stat.S_IFCHR, 0)
    (diff / "etc/apt").mkdir()
    os.setxattr(diff / "etc/apt", OPAQUE, b"y")
    (diff / "etc/apt/sources").write_text("other")
    driver.add_layer("second", ("base",), str(diff))


def two_layers(driver: Driver) -> Root:
    base_layer(driver)
    second_layer(driver)
    root = Root("container", ("base", "second"), volatile=False)
    driver.make_root(root)
    return root


def inside(driver: Driver, root: Root, act: Callable[[str], Any]) -> Any:
    """Return what `act(path of the root)` returns, in a child with the root opened."""

    def visit() -> Any:
        return act(f"/proc/self/fd/{driver.open_root(root)}")

    outcome = run_in_child(visit)
    assert outcome.error is None, outcome.error
    return outcome.value


def listing(path: str) -> dict[str, tuple[Any, ...]]:
    """Return everything below a directory that a container can see and that does not change by itself."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, names, files in os.walk(f"{path}/."):
        for name in (*names, *files):
            file = f"{directory}/{name}"
            status = os.lstat(file)
            what: object = None
            if stat.S_ISLNK(status.st_mode):
                what = os.readlink(file)
            elif stat.S_ISREG(status.st_mode):
                what = Path(file).read_text()
            found[file.partition("/./")[2]] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                what,
            )
    return found


def test_layers_are_seen_as_one_tree(driver: Driver) -> None:
    root = two_layers(driver)
    seen = inside(driver, root, listing)
    assert set(seen) == {
        "etc", "etc/apt", "etc/apt/sources", "etc/link", "etc/version", "opt", "opt/program",
        "usr", "usr/bin", "usr/bin/same", "usr/bin/tool", "var",
    }  # fmt: skip
    assert seen["etc/version"][3] == "new" and seen["etc/apt/sources"][3] == "other"
    assert seen["usr/bin/tool"] == (oct(0o104755), 0, 0, "tool")
    assert seen["etc/link"][3] == "/etc/passwd"


def test_what_a_lower_layer_says_of_a_file_is_kept(driver: Driver) -> None:
    base_layer(driver)
    root = Root("container", ("base",), volatile=False)
    driver.make_root(root)

    def look(path: str) -> tuple[Any, ...]:
        status = os.lstat(f"{path}/etc/version")
        links = os.lstat(f"{path}/usr/bin/tool").st_nlink
        return os.getxattr(f"{path}/etc/version", "user.note"), status.st_uid, status.st_gid, links

    assert inside(driver, root, look) == (b"kept", 1000, 1001, 2)


def change(path: str) -> None:
    """Be a container: add, change, delete, replace a directory by a file, and one directory by another."""
    os.makedirs(f"{path}/srv/www")
    Path(path, "srv/www/page").write_text("hello")
    Path(path, "etc/version").write_text("newest")
    os.unlink(f"{path}/usr/bin/same")
    shutil.rmtree(f"{path}/opt")
    Path(path, "opt").write_text("a file now")
    shutil.rmtree(f"{path}/etc/apt")
    os.mkdir(f"{path}/etc/apt")
    Path(path, "etc/apt/mirror").write_text("m")
    os.symlink("nowhere", f"{path}/var/link")


CHANGES = """
    C /etc, C /etc/apt, A /etc/apt/mirror, D /etc/apt/sources, C /etc/version, C /opt, A /srv, A /srv/www,
    A /srv/www/page, C /usr, C /usr/bin, D /usr/bin/same, C /var, A /var/link
"""


def test_changes_are_named_as_docker_diff_names_them(driver: Driver) -> None:
    root = two_layers(driver)
    assert driver.changes(root) == []
    inside(driver, root, change)
    assert [" ".join(line) for line in driver.changes(root)] == [
        line.strip() for line in CHANGES.split(",")
    ]


def test_the_diff_is_a_layer_that_makes_the_same_tree(driver: Driver) -> None:
    """From a container's changes to a tar, back to a layer, and a container on it: nothing is lost."""
    root = two_layers(driver)
    inside(driver, root, change)
    wanted = inside(driver, root, listing)
    with driver.diff(root) as upper:
        tar = b"".join(pack(upper, overlay=True))
    unpacked = scratch(driver, "third-diff")
    unpack_pieces([tar], str(unpacked))
    driver.add_layer("third", ("base", "second"), str(unpacked))
    again = Root("again", ("base", "second", "third"), volatile=False)
    driver.make_root(again)
    assert inside(driver, again, listing) == wanted
    assert driver.changes(again) == []


def test_all_drivers_write_the_same_layer(driver: Driver) -> None:
    root = two_layers(driver)
    inside(driver, root, change)
    with driver.diff(root) as upper:
        names = sorted(
            os.path.relpath(os.path.join(directory, name), upper)
            for directory, below, files in os.walk(upper)
            for name in (*below, *files)
        )
        gone = [name for name in names if stat.S_ISCHR(os.lstat(os.path.join(upper, name)).st_mode)]
    expected = {"etc/version", "etc/apt/mirror", "opt", "srv/www/page", "var/link", "usr/bin/same"}
    assert expected <= set(names)
    assert "usr/bin/tool" not in names and "usr/bin/same" in gone
    assert os.listdir(f"{driver.home}/making") == []


def test_containers_do_not_see_each_other(driver: Driver) -> None:
    root = two_layers(driver)
    other = Root("other", root.layers, volatile=False)
    driver.make_root(other)
    before = inside(driver, other, listing)
    inside(driver, root, change)
    assert inside(driver, other, listing) == before
    assert driver.changes(other) == []


def test_repeating_changes_nothing(driver: Driver) -> None:
    root = two_layers(driver)
    inside(driver, root, change)
    driver.make_root(root)
    base = scratch(driver, "once-more")
    driver.add_layer("base", (), str(base))
    assert inside(driver, root, lambda path: Path(path, "etc/version").read_text()) == "newest"


def test_removal_leaves_nothing(driver: Driver) -> None:
    root = two_layers(driver)
    inside(driver, root, change)
    for _ in range(2):
        driver.remove_root(root.key)
        driver.remove_layer("second")
        driver.remove_layer("base")
    for part in ("roots", "layers", "making"):
        assert os.listdir(f"{driver.home}/{part}") == []


def test_what_a_killed_process_was_making_goes_with_the_next_start(driver: Driver) -> None:
    base_layer(driver)
    if driver.name == "btrfs":
        create_subvolume(f"{driver.home}/making/half")
    else:
        os.mkdir(f"{driver.home}/making/half")
    Path(driver.home, "making/half/file").touch()
    with driver.lock():
        DRIVERS[driver.name](driver.home)
        assert os.listdir(f"{driver.home}/making") == ["half"]  # somebody is at work
    DRIVERS[driver.name](driver.home)
    assert os.listdir(f"{driver.home}/making") == []
    assert driver.has_layer("base")


def test_usage_counts_what_a_container_wrote(driver: Driver) -> None:
    base_layer(driver)
    root = Root("container", ("base",), volatile=False)
    driver.make_root(root)
    before = driver.usage("container")

    def write(path: str) -> None:
        with open(f"{path}/big", "wb") as file:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())

    inside(driver, root, write)
    assert (1 << 20) <= driver.usage("container") - before < (3 << 20)


def test_a_link_in_the_place_of_a_directory_leads_nowhere(driver: Driver, tmp_path: Path) -> None:
    """A container swaps a directory for a link to the host: the diff has the link, not the host."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("secret")
    root = two_layers(driver)

    def attack(path: str) -> None:
        shutil.rmtree(f"{path}/etc")
        os.symlink(tmp_path / "host", f"{path}/etc")

    inside(driver, root, attack)
    assert ("C", "/etc") in [tuple(line) for line in driver.changes(root)]
    assert not any("secret" in line.path for line in driver.changes(root))
    with driver.diff(root) as upper:
        assert os.path.islink(f"{upper}/etc")
        assert b"secret\0" not in b"".join(pack(upper, overlay=True))


def test_a_container_may_have_made_subvolumes(btrfs: Path, tmp_path: Path) -> None:
    """They need no privilege on btrfs, and the kernel removes no subvolume that has others in it."""
    driver = open_driver("btrfs", str(btrfs / "nested"))
    base_layer(driver)
    driver.make_root(Root("container", ("base",), volatile=False))
    path = driver.root_path("container")
    create_subvolume(f"{path}/mine")
    os.mkdir(f"{path}/mine/deep")
    create_subvolume(f"{path}/mine/deep/er")
    Path(path, "mine/deep/er/file").touch()
    driver.remove_root("container")
    assert os.listdir(f"{driver.home}/roots") == os.listdir(f"{driver.home}/making") == []


def test_a_deep_tree_on_btrfs_is_removed(btrfs: Path) -> None:
    """Its readdir(3) does not show what was moved up since the directory was opened."""
    (btrfs / "deep/er/and/deep/er").mkdir(parents=True)
    remove_tree(str(btrfs / "deep"))
    assert not (btrfs / "deep").exists()


def test_a_whole_layer_of_btrfs_cannot_be_written(btrfs: Path) -> None:
    driver = open_driver("btrfs", str(btrfs / "readonly"))
    base_layer(driver)
    with pytest.raises(OSError, match="Read-only file system"):
        Path(driver.layer_path("base"), "etc/version").write_text("tampered")


def test_btrfs_elsewhere_is_refused_with_the_remedy(tmp_path: Path) -> None:
    here = subprocess.run(["stat", "-fc", "%T", tmp_path], capture_output=True, text=True).stdout
    if here.strip() == "btrfs":
        cannot_run_here("the tests' own directory lies on btrfs")
    with pytest.raises(ValueError, match=r"^storage driver btrfs: .* does not lie on btrfs .*mkfs"):
        open_driver("btrfs", str(tmp_path / "home"))
    with pytest.raises(
        ValueError, match="^no storage driver 'zfs': there are overlay, btrfs, vfs$"
    ):
        open_driver("zfs", str(tmp_path))


def test_a_disk_that_is_full_leaves_no_half_layer(tmp_path: Path) -> None:
    def fill() -> tuple[int | None, list[str], list[str]]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
        driver = open_driver("vfs", str(tmp_path / "home"))
        diff = scratch(driver, "diff")
        (diff / "file").write_bytes(bytes(700_000))
        (diff / "file").write_bytes(b"x" * 700_000)
        number = None
        try:
            driver.add_layer("base", (), str(diff))
        except OSError as error:
            number = error.errno
        return number, os.listdir(tmp_path / "home/layers"), os.listdir(tmp_path / "home/making")

    assert run_in_child(fill).value == (28, [], [])


def test_a_copy_keeps_holes_and_shares_no_data(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with open(tmp_path / "tree/sparse", "wb") as file:
        file.truncate(10 << 20)
        file.seek(5 << 20)
        file.write(b"middle")
    Copier().copy_tree(str(tmp_path / "tree"), str(tmp_path / "copy"))
    copied = tmp_path / "copy/sparse"
    assert copied.read_bytes() == (tmp_path / "tree/sparse").read_bytes()
    assert copied.stat().st_blocks * 512 < 1 << 20
    assert tree_changes(str(tmp_path / "tree"), str(tmp_path / "copy")) == []
    assert disk_usage(str(tmp_path / "copy")) < 1 << 20


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe")
    Copier().copy_tree(str(tmp_path / "tree"), str(tmp_path / "copy"))
    assert stat.S_ISFIFO(os.lstat(tmp_path / "copy/pipe").st_mode)


def test_the_lock_is_let_go(driver: Driver) -> None:
    with driver.lock():
        pass
    with driver.lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as had:
        assert had
