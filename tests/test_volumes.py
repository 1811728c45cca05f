"""Volumes: words and points without root, content and mounts with; hostile trees on both sides."""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.errors import (
    NameTaken,
    NetworkFailure,
    NoSuchPlugin,
    NoSuchVolume,
    VolumeInUse,
)
from mini_docker.engine.fill import fill
from mini_docker.engine.mountpoints import (
    check_propagation,
    collect,
    oci_mount,
    parse_bind,
    parse_mount,
    parse_tmpfs,
    point_json,
)
from mini_docker.engine.volumes import Volumes, is_mounted
from mini_docker.lab import run_in_child
from mini_docker.linux.step import apply
from mini_docker.namespaces.mnt import plan_mounts

root = pytest.mark.root


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    """Return the volumes of a data root that is not there yet."""
    return Volumes(str(tmp_path / "root"))


# --- points -------------------------------------------------------------------------------------


def test_binds_are_read() -> None:
    found = parse_bind("/srv/x/:/data:ro,rslave")
    assert (found["Type"], found["Source"], found["Destination"]) == ("bind", "/srv/x", "/data")
    assert (found["RW"], found["Propagation"], found["make"]) == (False, "rslave", True)
    assert oci_mount(found) == {
        "destination": "/data", "type": "bind", "source": "/srv/x", "options": ["rbind", "rslave", "ro"],
    }  # fmt: skip
    named = parse_bind("data:/x/../y:nocopy")
    assert (named["Type"], named["Name"], named["Destination"]) == ("volume", "data", "/y")
    assert named["RW"] and not named["copy"]
    assert point_json(named) == {
        "Type": "volume", "Name": "data", "Source": "", "Destination": "/y", "Driver": "local",
        "Mode": "nocopy", "RW": True, "Propagation": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/x", "invalid volume specification: '/x'"),
        ("/x:", "invalid volume specification: '/x:'"),
        ("/x:y", "invalid mount path: 'y' mount path must be absolute"),
        ("/x:/", "destination can't be '/'"),
        ("/x:/a/..", "destination can't be '/'"),
        ("/x:/y:zz", "invalid mode: zz"),
        ("/x:/y:ro,rw", "invalid mode: ro,rw"),
        ("/x:/y:nocopy", "field VolumeOptions must not be specified"),
        ("v1:/y:shared", "field BindOptions must not be specified"),
        ("/x:/y:ro:z", "invalid volume specification"),
    ],
)
def test_wrong_binds_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid (volume specification|mode)") as caught:
        parse_bind(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "mount", "words"),
    [
        ("x", {}, 'mount type unknown'),
        ("bind", {"Source": "/x", "Target": ""}, "field Target must not be empty"),
        ("bind", {}, "field Source must not be empty"),
        ("bind", {"Source": "x"}, "mount path must be absolute"),
        ("bind", {"Source": "/x", "VolumeOptions": {"NoCopy": True}}, "VolumeOptions must not"),
        ("bind", {"Source": "/x", "BindOptions": {"Propagation": "x"}}, "propagation mode: x"),
        ("tmpfs", {"Source": "/x"}, "field Source must not be specified"),
        ("volume", {"Source": "v1", "VolumeOptions": {"Subpath": "../x"}}, "relative path within"),
        ("volume", {"Source": "v1", "VolumeOptions": {"Subpath": "/x"}}, "relative path within"),
    ],
)  # fmt: skip
def test_wrong_mounts_in_dockers_words(kind: str, mount: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid mount config for type") as caught:
        parse_mount({"Type": kind, "Target": "/y", **mount})
    assert words in str(caught.value)


def test_mounts_are_read() -> None:
    options = {"NoCopy": True, "Subpath": "a/b", "Labels": {"x": "y"}}
    found = parse_mount(
        {
            "Type": "volume",
            "Source": "v1",
            "Target": "/y",
            "ReadOnly": True,
            "VolumeOptions": options,
        }
    )
    assert (found["Name"], found["subpath"], found["copy"], found["RW"]) == (
        "v1",
        "a/b",
        False,
        False,
    )
    assert oci_mount({**found, "Source": "/data"})["subpath"] == "a/b"
    deep = parse_mount(
        {"Type": "bind", "Source": "/x", "Target": "/y", "BindOptions": {"NonRecursive": True}}
    )
    assert oci_mount(deep)["options"] == ["bind", "rprivate"] and not deep["make"]
    tmpfs = parse_mount(
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o700}}
    )
    assert oci_mount(tmpfs)["options"] == ["noexec", "nosuid", "nodev", "size=1024", "mode=700"]
    assert oci_mount(parse_tmpfs("/t", "exec,size=1m,ro"))["options"] == [
        "nosuid",
        "nodev",
        "exec",
        "size=1m",
        "ro",
    ]
    for wrong in ("x", "size", "size=", "lowerdir=/etc"):
        with pytest.raises(InvalidRequest, match="invalid tmpfs option"):
            parse_tmpfs("/t", wrong)


def test_the_order_of_rank() -> None:
    others = {"c1": [parse_bind("/a:/one"), parse_bind("/b:/two")]}
    request = {
        "Volumes": {"/one": {}, "/four": {}},
        "HostConfig": {
            "VolumesFrom": ["c1:ro"],
            "Binds": ["/c:/two/deep", "/d:/two"],
            "Tmpfs": {"/five": ""},
        },
    }
    found = collect(request, {"Volumes": {"/five": {}, "/six/": {}}}, others)
    assert [(p["Destination"], p["Source"], p["Type"], p["RW"]) for p in found] == [
        ("/five", "", "tmpfs", True),
        ("/four", "", "volume", True),
        ("/one", "/a", "bind", False),
        ("/six", "", "volume", True),
        ("/two", "/d", "bind", True),
        ("/two/deep", "/c", "bind", True),
    ]
    with pytest.raises(InvalidRequest, match="Duplicate mount point: /x"):
        collect({"HostConfig": {"Binds": ["/a:/x", "/b:/x/"]}}, {})
    with pytest.raises(InvalidRequest, match="invalid mode: xx"):
        collect({"HostConfig": {"VolumesFrom": ["c1:xx"]}}, {})


# --- the manager --------------------------------------------------------------------------------


def test_dockers_operations(volumes: Volumes) -> None:
    made = volumes.create({"Name": "data", "Labels": {"a": "b"}})
    assert list(made) == ["CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"]
    assert made == volumes.inspect("data") == volumes.create({"Name": "data"})
    assert made["Mountpoint"].endswith("/volumes/data/_data") and os.path.isdir(made["Mountpoint"])
    anonymous = volumes.create({})["Name"]
    assert len(anonymous) == 64
    assert [v["Name"] for v in volumes.listing({"name": ["^da"]})["Volumes"]] == ["data"]
    assert [v["Name"] for v in volumes.listing({"label": ["a=b"]})["Volumes"]] == ["data"]
    used = {"data": ["c1"]}
    assert [v["Name"] for v in volumes.listing({"dangling": ["true"]}, used)["Volumes"]] == [
        anonymous
    ]
    assert [v["Name"] for v in volumes.listing({"dangling": ["0"]}, used)["Volumes"]] == ["data"]
    with pytest.raises(InvalidRequest, match="Invalid filter 'foo'"):
        volumes.listing({"foo": ["x"]})
    with pytest.raises(VolumeInUse, match=r"remove data: volume is in use - \[c1, c2\]"):
        volumes.remove("data", ["c2", "c1"])
    Path(made["Mountpoint"], "file").write_text("12345")
    volumes.create({"Name": "named"})
    assert volumes.prune(users=used, named=False) == {
        "VolumesDeleted": [anonymous],
        "SpaceReclaimed": 0,
    }
    assert volumes.prune({"label!": ["a"]}, used)["VolumesDeleted"] == ["named"]
    assert volumes.prune({"all": ["true"]}, named=False) == {
        "VolumesDeleted": ["data"],
        "SpaceReclaimed": 5,
    }
    volumes.remove("data", force=True)
    with pytest.raises(NoSuchVolume, match="get data: no such volume"):
        volumes.remove("data")
    assert os.listdir(volumes.directory) == ["lock"]


@pytest.mark.parametrize(
    "name", ["x", "-a", "a/b", "..", "../../etc", "a b", "a\n", "é", "v" * 256, ".hid"]
)
def test_wrong_names_in_dockers_words(volumes: Volumes, name: str) -> None:
    with pytest.raises(
        InvalidRequest, match="too short|includes invalid characters for a local volume name"
    ):
        volumes.create({"Name": name})
    with pytest.raises(NoSuchVolume):
        volumes.inspect(name)
    assert not os.path.exists(volumes.directory)


def test_wrong_options_in_dockers_words(volumes: Volumes) -> None:
    with pytest.raises(NoSuchPlugin, match='plugin "nosuch" not found'):
        volumes.create({"Name": "v1", "Driver": "nosuch"})
    for options, words in (
        ({"foo": "x"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "tmpfs"}, 'missing required option: "type"'),
        ({"type": "nfs", "device": ":/x", "o": "addr=192.0.2.1"}, "mount it on the host"),
        ({"size": "1g"}, "no quota support"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            volumes.create({"Name": "v1", "DriverOpts": options})
    volumes.create({"Name": "v1", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})
    with pytest.raises(NameTaken, match="already exists with other options"):
        volumes.create({"Name": "v1", "DriverOpts": {"type": "none", "device": "/x", "o": "bind"}})


def test_points_are_resolved(volumes: Volumes, tmp_path: Path) -> None:
    points = volumes.resolve(
        collect({"Volumes": {"/a": {}}, "HostConfig": {"Binds": ["data:/d"]}}, {})
    )
    assert [len(p["Name"]) for p in points] == [64, 4]
    assert all(os.path.isdir(p["Source"]) for p in points)
    missing = parse_mount({"Type": "bind", "Source": f"{tmp_path}/none", "Target": "/x"})
    with pytest.raises(InvalidRequest, match="bind source path does not exist"):
        volumes.resolve([missing])
    os.makedirs(f"{volumes.directory}/half/_data")
    volumes.recover([])
    assert "half" not in os.listdir(volumes.directory) and len(volumes.names()) == 2


# --- content ------------------------------------------------------------------------------------


def image(directory: Path) -> Path:
    """Make a root with everything that a file can be."""
    data = directory / "image" / "data"
    data.mkdir(parents=True)
    (data / "sub").mkdir(mode=0o750)
    (data / "sub" / "file").write_text("content")
    os.link(data / "sub" / "file", data / "twin")
    os.symlink("/etc/passwd", data / "link")
    os.mkfifo(data / "fifo", 0o640)
    os.chmod(data / "sub" / "file", 0o4711)
    os.chown(data / "sub" / "file", 12, 34)
    os.chmod(data / "sub" / "file", 0o4711)
    os.chown(data / "link", 5, 6, follow_symlinks=False)
    os.chmod(data, 0o1777)
    os.chown(data, 7, 8)
    os.utime(data / "sub", (1000, 2000))
    return directory / "image"


@root
def test_an_empty_volume_gets_the_images_content_as_it_is(tmp_path: Path) -> None:
    root_fd = os.open(image(tmp_path), os.O_PATH)
    target = tmp_path / "volume"
    target.mkdir()
    assert fill(root_fd, "/data", str(target))
    file, twin = (os.stat(target / name) for name in ("sub/file", "twin"))
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid, file.st_nlink) == (
        0o4711,
        12,
        34,
        2,
    )
    assert file.st_ino == twin.st_ino and (target / "sub" / "file").read_text() == "content"
    assert os.readlink(target / "link") == "/etc/passwd" and os.lstat(target / "link").st_uid == 5
    assert stat.S_ISFIFO(os.stat(target / "fifo").st_mode)
    assert stat.S_IMODE(os.stat(target / "fifo").st_mode) == 0o640
    own = os.stat(target)
    assert (stat.S_IMODE(own.st_mode), own.st_uid, own.st_gid) == (0o1777, 7, 8)
    assert os.stat(target / "sub").st_mtime == 2000
    (target / "twin").unlink()
    assert not fill(root_fd, "/data", str(target)), "only an empty one"
    for place in ("/none", "/data/twin", "/data/link"):
        empty = tmp_path / f"empty{place.replace('/', '-')}"
        empty.mkdir()
        assert not fill(root_fd, place, str(empty)) and os.listdir(empty) == []
    os.close(root_fd)


@root
def test_the_images_symlinks_do_not_lead_to_the_host(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").write_text("x")
    for name, leads in (("up", "../host"), ("absolute", str(tmp_path / "host"))):
        os.symlink(leads, tmp_path / "image" / name)
        target = tmp_path / f"volume-{name}"
        target.mkdir()
        with_root = os.open(tmp_path / "image", os.O_PATH)
        assert not fill(with_root, f"/{name}", str(target)) and os.listdir(target) == []
        os.close(with_root)


@root
def test_a_volume_that_changes_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    root_fd = os.open(image(tmp_path), os.O_PATH)
    (tmp_path / "host").mkdir()
    target = tmp_path / "volume"
    target.mkdir()
    real = os.mkdir

    def mkdir_and_swap(name: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(name, mode, dir_fd=dir_fd)
        os.rename(target / name, target / "moved")
        os.symlink(tmp_path / "host", target / name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir_and_swap)
        with pytest.raises(OSError, match="Not a directory|Too many levels"):
            fill(root_fd, "/data", str(target))
    os.close(root_fd)
    assert os.listdir(tmp_path / "host") == []


def drivers(scratch: str) -> None:
    volumes = Volumes(f"{scratch}/root")
    os.mkdir(f"{scratch}/device")
    Path(scratch, "device", "there").touch()
    volumes.create(
        {
            "Name": "memory",
            "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid"},
        }
    )
    volumes.create(
        {
            "Name": "bound",
            "DriverOpts": {"type": "none", "device": f"{scratch}/device", "o": "bind"},
        }
    )
    volumes.create(
        {"Name": "broken", "DriverOpts": {"type": "none", "device": f"{scratch}/gone", "o": "bind"}}
    )
    points = volumes.resolve([parse_bind("memory:/m"), parse_bind("bound:/b")])
    root_fd = os.open("/", os.O_PATH)
    for container in ("a" * 64, "b" * 64):
        volumes.prepare(points, container, root_fd)
    data = volumes.data("memory")
    assert is_mounted(data) and os.statvfs(data).f_blocks * os.statvfs(data).f_frsize == 1 << 20
    assert os.listdir(volumes.data("bound")) == ["there"]
    Path(data, "shared").touch()
    volumes.release("a" * 64)
    assert os.listdir(data) == ["shared"]
    volumes.recover(["b" * 64])
    assert is_mounted(data)
    volumes.recover([])
    assert not is_mounted(data) and not is_mounted(volumes.data("bound"))
    with pytest.raises(
        NetworkFailure, match="failed to mount local volume: .*: no such file or directory"
    ):
        volumes.prepare(volumes.resolve([parse_bind("broken:/x")]), "a" * 64, root_fd)
    assert os.listdir(f"{volumes.directory}/broken/users") == []
    volumes.prepare(points, "c" * 64, root_fd)
    volumes.remove("bound")
    assert os.listdir(f"{scratch}/device") == ["there"], "what was bound stays"
    volumes.remove("memory")


@root
def test_the_local_drivers_options(tmp_path: Path) -> None:
    outcome = run_in_child(drivers, str(tmp_path))
    assert outcome.status == 0, outcome.output or outcome.error


def sub_mounted(volume: str, root: str) -> list[list[str]]:
    """Mount sub-paths of a hostile volume; return what is to be seen at each place."""
    seen = []
    for subpath in ("good", "absolute", "climbing", "none"):
        target = f"{root}/{subpath}"
        os.mkdir(target)
        mount = oci_mount({**parse_bind("v1:/x"), "Source": volume, "subpath": subpath})
        document = {
            "root": {"path": root},
            "mounts": [{**mount, "destination": f"/{subpath}"}],
            "linux": {"namespaces": [{"type": "mount"}]},
        }
        try:
            apply(plan_mounts(document))
        except OSError as error:
            seen.append([errno.errorcode[error.errno or 0]])
            continue
        seen.append(os.listdir(target))
    return seen


@root
def test_a_sub_path_stays_in_its_volume(tmp_path: Path) -> None:
    for place in ("volume/good/inside", "host/secret", "root"):
        (tmp_path / place).mkdir(parents=True)
    os.symlink("/good", tmp_path / "volume" / "absolute")
    os.symlink("../host", tmp_path / "volume" / "climbing")
    outcome = run_in_child(sub_mounted, str(tmp_path / "volume"), str(tmp_path / "root"))
    assert outcome.value == [
        ["inside"],
        ["inside"],
        ["ENOENT"],
        ["ENOENT"],
    ], outcome


@root
def test_missing_sources_are_made_by_v_alone(volumes: Volumes, tmp_path: Path) -> None:
    points = volumes.resolve([parse_bind(f"{tmp_path}/new/deep:/x")])
    root_fd = os.open("/", os.O_PATH)
    volumes.prepare(points, "a" * 64, root_fd)
    os.close(root_fd)
    assert (tmp_path / "new" / "deep").is_dir()


MOUNTINFO = """\
20 1 0:1 / / rw - ext4 /dev/vda rw
21 20 0:2 / /shared\\040one rw shared:7 - tmpfs x rw
22 20 0:3 / /follows rw master:7 - tmpfs x rw
23 21 0:4 / /shared\\040one/private rw - tmpfs x rw
"""


@pytest.mark.parametrize(
    ("source", "mode", "words"),
    [
        ("/shared one/x", "rshared", ""),
        ("/shared one/x", "rslave", ""),
        ("/follows", "slave", ""),
        ("/follows", "shared", "path /follows is mounted on /follows but it is not a shared mount"),
        (
            "/shared one/private",
            "rslave",
            "on /shared one/private but it is not a shared or slave mount",
        ),
        ("/sharedone", "rshared", "path /sharedone is mounted on / but"),
        ("/x", "rprivate", ""),
        ("volume", "", ""),
    ],
)
def test_propagation_needs_a_source_that_has_it(source: str, mode: str, words: str) -> None:
    found = parse_bind(f"{source}:/d:{mode}" if mode else f"{source}:/d")
    if not words:
        check_propagation(found, MOUNTINFO)
        return
    with pytest.raises(InvalidRequest, match=words):
        check_propagation(found, MOUNTINFO)


def test_of_two_who_remove_a_volume_one_does(volumes: Volumes) -> None:
    """`docker rm -v A B` removes both at once, and a volume that they share with them."""
    volumes.create({"Name": "shared"})
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(volumes.remove, "shared", (), True) for _ in range(8)]
        assert [one.result() for one in found] == [None] * 8
    assert volumes.names() == []
