"""Images: names, blobs, a damaged index, and the embedded image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images import busybox
from mini_docker.images.busybox import find_busybox, install_busybox
from mini_docker.images.layers import unpack_layer
from mini_docker.images.layout import (
    MEDIA_TYPE_LAYER,
    REF_NAME,
    Descriptor,
    Digest,
    ImageError,
    Layout,
    NoSuchImage,
    full_name,
)
from mini_docker.images.tar import LayerError
from mini_docker.linux.files import write_atomically
from tests.conftest import cannot_run_here
from tests.test_store import layout  # noqa: F401 (a fixture)

DIGEST = "sha256:" + "0" * 64
# what the docker client 28.2 takes and refuses
GOOD = (
    "busybox a/b a/b/c:1 localhost:5000/x LOCALHOST:5000/x Reg.example/x B/c a.b/c busybox:LATEST busybox:_x "
    f"a_b a__b a-b a--b a.b 0 x:5000/a:1 [::1]:5000/a a@{DIGEST} a:1@{DIGEST} a:{'0' * 128}"
).split()
BAD = [
    *"a_.b a___b a..b a- -a .a a/ /a a//b a/../b a:b:c a: :a é a:é a;b a$b a@b a@sha256:12 A".split(),
    *("", "a b", "a:b c", "a\n", "localhost:5000/UPPER", "a:.b", "a:-b", "a:b/c", "a" * 256),
    *(f"a:{'0' * 129}", "0" * 64),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_docker_takes(name: str) -> None:
    tagged = ":" in name.rpartition("/")[2] or "@" in name
    assert full_name(name) == (name if tagged else f"{name}:latest")


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_docker_refuses(name: str) -> None:
    with pytest.raises(ImageError, match="invalid reference format"):
        full_name(name)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", DIGEST[:-1], DIGEST.upper(),
                                    DIGEST[:-1] + "/", DIGEST + "0", "md5:" + "0" * 32])  # fmt: skip
def test_what_is_no_digest_is_no_path(layout: Layout, digest: str) -> None:
    with pytest.raises(ImageError, match="is not a sha256 or sha512 digest"):
        layout.blob_path(digest)


def test_a_blob_is_stored_once_under_its_digest(layout: Layout) -> None:
    first = layout.put(b"data", "text/plain")
    assert tuple(first) == ("text/plain", Digest.of(b"data"), 4)
    number = os.stat(layout.blob_path(first.digest)).st_ino
    assert layout.put(b"data", "text/plain") == first
    assert os.stat(layout.blob_path(first.digest)).st_ino == number
    layout.create()
    assert layout.names() == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "kept").write_text("old")
    monkeypatch.setattr(os, call, fail)
    for name in ("kept", "new"):
        with pytest.raises(type(error)):
            write_atomically(str(tmp_path / name), b"half")
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


def index_of(entry: object) -> str:
    return json.dumps({"schemaVersion": 2, "manifests": [entry]})


NAMED = {REF_NAME: "x:latest"}
DAMAGED = ["", "{", "[]", "5", "{}", '{"manifests": null}', '{"manifests": 5}', "\0" * 9, "[" * 100_000,
           '{"manifests": {"a": 1}}', index_of(1), index_of(None), index_of({"annotations": 1}),
           index_of({"annotations": NAMED}), index_of({"annotations": NAMED, "digest": 5})]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:70].replace("\0", "0"))
def test_a_damaged_index_is_an_error_that_names_the_file(layout: Layout, text: str) -> None:
    Path(layout.directory, "index.json").write_text(text)
    with pytest.raises(ImageError, match=r"index\.json") as caught:
        layout.image("x")
    assert not isinstance(caught.value, NoSuchImage)


def test_an_entry_without_annotations_is_no_damage(layout: Layout) -> None:
    Path(layout.directory, "index.json").write_text(
        index_of({"digest": DIGEST, "annotations": None})
    )
    assert layout.names() == []
    with pytest.raises(NoSuchImage, match="No such image: x:latest"):
        layout.image("x")


def test_what_names_lists_image_finds(layout: Layout) -> None:
    """skopeo copy ... oci:DIRECTORY:v1 writes the tag alone."""
    entry = json.loads(Path(layout.directory, "index.json").read_bytes())
    image(layout, "busybox", {"rootfs": {"diff_ids": []}})
    entry = layout.entries()[0] | {"annotations": {REF_NAME: "v1"}}
    Path(layout.directory, "index.json").write_text(index_of(entry))
    for name in layout.names():
        assert layout.image(name).layers == ()


def image(layout: Layout, name: str, config: Any, layers: tuple[Any, ...] = ()) -> None:
    described = layout.put(json.dumps(config).encode(), "application/json")
    layout.name_image(name, {"config": {"digest": described.digest}, "layers": list(layers)})


LAYER = {"mediaType": MEDIA_TYPE_LAYER, "digest": DIGEST, "size": 1}
BROKEN: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "a config that is a list": ([], ()),
    "no rootfs": ({}, ()),
    "no diff_id for the layer": ({"rootfs": {"diff_ids": []}}, (LAYER,)),
    "a layer that is a number": ({"rootfs": {"diff_ids": [DIGEST]}}, (5,)),
    "a layer without digest": ({"rootfs": {"diff_ids": [DIGEST]}}, ({"size": 1},)),
    "a diff_id that is a number": ({"rootfs": {"diff_ids": [5]}}, (LAYER,)),
    # it names the directory of the unpacked layer: this one would be the host's root
    "a diff_id that is a path": ({"rootfs": {"diff_ids": ["sha256:../../../../.."]}}, (LAYER,)),
    "an empty diff_id": ({"rootfs": {"diff_ids": [""]}}, (LAYER,)),
}  # fmt: skip


@pytest.mark.parametrize(("config", "layers"), BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_refused(layout: Layout, config: Any, layers: tuple[Any, ...]) -> None:
    image(layout, "x", config, layers)
    with pytest.raises(ImageError):
        layout.image("x")


def test_a_missing_blob_is_named(layout: Layout, tmp_path: Path) -> None:
    described = layout.name_image("x", {"config": {"digest": DIGEST}, "layers": []})
    with pytest.raises(ImageError, match=DIGEST):
        layout.image("x")
    os.unlink(layout.blob_path(described.digest))
    with pytest.raises(ImageError, match=described.digest):
        layout.image("x")
    with pytest.raises(LayerError, match=DIGEST):
        unpack_layer(layout, Descriptor("", DIGEST, 1), DIGEST, str(tmp_path))


@pytest.mark.root
@pytest.mark.anywhere
def test_the_embedded_image_has_the_same_bytes_every_time(layout: Layout, tmp_path: Path) -> None:
    first = install_busybox(layout)
    assert install_busybox(layout) == first
    other = Layout(str(tmp_path / "other"))
    assert install_busybox(other).digest == first.digest
    found = layout.image("busybox")
    assert (found.name, found.digest) == ("busybox:latest", first.digest)
    root = Path(unpack_layer(layout, found.layers[0], found.layers[0].digest, str(tmp_path)))
    assert os.readlink(root / "bin/sh") == "busybox"
    assert subprocess.run(["chroot", root, "sh", "-c", "exit 7"]).returncode == 7


def test_a_busybox_that_needs_libraries_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("ls") or ""
    if b"/ld-" not in Path(program).read_bytes():
        cannot_run_here(f"{program} is a static program")
    monkeypatch.setattr(busybox, "BINARIES", (program,))
    with pytest.raises(ImageError, match="busybox-static"):
        find_busybox()


@pytest.mark.root
@pytest.mark.anywhere
@pytest.mark.peers
def test_skopeo_and_umoci_read_what_we_wrote(layout: Layout, tmp_path: Path) -> None:
    for peer in ("skopeo", "umoci"):
        if shutil.which(peer) is None:
            cannot_run_here(f"{peer} is not installed (remedy: apt-get install {peer})")
    install_busybox(layout)
    copied = Layout(str(tmp_path / "copied"))
    commands = [
        f"skopeo --insecure-policy copy -q oci:{layout.directory}:busybox:latest oci:{copied.directory}:b",
        f"umoci unpack --image {layout.directory}:busybox:latest {tmp_path}/bundle",
    ]
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    ours, theirs = layout.image("busybox"), copied.entries()[0]["digest"]
    assert copied.read_json(copied.read_json(theirs)["config"]["digest"]) == ours.config
    unpacked = Path(unpack_layer(layout, ours.layers[0], ours.layers[0].digest, str(tmp_path)))
    difference = ["diff", "-r", "--no-dereference", str(unpacked), f"{tmp_path}/bundle/rootfs"]
    assert subprocess.run(difference, capture_output=True, text=True).stdout == ""
