"""The content store: blobs on their way in, leases, collection, and kills in the middle of each."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images import ingest as ingest_module
from mini_docker.images.ingest import collect, open_locked
from mini_docker.images.layout import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MEDIA_TYPE_INDEX,
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

DATA = bytes(range(256)) * 64
WANTED = Descriptor(MEDIA_TYPE_LAYER, Digest.of(DATA), len(DATA))
MISSING = Descriptor(MEDIA_TYPE_MANIFEST, "sha256:" + "0" * 64, 1)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return new_layout(tmp_path / "images")


def new_layout(path: Path) -> Layout:
    layout = Layout(str(path))
    layout.create()
    return layout


def blobs(layout: Layout) -> int:
    return sum(len(files) for _, _, files in os.walk(f"{layout.directory}/blobs"))


def leftovers(layout: Layout) -> list[str]:
    return [
        name for part in ("ingest", "leases") for name in os.listdir(f"{layout.directory}/{part}")
    ]


def make_image(
    layout: Layout, name: str, platform: str = "", docker: bool = False, **config: Any
) -> Descriptor:
    """Store an image of one layer, and name it unless `name` is empty."""
    layer = layout.put(f"layer of {name} {platform}".encode(), MEDIA_TYPE_LAYER)
    document = {"rootfs": {"type": "layers", "diff_ids": [layer.digest]}, **config}
    described = layout.put(json.dumps(document).encode(), DOCKER_CONFIG)
    kind = DOCKER_MANIFEST if docker else MEDIA_TYPE_MANIFEST
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": as_json(described)}
    data = json.dumps({**manifest, "layers": [as_json(layer)]}).encode()
    descriptor = layout.put(data, kind)
    if name:
        layout.tag(name, descriptor)
    return descriptor


def make_index(layout: Layout, name: str, kind: str, **by_platform: Descriptor) -> Descriptor:
    manifests = []
    for platform, descriptor in by_platform.items():
        os_name, architecture, *variant = platform.split("_")
        entry = {"os": os_name, "architecture": architecture}
        entry |= {"variant": variant[0]} if variant else {}
        manifests.append({**as_json(descriptor), "platform": entry})
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}
    descriptor = layout.put(json.dumps(document).encode(), kind)
    layout.tag(name, descriptor)
    return descriptor


# ---- digests ----


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_names_its_algorithm_and_its_blob(layout: Layout, algorithm: str) -> None:
    digest = Digest.of(DATA, algorithm)
    assert Digest.parse(digest) == digest
    with layout.ingest(Descriptor("", digest, len(DATA))) as ingest:
        ingest.write(DATA)
        ingest.commit()
    path = Path(layout.directory, "blobs", algorithm, digest.encoded)
    assert path.read_bytes() == DATA
    assert layout.open_blob(digest).read() == DATA


# ---- ingest ----


def test_a_blob_is_invisible_until_it_is_whole(layout: Layout) -> None:
    with layout.ingest(WANTED) as ingest:
        ingest.write(DATA)
        assert not layout.has(WANTED.digest)
        assert ingest.commit() == WANTED
    assert layout.has(WANTED.digest)
    assert leftovers(layout) == []


def test_a_broken_download_goes_on_where_it_stopped(layout: Layout) -> None:
    with layout.ingest(WANTED) as ingest:
        ingest.write(DATA[:1000])
        ingest.abandon(keep=True)
    with layout.ingest(WANTED) as ingest:
        assert ingest.offset == 1000
        ingest.write(DATA[1000:])
        assert ingest.commit() == WANTED
    with layout.ingest(WANTED) as ingest:
        assert ingest.offset == len(DATA)
        assert ingest.commit() == WANTED


def test_a_download_can_begin_again(layout: Layout) -> None:
    with layout.ingest(WANTED) as ingest:
        ingest.write(b"from a server that cannot resume")
        ingest.restart()
        ingest.write(DATA)
        assert ingest.commit() == WANTED


WRONG: dict[str, tuple[bytes, Descriptor, str]] = {
    "too short": (DATA[:-1], WANTED, "16383 of 16384 bytes"),
    "too long": (DATA + b"x", WANTED, "more than 16384 bytes"),
    "other bytes": (DATA[::-1], WANTED, "the bytes that came have the digest sha256:"),
    "no digest": (b"", Descriptor("", "sha256:abc", 0), "not a sha256 or sha512 digest"),
    "a size beyond reason": (b"", WANTED._replace(size=1 << 50), "are more than"),
}


@pytest.mark.parametrize(("data", "wanted", "words"), WRONG.values(), ids=WRONG)
def test_what_is_not_the_blob_is_refused_and_thrown_away(
    layout: Layout, data: bytes, wanted: Descriptor, words: str
) -> None:
    with pytest.raises(ImageError, match=words), layout.ingest(wanted) as ingest:
        ingest.write(data)
        ingest.commit()
    assert blobs(layout) == 0
    assert leftovers(layout) == []


def test_two_bring_the_same_blob_at_once(layout: Layout) -> None:
    with layout.ingest(WANTED) as first, layout.ingest(WANTED) as second:
        first.write(DATA[:5])
        second.write(DATA)
        assert second.commit() == WANTED
        first.write(DATA[5:])
        assert first.commit() == WANTED
    assert layout.open_blob(WANTED.digest).read() == DATA
    assert leftovers(layout) == []


def test_eight_threads_bring_the_same_blobs(layout: Layout) -> None:
    def bring() -> None:
        with layout.lease() as lease:
            for number in range(20):
                data = b"%d" % number * 1000
                with lease.ingest(Descriptor("", Digest.of(data), len(data))) as ingest:
                    for start in range(ingest.offset, len(data), 100):
                        ingest.write(data[start : start + 100])
                    ingest.commit()
            digests = [Digest.of(b"%d" % number * 1000) for number in range(20)]
            assert all(map(layout.has, digests))
        done.append(True)

    done: list[bool] = []
    threads = [threading.Thread(target=bring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8
    assert (blobs(layout), leftovers(layout)) == (0, [])


def test_a_file_that_was_renamed_meanwhile_is_not_locked(tmp_path: Path) -> None:
    fd = open_locked(str(tmp_path / "a"), os.O_CREAT)
    assert fd is not None and open_locked(str(tmp_path / "a")) is None
    os.close(fd)


# ---- names and platforms ----


def test_a_tag_that_moves_leaves_a_nameless_image(layout: Layout) -> None:
    old, new = make_image(layout, "a", marker=1), make_image(layout, "b", marker=2)
    layout.tag("a", new)
    assert layout.names() == ["a:latest", "b:latest"]
    assert layout.image("a").digest == layout.image("b").digest == new.digest
    nameless = [entry for entry in layout.entries() if "annotations" not in entry or
                not entry["annotations"]]  # fmt: skip
    assert [entry["digest"] for entry in nameless] == [old.digest]
    layout.tag("c", old)
    assert len(layout.entries()) == 3


def test_the_last_name_goes_and_the_image_stays(layout: Layout) -> None:
    image = make_image(layout, "a")
    layout.tag("b", image)
    layout.untag("a")
    assert [entry["annotations"] for entry in layout.entries()] != [{}]
    layout.untag("b")
    assert [(e["digest"], e["annotations"]) for e in layout.entries()] == [(image.digest, {})]
    with pytest.raises(NoSuchImage):
        layout.untag("b")


def test_a_tag_of_what_is_not_here_is_refused(layout: Layout) -> None:
    with pytest.raises(ImageError, match="is not in the store"):
        layout.tag("a", MISSING)
    assert layout.entries() == []


@pytest.mark.parametrize(("kind", "docker"), [(MEDIA_TYPE_INDEX, False), (DOCKER_LIST, True)])
def test_an_index_leads_to_the_image_of_a_platform(layout: Layout, kind: str, docker: bool) -> None:
    amd, arm = (make_image(layout, "", name, docker) for name in ("amd", "arm"))
    make_index(layout, "x", kind, linux_amd64=amd, linux_arm64_v8=arm, unknown_unknown=MISSING)
    assert layout.resolve("x", "linux/amd64").digest == amd.digest
    assert layout.resolve("x", "linux/arm64").digest == arm.digest
    assert layout.resolve("x", "linux/arm64/v8").digest == arm.digest
    with pytest.raises(ImageError, match="not made for linux/s390x, only for: linux/amd64, linux"):
        layout.resolve("x", "linux/s390x")


def test_a_variant_is_matched(layout: Layout) -> None:
    six, seven = make_image(layout, "", "six"), make_image(layout, "", "seven")
    make_index(layout, "x", MEDIA_TYPE_INDEX, linux_arm_v6=six, linux_arm_v7=seven)
    assert layout.resolve("x", "linux/arm/v7").digest == seven.digest
    assert layout.resolve("x", "linux/arm").digest == six.digest
    with pytest.raises(ImageError, match="not made for linux/arm/v5"):
        layout.resolve("x", "linux/arm/v5")


def test_an_image_without_a_platform_is_for_all(layout: Layout) -> None:
    make_image(layout, "x")
    assert layout.image("x").id == layout.resolve("x", "plan9/mips").id
    assert this_platform().startswith("linux/")


# ---- leases and collection ----


def test_what_no_image_needs_is_collected_and_nothing_else(layout: Layout) -> None:
    one, other = make_image(layout, "a"), make_image(layout, "", "other")
    make_index(layout, "x", MEDIA_TYPE_INDEX, linux_amd64=other, linux_arm64=MISSING)
    garbage = layout.put(b"garbage", "")
    assert collect(layout) == [garbage.digest]
    assert layout.image("a").digest == one.digest
    assert layout.resolve("x", "linux/amd64").digest == other.digest


def test_collection_removes_nothing_that_a_lease_holds(layout: Layout) -> None:
    with layout.lease() as lease:
        assert not lease.has(WANTED.digest)
        with lease.ingest(WANTED) as ingest:
            ingest.write(DATA[:10])
            assert collect(layout) == []
            ingest.write(DATA[10:])
            ingest.commit()
        config = lease.put(b"{}", DOCKER_CONFIG)
        assert collect(layout) == []
        assert layout.has(WANTED.digest) and layout.has(config.digest)
    assert (blobs(layout), leftovers(layout)) == (0, [])


def test_what_got_a_name_outlives_its_lease(layout: Layout) -> None:
    with layout.lease() as lease:
        descriptor = make_image(layout, "a")
        lease.hold(descriptor.digest)
    assert (layout.image("a").digest, blobs(layout)) == (descriptor.digest, 3)


def test_a_resumable_lease_that_failed_is_taken_up_by_the_next(layout: Layout) -> None:
    with pytest.raises(KeyboardInterrupt), layout.lease(resumable=True) as lease:
        done = lease.put(b"whole", "")
        with lease.ingest(WANTED) as ingest:
            ingest.write(DATA[:100])
            ingest.abandon(keep=True)
        raise KeyboardInterrupt
    assert layout.has(done.digest)
    with layout.lease() as lease:
        assert lease.has(done.digest)
        with lease.ingest(WANTED) as ingest:
            assert ingest.offset == 100
            ingest.abandon(keep=True)
    assert (blobs(layout), leftovers(layout)) == (0, [])


def test_damage_stops_the_collector_before_it_removes_anything(layout: Layout) -> None:
    image = make_image(layout, "a")
    layout.put(b"garbage", "")
    Path(layout.blob_path(image.digest)).write_text("{")
    with pytest.raises(ImageError, match=image.digest):
        collect(layout)
    assert blobs(layout) == 4


def in_fork(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def test_a_kill_at_random_moments_leaves_nothing_after_the_next_command(layout: Layout) -> None:
    kept = make_image(layout, "kept")

    def bring() -> None:
        for round_ in range(1000):
            with layout.lease() as lease:
                for part in range(5):
                    data = b"%d %d " % (round_, part) * 2000
                    with lease.ingest(Descriptor("", Digest.of(data), len(data))) as ingest:
                        for start in range(0, len(data), 5000):
                            ingest.write(data[start : start + 5000])
                        ingest.commit()
                layout.tag("moving", lease.put(b'{"layers": [], "round": %d}' % round_, ""))
            collect(layout)

    for turn in range(20):
        pid = in_fork(bring)
        time.sleep(0.002 + 0.0037 * turn)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert layout.image("kept").digest == kept.digest
        with layout.lease():
            pass
        assert leftovers(layout) == []
        for directory, _, names in os.walk(f"{layout.directory}/blobs"):
            for name in names:
                assert Digest.of(Path(directory, name).read_bytes()).encoded == name
        assert sorted(os.listdir(layout.directory)) == [
            "blobs", "index.json", "ingest", "leases", "lock", "oci-layout"]  # fmt: skip
    collect(layout)
    assert blobs(layout) <= 3 + 20


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_is_said_and_leaves_the_store_as_it_was(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Full:
        """`os`, whose `call` fails."""

        def __getattr__(self, name: str) -> Any:
            return fail if name == call else getattr(os, name)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    make_image(layout, "kept")
    with monkeypatch.context() as patch, layout.lease() as lease:
        lease.hold(WANTED.digest)
        patch.setattr(ingest_module, "os", Full())
        words = "No space left on device; remedy: free some space"
        with pytest.raises(ImageError, match=words), layout.ingest(WANTED) as ingest:
            ingest.write(DATA)
            ingest.commit()
    assert (blobs(layout), leftovers(layout)) == (3, [])
