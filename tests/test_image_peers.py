"""What we write, skopeo, umoci, podman and Docker read; what they write, we read; the trees are equal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_docker.images.archive import load, load_directory, save
from mini_docker.images.catalog import find, history, inspect
from mini_docker.images.layers import unpack_layer
from mini_docker.images.layout import (
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Digest,
    Layout,
    as_json,
    this_platform,
)
from mini_docker.images.pack import pack
from tests.conftest import cannot_run_here
from tests.daemons import Dockerd
from tests.test_archive import pack_with
from tests.test_layers import describe, make_tree
from tests.test_store import new_layout

pytestmark = [pytest.mark.root, pytest.mark.peers]
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            cannot_run_here(f"{program} is not installed (remedy: labs/provision.sh --peers)")


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of everything that every one of the peers can carry."""
    root = tmp_path / "tree"
    root.mkdir()
    make_tree(root)
    (root / os.fsdecode(b"\xff\xfe\n")).unlink()  # podman's and Docker's JSON of changes cannot
    return root


def make_image(layout: Layout, tree: Path, name: str, packing: str = "") -> None:
    """Store an image whose first layer is `tree`, and whose second takes a file away."""
    upper = tree.parent / "upper"
    if not upper.exists():
        (upper / "dir").mkdir(parents=True)
        os.mknod(upper / "dir/exact", 0o020000, 0)
        (upper / "dir/new").write_text("new")
    tars = [b"".join(pack(str(tree))), b"".join(pack(str(upper), overlay=True))]
    kind = MEDIA_TYPE_LAYER + (f"+{packing}" if packing else "")
    layers = [layout.put(pack_with(tar, packing), kind) for tar in tars]
    system, architecture = this_platform().split("/")
    config = {"os": system, "architecture": architecture, "created": "2024-01-01T00:00:00Z",
              "author": packing or "me",
              "config": {"Cmd": ["/dir/file"], "Env": ["A=1"]},
              "history": [{"created_by": "one"}, {"created_by": "two"}],
              "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]}}  # fmt: skip
    stored = layout.put(json.dumps(config).encode(), MEDIA_TYPE_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": as_json(stored),
                "layers": [as_json(layer) for layer in layers]}  # fmt: skip
    layout.name_image(name, manifest)


def archive_of(layout: Layout, name: str, path: Path) -> Path:
    record = find(layout, name)
    with open(path, "wb") as file:
        for piece in save(layout, [(record.image, record.names)]):
            file.write(piece)
    return path


def pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(1 << 18):
            yield piece


def unpacked(layout: Layout, name: str, directory: Path) -> list[dict[str, tuple[object, ...]]]:
    """Unpack an image's layers, and describe each."""
    image = layout.image(name)
    pairs = zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True)
    return [describe(Path(unpack_layer(layout, *pair, str(directory)))) for pair in pairs]


@pytest.fixture
def ours(tmp_path: Path, tree: Path) -> Layout:
    layout = new_layout(tmp_path / "images")
    for packing in ("gzip", "zstd", ""):
        make_image(layout, tree, f"test/{packing or 'plain'}:1", packing)
    return layout


def test_skopeo_reads_our_layout_and_both_faces_of_our_archive(
    ours: Layout, tmp_path: Path
) -> None:
    need("skopeo")
    copy = ("skopeo", "--insecure-policy", "copy", "-q")
    for kind in ("gzip", "zstd", "plain"):
        name = f"test/{kind}:1"
        archive = archive_of(ours, name, tmp_path / f"{kind}.tar")
        theirs = new_layout(tmp_path / f"theirs-{kind}")
        sources = f"oci:{ours.directory}:{name} oci-archive:{archive}:docker.io/{name}"
        for number, source in enumerate(f"{sources} docker-archive:{archive}:{name}".split()):
            run(*copy, source, f"dir:{tmp_path}/dir-{kind}-{number}")
            run(*copy, source, f"oci:{theirs.directory}:from/{number}:1")
        for number in (0, 1):
            assert theirs.image(f"from/{number}:1").id == ours.image(name).id
        if kind == "gzip":  # what is not compressed, skopeo compresses on the way
            assert theirs.image("from/1:1").digest == ours.image(name).digest
        config = theirs.image("from/2:1").config
        assert config["rootfs"] == ours.image(name).config["rootfs"]
        assert unpacked(theirs, "from/2:1", tmp_path / "a") == unpacked(ours, name, tmp_path / "b")


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive", "oci"])
def test_what_skopeo_writes_is_loaded(ours: Layout, tmp_path: Path, kind: str) -> None:
    need("skopeo")
    target = tmp_path / "written"
    run("skopeo", "--insecure-policy", "copy", "-q", f"oci:{ours.directory}:test/gzip:1",
        f"{kind}:{target}:again/it:2")  # fmt: skip
    loaded = new_layout(tmp_path / "loaded")
    found = load_directory(loaded, str(target)) if kind == "oci" else load(loaded, pieces(target))
    assert found[0].names == ("again/it:2",)
    assert loaded.image("again/it:2").id == ours.image("test/gzip:1").id
    assert unpacked(loaded, "again/it:2", tmp_path / "a") == unpacked(
        ours, "test/gzip:1", tmp_path / "b"
    )


def test_umoci_makes_the_same_tree_of_a_layer(ours: Layout, tree: Path, tmp_path: Path) -> None:
    need("umoci")
    run("umoci", "unpack", "--image", f"{ours.directory}:test/gzip:1", tmp_path / "bundle")
    theirs = describe(tmp_path / "bundle/rootfs")
    first, second = unpacked(ours, "test/gzip:1", tmp_path / "layers")
    assert theirs == {**{k: v for k, v in first.items() if k != "dir/exact"}, "dir/new": second["dir/new"],
                      "dir": second["dir"]}  # fmt: skip
    assert first == describe(tree)


def test_what_umoci_repacks_is_read(ours: Layout, tmp_path: Path) -> None:
    need("umoci")
    bundle, image = tmp_path / "bundle", f"{ours.directory}:test/gzip:1"
    run("umoci", "unpack", "--image", image, bundle)
    (bundle / "rootfs/dir/file").unlink()
    (bundle / "rootfs/dir/later").write_text("later")
    run("umoci", "repack", "--image", f"{ours.directory}:test/umoci:1", bundle)
    third = unpacked(ours, "test/umoci:1", tmp_path / "layers")[2]
    assert third["dir/later"][6] == b"later"
    assert (third["dir/file"][4], third["dir/file"][6]) == (0, b"")  # a whiteout, a device 0:0


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[tuple[object, ...]]:
    need("podman")
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(POLICY))
    run_root = f"/run/podman-{os.getpid()}"  # podman takes no long one
    command = ("podman", "--root", tmp_path / "podman", "--runroot", run_root, "--storage-driver", "vfs",
               "--cgroup-manager", "cgroupfs", "--events-backend", "none")  # fmt: skip
    yield command
    subprocess.run([str(word) for word in (*command, "rmi", "-af")], capture_output=True)
    shutil.rmtree(run_root)


def test_podman_loads_what_we_save_and_we_load_what_it_saves(
    ours: Layout, podman: tuple[object, ...], tmp_path: Path
) -> None:
    archive = archive_of(ours, "test/gzip:1", tmp_path / "ours.tar")
    assert "docker.io/test/gzip:1" in run(*podman, "load", "-i", archive)
    listed = json.loads(run(*podman, "image", "inspect", "docker.io/test/gzip:1"))[0]
    assert f"sha256:{listed['Id']}" == ours.image("test/gzip:1").id
    for kind in ("docker-archive", "oci-archive"):
        theirs = tmp_path / kind
        run(*podman, "save", "--format", kind, "-o", theirs, "docker.io/test/gzip:1")
        loaded = new_layout(tmp_path / f"loaded-{kind}")
        name = load(loaded, pieces(theirs))[0].names[0]
        assert name == "test/gzip:1"
        assert unpacked(loaded, name, tmp_path / f"a-{kind}") == unpacked(
            ours, "test/gzip:1", tmp_path / "b"
        )


@pytest.fixture
def docker(dockerd: Dockerd) -> tuple[object, ...]:
    return ("docker", "-H", f"unix://{dockerd.path}")


def test_docker_loads_what_we_save_and_we_load_what_it_saves(
    ours: Layout, docker: tuple[object, ...], tmp_path: Path
) -> None:
    for kind in ("plain", "gzip", "zstd"):
        archive = archive_of(ours, f"test/{kind}:1", tmp_path / f"{kind}.tar")
        assert f"Loaded image: test/{kind}:1" in run(*docker, "load", "-i", archive)
    theirs = json.loads(run(*docker, "image", "inspect", "test/gzip:1"))[0]
    mine = inspect(ours, "test/gzip:1")
    for key in ("Id", "Architecture", "Os", "Created", "RootFS", "Parent"):
        assert mine[key] == theirs[key]
    assert mine["Config"].items() <= theirs["Config"].items()
    lines = run(
        *docker, "history", "--no-trunc", "--format", "{{.CreatedBy}}", "test/gzip:1"
    ).split()
    assert lines == [row["CreatedBy"] for row in history(ours, "test/gzip:1")]
    run(*docker, "save", "-o", tmp_path / "theirs.tar", "test/gzip:1")
    loaded = new_layout(tmp_path / "loaded")
    assert load(loaded, pieces(tmp_path / "theirs.tar"))[0].names == ("test/gzip:1",)
    assert loaded.image("test/gzip:1").id == mine["Id"]
    assert unpacked(loaded, "test/gzip:1", tmp_path / "a") == unpacked(
        ours, "test/gzip:1", tmp_path / "b"
    )
