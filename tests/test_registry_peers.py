"""What we push, skopeo, podman and docker take; what they push, we pull."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mini_docker.images.child import unpack_beside
from mini_docker.images.layout import MEDIA_TYPE_LAYER, Descriptor, Digest, Layout
from mini_docker.images.tar import LayerError
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
from tests.bench.registry import CannotRun, dockerd
from tests.conftest import cannot_run_here
from tests.registries import Place, image_of, make_image, make_store, open_registry
from tests.test_layers import describe, make_tree

__all__ = ["open_registry"]
pytestmark = [pytest.mark.peers, pytest.mark.root]
FILES = {"etc/greeting": b"hello from a stranger\n", "big": os.urandom(2_000_000)}


def run(*words: str) -> str:
    """Run a peer; a failure shows what it said."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-1000:]}"
    return done.stdout


def need(program: str) -> None:
    if not shutil.which(program):
        cannot_run_here(f"{program} is not installed (remedy: sudo labs/provision.sh --peers)")


@pytest.fixture
def source(open_registry: Place, tmp_path: Path) -> Layout:
    """A store whose image is in the registry as peers/ours:1, pushed by us."""
    layout = make_store(tmp_path / "source")
    reference = open_registry.reference("peers/ours:1")
    make_image(layout, reference.familiar(), FILES, {"second": b"layer"})
    push(layout, reference, settings=open_registry.settings)
    return layout


def pulled(place: Place, tmp_path: Path, name: str) -> None:
    """Assert that we can pull what a peer has pushed, and that it is the image that we made."""
    store, layers = make_store(tmp_path / "pulled"), str(tmp_path / "layers")
    pull(store, place.reference(name), settings=place.settings,
         unpack=lambda layer, diff_id: unpack_beside(store, layer, diff_id, layers))  # fmt: skip
    image = store.image(place.reference(name).familiar())
    first = image.config["rootfs"]["diff_ids"][0].partition(":")[2]
    assert {name: Path(layers, first, name).read_bytes() for name in FILES} == FILES


def test_skopeo(open_registry: Place, source: Layout, tmp_path: Path) -> None:
    need("skopeo")
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    ours, theirs = (f"docker://{open_registry.host}/peers/{name}:1" for name in ("ours", "skopeo"))
    run("skopeo", "copy", *plain, ours, f"dir:{tmp_path}/copy")
    run("skopeo", "copy", *plain, "--format", "v2s2", ours, theirs)
    pulled(open_registry, tmp_path, "peers/skopeo:1")


@pytest.mark.parametrize("packing", ["gzip", "zstd", "zstd:chunked"])
def test_what_skopeo_packs(packing: str, open_registry: Place, tmp_path: Path) -> None:
    """Layers with all that a tar can hold, packed by skopeo: the tree is the one that GNU tar makes.

    zstd:chunked without sparse files, for which skopeo 1.9 writes headers that GNU tar cannot read either,
    and without tar's filling after the end, which it leaves out: the digest would be another.
    """
    need("skopeo")
    tree, store, layers = tmp_path / "tree", make_store(tmp_path / "store"), tmp_path / "layers"
    tree.mkdir()
    make_tree(tree)
    kept = ("--xattrs", "--xattrs-include=*")
    sparse = () if packing == "zstd:chunked" else ("--sparse",)
    words = ["tar", "-C", tree, *kept, "-c", "-b1", *sparse, "--format=pax", "."]
    data = subprocess.run(words, capture_output=True, check=True).stdout
    plain = make_store(tmp_path / "plain")
    image_of(plain, "x:1", (data, Digest.of(data)), kind=MEDIA_TYPE_LAYER)
    name = f"peers/packed-{packing.replace(':', '-')}:1"
    copy = ("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false")
    run(*copy, "--dest-compress-format", packing, f"oci:{plain.directory}:x:1",
        f"docker://{open_registry.host}/{name}")  # fmt: skip
    pull(store, open_registry.reference(name), settings=open_registry.settings,
         unpack=lambda layer, diff_id: unpack_beside(store, layer, diff_id, str(layers)))  # fmt: skip
    image = store.image(open_registry.reference(name).familiar())
    (layer,), (diff_id,) = image.layers, image.config["rootfs"]["diff_ids"]
    assert layer.media_type.endswith(packing.partition(":")[0])
    unpacked = layers / diff_id.partition(":")[2]
    expected = tmp_path / "expected"
    expected.mkdir()
    subprocess.run(
        ["tar", "-C", expected, "--xattrs", "--xattrs-include=*", "-x"], input=data, check=True
    )
    assert describe(unpacked) == describe(expected)


def test_podman(open_registry: Place, source: Layout, tmp_path: Path) -> None:
    need("podman")
    podman = (
        "podman",
        "--root",
        f"{tmp_path}/root",
        "--runroot",
        f"{tmp_path}/run",
        "--storage-driver",
        "vfs",
    )
    ours, theirs = (f"{open_registry.host}/peers/{name}:1" for name in ("ours", "podman"))
    try:
        run(*podman, "pull", "-q", "--tls-verify=false", ours)
        run(*podman, "push", "-q", "--tls-verify=false", ours, f"docker://{theirs}")
        pulled(open_registry, tmp_path, "peers/podman:1")
    finally:
        subprocess.run([*podman, "rmi", "-af"], capture_output=True)


def test_docker(open_registry: Place, source: Layout, tmp_path: Path) -> None:
    need("docker")
    try:
        with dockerd(tmp_path / "docker"):
            docker = ("docker", "-H", f"unix://{tmp_path}/docker/socket")
            ours, theirs = (f"{open_registry.host}/peers/{name}:1" for name in ("ours", "docker"))
            assert "Downloaded newer image" in run(*docker, "pull", ours)
            run(*docker, "tag", ours, theirs)
            run(*docker, "push", theirs)
    except CannotRun as error:
        cannot_run_here(str(error))
    pulled(open_registry, tmp_path, "peers/docker:1")


def test_an_unpacker_that_refuses_says_why(source: Layout, tmp_path: Path) -> None:
    large = source.put(b"no tar" * 1_000_000, "application/vnd.oci.image.layer.v1.tar")
    with pytest.raises(LayerError, match="is not a tar archive"):
        unpack_beside(source, large, large.digest, str(tmp_path / "layers"))
    lost = Descriptor(large.media_type, f"sha256:{'0' * 64}", large.size)
    with pytest.raises(LayerError, match="cannot be read"):
        unpack_beside(source, lost, lost.digest, str(tmp_path / "layers"))
    assert not [name for name in os.listdir(tmp_path / "layers") if name.endswith(".tmp")]
