"""Layers from a registry, unpacked: hostile ones, a full disk, collectors beside a pull, little memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images.catalog import stacks
from mini_docker.images.child import unpack_beside
from mini_docker.images.compression import compress
from mini_docker.images.ingest import collect
from mini_docker.images.layers import remove_layers, unpack_layer
from mini_docker.images.layout import (
    MEDIA_TYPE_LAYER,
    Descriptor,
    Digest,
    Layout,
    NoSuchImage,
)
from mini_docker.images.remove import prune, remove
from mini_docker.images.tar import FILE, Member, end_of_archive, header_blocks
from mini_docker.lab.registry import TeachingRegistry
from mini_docker.registry.errors import BadContent
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
from tests.conftest import ROOT
from tests.registries import (
    Place,
    contents,
    image_of,
    make_image,
    make_store,
    on,
    open_registry,
    place,
    serve,
    teaching,
)
from tests.test_store import leftovers

__all__ = ["open_registry", "place", "teaching"]
pytestmark = [pytest.mark.root, pytest.mark.anywhere]


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **more: Any
) -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(*entries: Any) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def unpacking(layout: Layout, layers: Path, beside: bool = False) -> Callable[..., object]:
    work = unpack_beside if beside else unpack_layer
    return lambda layer, diff_id: work(layout, layer, diff_id, str(layers))


def fetch(
    place: Place, store: Layout, layers: Path, name: str = "x:1", beside: bool = False
) -> None:
    pull(store, place.reference(name), credentials=place.credentials, settings=place.settings,
         unpack=unpacking(store, layers, beside))  # fmt: skip


# ---- hostile layers ----

GOOD = tar(entry("etc/good", data=b"good" * 100))
OTHER = Digest.of(b"other bytes")
TAR_OF: dict[str, tuple[bytes, str]] = {
    "a name that leads out": (tar(entry("../../etc/passwd", data=b"x")), "does not name a file inside"),
    "a name of dots": (tar(entry("a/../../x", data=b"x")), "does not name a file inside"),
    "a hard link that leads out": (tar(entry("x", tarfile.LNKTYPE, "../../etc/shadow")), "etc/shadow"),
    "a file in the place of a directory": (
        tar(entry("a", tarfile.DIRTYPE), entry("a/b"), entry("a", data=b"x")), "would replace a directory"),
    "an attribute that steers the mount": (
        tar(entry("a", pax_headers={"SCHILY.xattr.trusted.overlay.x": "/"})), "brings the attribute"),
    "an unknown kind": (tar(entry("a", b"Z")), "unknown type"),
    "no tar": (b"#!/bin/sh\n" * 200, "is not a tar archive"),
    "half a tar": (GOOD[:700], "is not a tar archive"),
}  # fmt: skip


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("data", "words"), TAR_OF.values(), ids=TAR_OF)
def test_a_hostile_layer_is_refused_with_names_and_a_remedy(
    data: bytes, words: str, beside: bool, teaching: TeachingRegistry, place: Place, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its digests are right: what it holds is wrong. The store and the layers are as before."""
    if beside and words != "does not name a file inside":
        return  # the same words come through a process: once is enough
    monkeypatch.setattr("mini_docker.images.child.WORTH_A_PROCESS", 0)
    source, store, layers = (
        make_store(tmp_path / "source"),
        make_store(tmp_path / "s"),
        tmp_path / "l",
    )
    image_of(source, "x:1", (gzip.compress(data, mtime=0), Digest.of(data)))
    serve(teaching, source, "x:1", "x")
    make_image(store, "kept:1")
    before = contents(store)
    with pytest.raises(BadContent, match=words) as caught:
        fetch(place, store, layers, beside=beside)
    assert str(caught.value).startswith(f"registry {place.host}: {place.host}/x:1: ")
    assert "remedy: " in str(caught.value)
    assert (contents(store), leftovers(store)) == (before, [])
    assert os.listdir(layers) == []


@pytest.mark.parametrize("limit", ["MAX_FILES", "MAX_BYTES"])
def test_a_bomb_is_stopped(
    limit: str, teaching: TeachingRegistry, place: Place, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    data = tar(*(entry(f"{n}", data=bytes(50_000)) for n in range(20)))
    source, store = make_store(tmp_path / "source"), make_store(tmp_path / "s")
    image_of(source, "x:1", (gzip.compress(data, mtime=0), Digest.of(data)))
    serve(teaching, source, "x:1", "x")
    monkeypatch.setattr(
        f"mini_docker.images.unpack.{limit}", 10 if limit == "MAX_FILES" else 500_000
    )
    before = contents(store)
    with pytest.raises(BadContent, match=f"{place.host}/x:1: .*holds more than .*; remedy"):
        fetch(place, store, tmp_path / "l")
    assert (contents(store), os.listdir(tmp_path / "l")) == (before, [])


def test_a_config_that_promises_another_layer(
    teaching: TeachingRegistry, place: Place, tmp_path: Path
) -> None:
    source, store = make_store(tmp_path / "source"), make_store(tmp_path / "s")
    image_of(source, "x:1", (gzip.compress(GOOD, mtime=0), OTHER))
    serve(teaching, source, "x:1", "x")
    before = contents(store)
    with pytest.raises(BadContent, match=f"its image says {OTHER}; remedy"):
        fetch(place, store, tmp_path / "l")
    assert (contents(store), os.listdir(tmp_path / "l")) == (before, [])


# ---- a disk that fills up in the middle ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("when", ["while it comes", "while it is unpacked"])
def test_a_disk_that_fills_up_in_the_middle(
    when: str, teaching: TeachingRegistry, place: Place, tmp_path: Path, small_disk: Path
) -> None:
    source, store = make_store(tmp_path / "source"), make_store(small_disk / "images")
    make_image(store, "kept:1")
    layers = small_disk / "layers"
    if when == "while it comes":
        make_image(source, "x:1", {"noise": os.urandom(3 << 20)}, {"small": b"small"})

        def fill(handler: object) -> bool:
            """Take what was free when the pull began."""
            (small_disk / "somebody's").write_bytes(bytes(4 << 20))
            return False

        big = source.image("x:1").layers[0].digest
        teaching.rules.append(on("GET", big, fill, times=1))
    else:
        make_image(source, "x:1", {"small": b"small"}, {"zeros": bytes(8 << 20)})
    serve(teaching, source, "x:1", "x")
    before = contents(store)
    with pytest.raises(
        BadContent, match="No space left on device.*remedy: free some space"
    ) as caught:
        fetch(place, store, layers)
    assert f"registry {place.host}: {place.host}/x" in str(caught.value)
    assert (contents(store), leftovers(store)) == (before, [])
    assert not [name for name in os.listdir(layers) if name.endswith(".tmp")]
    (small_disk / "somebody's").unlink(missing_ok=True)
    make_image(source, "y:1", {"small": b"small"})
    serve(teaching, source, "y:1", "y")
    fetch(place, store, layers, "y:1")  # and all goes on when there is room


# ---- beside collectors ----


def test_pulls_beside_collectors_and_removals_are_whole(
    teaching: TeachingRegistry, place: Place, tmp_path: Path
) -> None:
    """Three pull what shares a layer, others prune, collect, remove and clean; a container uses one layer."""
    source, store, layers = (
        make_store(tmp_path / "source"),
        make_store(tmp_path / "s"),
        tmp_path / "l",
    )
    for name in ("a", "b", "c"):
        make_image(source, f"{name}:1", {"shared": b"shared" * 40_000}, {name: os.urandom(90_000)})
        serve(teaching, source, f"{name}:1", name)
    fetch(place, store, layers, "a:1")
    in_use = store.image(f"{place.host}/a:1").config["rootfs"]["diff_ids"]
    ended, failures = threading.Event(), []

    def again(action: Callable[[], object]) -> None:
        while not ended.is_set():
            try:
                action()
            except NoSuchImage:
                pass  # another was faster
            except Exception as error:  # noqa: BLE001  all of them are the test's result
                failures.append(error)

    def clean() -> None:
        needed = [diff_id for stack in (*stacks(store), in_use) for diff_id in stack]
        remove_layers(str(layers), {Digest(diff_id).encoded for diff_id in needed})

    def bring(name: str) -> None:
        for _ in range(8):
            try:
                fetch(place, store, layers, f"{name}:1")
            except Exception as error:  # noqa: BLE001
                failures.append(error)

    beside = [
        partial(collect, store),
        partial(prune, store),
        partial(remove, store, f"{place.host}/b:1"),
        clean,
    ]
    helpers = [threading.Thread(target=again, args=(action,)) for action in beside]
    pullers = [threading.Thread(target=bring, args=(name,)) for name in ("a", "b", "c")]
    for thread in (*helpers, *pullers):
        thread.start()
    for thread in pullers:
        thread.join()
    ended.set()
    for thread in helpers:
        thread.join()
    assert failures == []
    for name in ("a", "c"):
        image = store.image(f"{place.host}/{name}:1")
        for layer, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
            unpack_layer(store, layer, diff_id, str(layers))
    assert all((layers / diff_id.partition(":")[2]).is_dir() for diff_id in in_use)
    assert leftovers(store) == []
    assert not [name for name in os.listdir(layers) if name.endswith(".tmp")]


# ---- memory ----

PULL = """
import resource, sys; sys.path.insert(0, sys.argv[1])
from mini_docker.images.child import unpack_beside
from mini_docker.images.compression import compress
from mini_docker.images.layout import Layout
from mini_docker.images.reference import parse_reference
from mini_docker.registry.pull import pull
store = Layout(sys.argv[2]); store.create()
pull(store, parse_reference(sys.argv[3]),
     unpack=lambda layer, diff_id: unpack_beside(store, layer, diff_id, sys.argv[2] + "/layers"))
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0],
      resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def large_layer(layout: Layout, size: int) -> tuple[Descriptor, str]:
    """Store a layer of one file of `size` bytes, a little noise and many zeros, made in pieces."""
    found, member = hashlib.sha256(), Member("large", FILE)
    member.size = size
    noise = os.urandom(5 << 20)

    def pieces() -> Iterator[bytes]:
        zeros = repeat(bytes(1 << 20), (size - len(noise)) >> 20)
        for piece in chain([header_blocks(member), noise], zeros, [end_of_archive()]):
            found.update(piece)
            yield piece

    with layout.ingest(Descriptor(f"{MEDIA_TYPE_LAYER}+gzip", "", -1)) as ingest:
        for piece in compress(pieces(), "gzip", 1):
            ingest.write(piece)
        return ingest.commit(), f"sha256:{found.hexdigest()}"


def test_memory_does_not_grow_with_the_layer(open_registry: Place, tmp_path: Path) -> None:
    """A layer of 250 MB is downloaded, checked and unpacked by two processes in less than 50 MB each."""
    source, reference = make_store(tmp_path / "source"), open_registry.reference("memory:1")
    layer, diff_id = large_layer(source, 250 << 20)
    image_of(source, reference.familiar(), (source.open_blob(layer.digest).read(), diff_id))
    push(source, reference, settings=open_registry.settings)
    words = [str(ROOT), f"{tmp_path}/pulled", f"{open_registry.host}/memory:1"]
    told = subprocess.run(
        [sys.executable, "-ISE", "-c", PULL, *words], stdout=subprocess.PIPE, check=True
    )
    kilobytes = list(map(int, told.stdout.split()))
    assert len(kilobytes) == 2 and max(kilobytes) < 50_000
    unpacked = tmp_path / "pulled" / "layers" / diff_id.partition(":")[2] / "large"
    assert unpacked.stat().st_size == 250 << 20
    shutil.rmtree(tmp_path / "pulled")
