"""Images in and out of one file, and what one asks of a store; with real peers where they are here."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images.archive import import_tree, load, load_directory, save
from mini_docker.images.catalog import find, history, inspect, list_images, records, stacks
from mini_docker.images.ingest import collect
from mini_docker.images.layers import remove_layers, unpack_layer
from mini_docker.images.layout import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    Digest,
    ImageError,
    Layout,
    NoSuchImage,
    as_json,
    this_platform,
)
from mini_docker.images.remove import ImageConflict, User, prune, remove
from tests.conftest import cannot_run_here
from tests.test_store import blobs, in_fork, layout, leftovers, new_layout  # noqa: F401 (a fixture)

ARCHITECTURE = this_platform().partition("/")[2]


def layer_tar(**files: bytes) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("_", "/"))
            info.size, info.mtime = len(data), 1_500_000_000
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def make(
    layout: Layout,
    name: str = "",
    packing: str = "",
    docker: bool = False,
    layers: tuple[bytes, ...] = (),
    **config: Any,
) -> Descriptor:
    """Store an image of two layers in `packing` (or of `layers`), and name it."""
    tars = layers or (layer_tar(etc_one=b"1" * 5000), layer_tar(etc_two=b"2" * 5000))
    packed = [pack_with(tar, packing) for tar in tars]
    kind = (DOCKER_LAYER + (f".{packing}" if packing else "")) if docker else (
        MEDIA_TYPE_LAYER + (f"+{packing}" if packing else ""))  # fmt: skip
    document = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {"Cmd": ["sh"], "Labels": {"a": "1", "b": ""}},
        "history": [{"created_by": "ADD one", "created": "2023-01-01T00:00:00Z"},
                    {"created_by": "CMD sh", "empty_layer": True},
                    {"created_by": "ADD two", "comment": "second"}],
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]},
    }  # fmt: skip
    stored = layout.put(
        json.dumps({**document, **config}).encode(), DOCKER_CONFIG if docker else MEDIA_TYPE_CONFIG
    )
    media_type = DOCKER_MANIFEST if docker else MEDIA_TYPE_MANIFEST
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": as_json(stored),
                "layers": [as_json(layout.put(data, kind)) for data in packed]}  # fmt: skip
    descriptor = layout.put(json.dumps(manifest).encode(), media_type)
    if name:
        layout.tag(name, descriptor)
    return descriptor


def pack_with(data: bytes, packing: str) -> bytes:
    if packing == "zstd":
        if shutil.which("zstd") is None:
            cannot_run_here("zstd is not installed (remedy: apt-get install zstd)")
        return subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout
    return gzip.compress(data, mtime=0) if packing else data


def saved(layout: Layout, *names: str) -> bytes:
    return b"".join(save(layout, [(find(layout, n).image, find(layout, n).names) for n in names]))


FORMS = {"plain": {}, "gzip": {"packing": "gzip"}, "zstd": {"packing": "zstd"},
         "docker": {"docker": True, "packing": "gzip"}}  # fmt: skip
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


# ---- save and load ----


@every_form
def test_what_is_saved_is_loaded_with_the_same_digests(
    layout: Layout, tmp_path: Path, form: Any
) -> None:
    descriptor = make(layout, "team/app:1", **form)
    layout.tag("app", descriptor)
    data = saved(layout, "app")
    assert data == saved(layout, "app")
    other = new_layout(tmp_path / "other")
    loaded = load(other, [data[i : i + 777] for i in range(0, len(data), 777)])
    assert [(sorted(one.names), one.id) for one in loaded] == [
        (["app:latest", "team/app:1"], layout.image("app").id)]  # fmt: skip
    assert other.image("team/app:1") == layout.image("team/app:1")
    assert leftovers(other) == []
    assert (blobs(other), collect(other)) == (4, [])


def test_a_compressed_archive_is_loaded_and_so_is_a_directory(
    layout: Layout, tmp_path: Path
) -> None:
    make(layout, "app")
    one, other = new_layout(tmp_path / "one"), new_layout(tmp_path / "other")
    assert load(one, [gzip.compress(saved(layout, "app"))])[0].names == ("app:latest",)
    assert load_directory(other, layout.directory)[0].names == ("app:latest",)
    assert one.image("app") == other.image("app") == layout.image("app")


def test_an_image_without_a_name_is_saved_by_its_id(layout: Layout, tmp_path: Path) -> None:
    layout.keep(make(layout))
    image_id = records(layout)[0].image.id
    other = new_layout(tmp_path / "other")
    assert load(other, [saved(layout, image_id[7:19])])[0] == (image_id, ())
    assert find(other, image_id).names == ()


def docker_archive(layout: Layout, name: str, old: bool) -> bytes:
    """Return what docker save of versions 1.10 to 24 (or, `old`, before) writes of an image."""
    image = layout.image(name)
    files: dict[str, bytes] = {}
    paths, parent = [], ""
    for number, layer in enumerate(image.layers):
        folder = f"{number:064x}"
        files[f"{folder}/layer.tar"] = layout.open_blob(layer.digest).read()
        about: dict[str, Any] = {"id": folder, "parent": parent, "created": "2020-01-01T00:00:00Z"}
        about |= {"config": {"Cmd": ["sh"]}, "architecture": ARCHITECTURE, "os": "linux"}
        files[f"{folder}/json"] = json.dumps(about).encode()
        files[f"{folder}/VERSION"] = b"1.0"
        paths.append(f"{folder}/layer.tar")
        parent = folder
    files["repositories"] = json.dumps({"old": {"1": parent}}).encode()
    if not old:
        config = f"{Digest(image.id).encoded}.json"
        files[config] = layout.open_blob(image.id).read()
        table = [{"Config": config, "RepoTags": ["old:1"], "Layers": paths}]
        files["manifest.json"] = json.dumps(table).encode()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def test_an_archive_of_docker_20_is_loaded(layout: Layout, tmp_path: Path) -> None:
    make(layout, "app")
    other = new_layout(tmp_path / "other")
    assert load(other, [docker_archive(layout, "app", old=False)])[0].names == ("old:1",)
    assert other.image("old:1").id == layout.image("app").id


def test_an_archive_from_before_there_were_digests_is_loaded(
    layout: Layout, tmp_path: Path
) -> None:
    make(layout, "app")
    other = new_layout(tmp_path / "other")
    load(other, [docker_archive(layout, "app", old=True)])
    image = other.image("old:1")
    assert image.config["rootfs"] == layout.image("app").config["rootfs"]
    assert image.config["config"] == {"Cmd": ["sh"]}


def with_files(**files: bytes) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_json", ".json"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


ZERO = "0" * 64
ENTRY = json.dumps({"manifests": [{"digest": f"sha256:{ZERO}", "size": 1}]}).encode()
BAD: dict[str, bytes] = {
    "nothing": b"",
    "no tar": b"#!/bin/sh\n" * 200,
    "a tar of something else": layer_tar(etc_passwd=b"root"),
    "a table that is no JSON": with_files(manifest_json=b"{"),
    "a table that is no list": with_files(manifest_json=b"5"),
    "a table of numbers": with_files(manifest_json=b"[5]"),
    "a table without layers": with_files(manifest_json=b'[{"Config": "c.json"}]'),
    "a table that names what is not there": with_files(manifest_json=b'[{"Config": "c", "Layers": []}]'),
    "a table that leads out": with_files(manifest_json=b'[{"Config": "../../etc/passwd", "Layers": []}]'),
    "an index of nothing that is there": with_files(index_json=ENTRY),
    "an index without entries' digests": with_files(index_json=b'{"manifests": [{}]}'),
    "an index that is a list": with_files(index_json=b"[]"),
    "a blob under another's name": with_files(**{f"blobs__sha256__{ZERO}": b"x"}),
    "a blob under no digest": with_files(blobs__sha256__abc=b"x"),
    "a blob of an unknown algorithm": with_files(**{f"blobs__md5__{ZERO}": b"x"}),
    "repositories that lead nowhere": with_files(repositories=b'{"a": {"b": "c"}}'),
    "repositories that are a list": with_files(repositories=b"[]"),
    "repositories in a circle": with_files(
        repositories=b'{"a": {"b": "c"}}', c__json=b'{"parent": "c"}', **{"c__layer.tar": b"x"}
    ),
    "a bad name": with_files(manifest_json=b'[{"Config": "c", "Layers": [], "RepoTags": ["A B"]}]', c=b"{}"),
    "a config that is no image's": with_files(manifest_json=b'[{"Config": "c", "Layers": []}]', c=b"{}"),
    "a document of 9 MB": with_files(manifest_json=b" " * (9 << 20)),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_archive_of_images_leaves_the_store_as_it_was(
    layout: Layout, data: bytes
) -> None:
    make(layout, "kept")
    before = sorted(os.listdir(f"{layout.directory}/blobs/sha256"))
    with pytest.raises(ImageError):
        load(layout, [data])
    assert sorted(os.listdir(f"{layout.directory}/blobs/sha256")) == before
    assert (layout.names(), leftovers(layout)) == (["kept:latest"], [])


def test_an_archive_cut_anywhere_is_refused_or_whole(layout: Layout, tmp_path: Path) -> None:
    make(layout, "app")
    data = saved(layout, "app")
    for end in range(0, len(data) - 1024, len(data) // 25):
        other = new_layout(tmp_path / f"cut{end}")
        with pytest.raises(ImageError):
            load(other, [data[:end]])
        assert (blobs(other), leftovers(other)) == (0, [])


def test_kill_9_at_random_moments_of_load_and_collect(layout: Layout, tmp_path: Path) -> None:
    make(layout, "app", layers=(layer_tar(big=random.Random(3).randbytes(400_000)),))
    data = saved(layout, "app")
    victim = new_layout(tmp_path / "victim")
    make(victim, "kept")

    def work() -> None:
        while True:
            load(victim, [data])
            remove(victim, "app")

    chance = random.Random(5)
    for _ in range(25):
        pid = in_fork(work)
        time.sleep(chance.random() * 0.06)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        load(victim, [data])  # the next command
        assert leftovers(victim) == []
        assert victim.names() == ["app:latest", "kept:latest"]
        for name in os.listdir(f"{victim.directory}/blobs/sha256"):
            content = Path(victim.directory, "blobs/sha256", name).read_bytes()
            assert Digest.of(content).encoded == name
    remove(victim, "app")
    assert blobs(victim) == 4


# ---- import ----


def test_a_root_tree_is_imported(layout: Layout, tmp_path: Path) -> None:
    tar = layer_tar(etc_motd=b"hello")
    image_id = import_tree(
        layout, [gzip.compress(tar)], "tree:1", {"Cmd": ["sh"]}, "2026-01-01T00:00:00Z"
    )
    image = layout.image("tree:1")
    assert (image.id, image.layers[0].digest) == (image_id, Digest.of(tar))
    assert inspect(layout, "tree:1")["Config"]["Cmd"] == ["sh"]
    with pytest.raises(ImageError, match="not a tar archive"):
        import_tree(layout, [b"no tar at all" * 100], "", {}, "")
    assert (blobs(layout), leftovers(layout)) == (3, [])


# ---- names, lists, inspect ----


def test_an_image_is_found_by_name_and_by_the_beginning_of_its_id(layout: Layout) -> None:
    make(layout, "app")
    image_id = layout.image("app").id
    for reference in ("app", "app:latest", image_id, image_id[7:], image_id[7:19], image_id[:15]):
        assert find(layout, reference).image.id == image_id
    for reference in ("other", "app:2", "sha256:" + "1" * 64, "fffffffffff"):
        with pytest.raises(NoSuchImage, match="No such image: "):
            find(layout, reference)
    with pytest.raises(ImageError, match="invalid reference format"):
        find(layout, "A B")


def test_the_beginning_of_two_ids_is_an_error(layout: Layout) -> None:
    for number in range(17):
        layout.keep(make(layout, "", number=number))
    first = [record.image.id[7] for record in records(layout)]
    with pytest.raises(ImageError, match="multiple images"):
        find(layout, next(letter for letter in first if first.count(letter) > 1))


def test_a_list_has_dockers_keys_and_filters(layout: Layout) -> None:
    old = make(layout, "team/app:1", created="2020-01-01T00:00:00Z", config={"Labels": {"a": "1"}})
    make(layout, "app", packing="gzip")
    layout.tag(f"team/app@{old.digest}", old)
    layout.keep(make(layout, "", created="2019-01-01T00:00:00Z"))
    rows = list_images(layout)
    assert [row["RepoTags"] for row in rows] == [["app:latest"], ["team/app:1"], []]
    assert rows[1]["RepoDigests"] == [f"team/app@{old.digest}"]
    assert rows[1]["Labels"] == {"a": "1"} and rows[1]["Created"] == 1577836800
    assert rows[0]["Size"] == 2 * len(layer_tar(etc_one=b"1" * 5000))

    def shown(**filters: str) -> list[int]:
        chosen = {
            key.replace("not_", "").replace("label_", "label!"): [value]
            for key, value in filters.items()
        }
        ids = [row["Id"] for row in list_images(layout, chosen)]
        return [number for number, row in enumerate(rows) if row["Id"] in ids]

    assert shown(reference="app") == [0] and shown(reference="team/*") == [1]
    assert shown(reference="*:1") == [] and shown(reference="*/*:1") == [1]
    assert shown(label="a=1") == [0, 1] + [2] * (rows[2]["Labels"].get("a") == "1")
    assert shown(label="a=2") == [] and shown(label_="b") == [1]
    assert shown(dangling="true") == [2] and shown(dangling="0") == [0, 1]
    assert shown(before="app") == [1, 2] and shown(since="team/app:1") == [0]
    for filters in ({"color": ["red"]}, {"dangling": ["maybe"]}):
        with pytest.raises(ImageError, match="Invalid filter"):
            list_images(layout, filters)


def test_inspect_and_history_say_what_docker_says(layout: Layout) -> None:
    make(layout, "app", packing="gzip", author="me")
    found = inspect(layout, "app")
    assert (found["Id"], found["Author"]) == (layout.image("app").id, "me")
    assert found["RootFS"]["Layers"] == layout.image("app").config["rootfs"]["diff_ids"]
    rows = history(layout, "app")
    assert [row["CreatedBy"] for row in rows] == ["ADD two", "CMD sh", "ADD one"]
    assert [bool(row["Size"]) for row in rows] == [True, False, True]
    assert (rows[0]["Id"], rows[0]["Tags"], rows[2]["Id"]) == (
        found["Id"],
        ["app:latest"],
        "<missing>",
    )


def test_a_broken_image_is_no_obstacle_and_can_be_removed(layout: Layout) -> None:
    make(layout, "app")
    broken = make(layout, "broken", marker=1)
    Path(layout.blob_path(broken.digest)).write_text('{"layers": 5}')
    assert [row["RepoTags"] for row in list_images(layout)] == [["app:latest"]]
    with pytest.raises(ImageError, match="broken:latest"):
        inspect(layout, "broken")
    assert remove(layout, "broken") == [{"Untagged": "broken:latest"}]
    assert (layout.names(), blobs(layout)) == (["app:latest"], 4)


# ---- rmi: each case with Docker's words ----


def user(layout: Layout, name: str, running: bool) -> User:
    return User("c" * 64, layout.image(name).id, running)


def kinds(gone: list[dict[str, str]]) -> list[str]:
    return [next(iter(step)) for step in gone]


def test_the_last_name_takes_the_image_and_its_layers(layout: Layout) -> None:
    descriptor = make(layout, "app")
    make(layout, "other", layers=(layer_tar(etc_one=b"1" * 5000),))
    layout.tag("again", descriptor)
    layout.tag(f"app@{descriptor.digest}", descriptor)
    image = layout.image("app")
    assert remove(layout, "again") == [{"Untagged": "again:latest"}]
    assert remove(layout, "app") == [
        {"Untagged": "app:latest"}, {"Untagged": f"app@{descriptor.digest}"},
        {"Deleted": image.id}, {"Deleted": image.config["rootfs"]["diff_ids"][1]}]  # fmt: skip
    assert blobs(layout) == 3
    with pytest.raises(NoSuchImage):
        remove(layout, "app")


def test_by_id_one_name_goes_too_and_two_need_force(layout: Layout) -> None:
    descriptor = make(layout, "app")
    image_id = layout.image("app").id
    layout.tag("b", descriptor)
    words = f"conflict: unable to delete {image_id[7:19]} (must be forced) - image is referenced in multiple"
    with pytest.raises(ImageConflict) as caught:
        remove(layout, image_id[7:19])
    assert str(caught.value).startswith(words)
    assert layout.names() == ["app:latest", "b:latest"]
    layout.untag("b")
    assert kinds(remove(layout, image_id)) == ["Untagged", "Deleted", "Deleted", "Deleted"]
    layout.tag("b", make(layout, "app"))
    assert kinds(remove(layout, image_id, force=True))[:3] == ["Untagged", "Untagged", "Deleted"]
    assert blobs(layout) == 0


def test_what_a_container_uses_stays_unless_forced_and_stopped(layout: Layout) -> None:
    descriptor = make(layout, "app")
    image_id = layout.image("app").id
    stopped, running = user(layout, "app", False), user(layout, "app", True)
    short = image_id[7:19]
    for one in (stopped, running):
        with pytest.raises(ImageConflict) as caught:
            remove(layout, "app", [one])
        assert str(caught.value) == (
            f'conflict: unable to remove repository reference "app" (must force) - container '
            f"cccccccccccc is using its referenced image {short}"
        )
    for one, remedy, state in ((stopped, "must be", "stopped"), (running, "cannot be", "running")):
        with pytest.raises(ImageConflict) as caught:
            remove(layout, image_id, [one])
        assert str(caught.value) == (
            f"conflict: unable to delete {short} ({remedy} forced) - image is being used by {state} "
            "container cccccccccccc"
        )
    with pytest.raises(ImageConflict, match="cannot be forced"):
        remove(layout, image_id, [running], force=True)
    assert kinds(remove(layout, "app", [running], force=True)) == ["Untagged"]
    assert find(layout, image_id).names == ()
    layout.tag("app", descriptor)
    assert "Deleted" in kinds(remove(layout, "app", [stopped], force=True))


def test_a_parent_stays_while_it_has_children(layout: Layout) -> None:
    make(layout, "parent")
    image_id = layout.image("parent").id
    make(layout, "child", parent=image_id)
    with pytest.raises(ImageConflict, match="cannot be forced. - image has dependent child images"):
        remove(layout, image_id, force=True)
    assert [row["ParentId"] for row in list_images(layout)].count(image_id) == 1
    remove(layout, "child")
    assert "Deleted" in kinds(remove(layout, image_id))


def test_prune_removes_what_has_no_name_or_no_container(layout: Layout) -> None:
    make(layout, "used")
    make(layout, "unused", marker=1, layers=(layer_tar(x=b"unused" * 1000),))
    layout.keep(make(layout, "", marker=2))
    layout.put(b"garbage" * 1000, "")
    first = prune(layout)
    assert kinds(first["ImagesDeleted"]) == ["Deleted"]
    assert first["SpaceReclaimed"] > 7000 and len(records(layout)) == 2
    second = prune(layout, [user(layout, "used", False)], {"dangling": ["false"]})
    assert kinds(second["ImagesDeleted"])[:2] == ["Untagged", "Deleted"]
    assert layout.names() == ["used:latest"]
    assert prune(layout) == {"ImagesDeleted": None, "SpaceReclaimed": 0}


@pytest.mark.root
@pytest.mark.anywhere
def test_unpacked_layers_go_with_their_image_unless_in_use(layout: Layout, tmp_path: Path) -> None:
    make(layout, "a")
    make(layout, "b", layers=(layer_tar(b=b"b"),))
    directory = str(tmp_path / "layers")
    for name in ("a", "b"):
        image = layout.image(name)
        for layer, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
            unpack_layer(layout, layer, diff_id, directory)
    kept = layout.image("a").config["rootfs"]["diff_ids"][0]
    remove(layout, "a")
    needed = {Digest(diff_id).encoded for stack in stacks(layout) for diff_id in stack}
    assert len(remove_layers(directory, {*needed, Digest(kept).encoded})) == 1
    assert len(os.listdir(directory)) == 2
    remove_layers(directory, needed)
    assert os.listdir(directory) == [layout.image("b").layers[0].digest.partition(":")[2]]


# ---- disk full ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.root
@pytest.mark.anywhere
def test_a_full_disk_leaves_the_store_as_it_was(
    layout: Layout, small_disk: Path, tmp_path: Path
) -> None:
    noise = random.Random(9).randbytes(2_500_000)
    make(layout, "big", layers=(layer_tar(a=noise), layer_tar(b=noise[::-1])))
    victim = new_layout(small_disk / "images")
    make(victim, "kept")
    before = os.listdir(f"{victim.directory}/blobs/sha256")
    for attempt in (
        lambda: load(victim, [saved(layout, "big")]),
        lambda: import_tree(victim, [layer_tar(a=noise, b=noise)], "x", {}, ""),
    ):
        with pytest.raises(ImageError, match="No space left on device; remedy: free some space"):
            attempt()
        assert sorted(os.listdir(f"{victim.directory}/blobs/sha256")) == sorted(before)
        assert (victim.names(), leftovers(victim)) == (["kept:latest"], [])
    image = layout.image("big")
    os.makedirs(small_disk / "layers")
    with pytest.raises(ImageError, match="No space left on device"):
        for layer, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
            unpack_layer(layout, layer, diff_id, str(small_disk / "layers"))
    assert all(not name.endswith(".tmp") for name in os.listdir(small_disk / "layers"))
