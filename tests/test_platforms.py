"""Images of other platforms, indexes of several, and artifacts: stored, sent, saved, removed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mini_docker.images.archive import load, save
from mini_docker.images.catalog import find, inspect, list_images
from mini_docker.images.layout import (
    INDEX_TYPES,
    MEDIA_TYPE_EMPTY,
    MEDIA_TYPE_INDEX,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    Layout,
    as_json,
    entry_name,
    this_platform,
)
from mini_docker.images.remove import remove
from mini_docker.registry.errors import BadContent
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
from mini_docker.registry.queries import open_repository, referrers
from tests.conftest import cannot_run_here
from tests.registries import Place, make_image, make_store, open_registry
from tests.test_store import blobs, leftovers

__all__ = ["open_registry"]
OURS = this_platform()
OTHER = "linux/arm64" if OURS != "linux/arm64" else "linux/amd64"


@pytest.fixture
def source(tmp_path: Path) -> Layout:
    """A store with the index both:1 of an image for this machine and one for another, with annotations."""
    layout = make_store(tmp_path / "source")
    entries = []
    for platform in (OTHER, OURS):
        name = platform.partition("/")[2]
        made = make_image(layout, f"{name}:1", {"etc/platform": platform.encode()},
                          platform=platform, annotations={"org.example": platform})  # fmt: skip
        layout.untag(f"{name}:1")
        layout.forget([made.digest])
        about = dict(zip(("os", "architecture"), platform.split("/"), strict=True))
        entries.append({**as_json(made), "platform": about})
    index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": entries,
             "annotations": {"org.example": "both"}}  # fmt: skip
    layout.name_image("both:1", index)
    return layout


def root(layout: Layout, name: str) -> Descriptor:
    """Return what index.json says of a name."""
    (entry,) = (one for one in layout.entries() if entry_name(one) == name)
    return Descriptor(entry["mediaType"], entry["digest"], entry["size"])


def architecture(layout: Layout, name: str) -> str:
    return f"linux/{inspect(layout, name)['Architecture']}"


def give(layout: Layout, place: Place, name: str, old: str) -> str:
    """Push what is called `old` as `name`, and return its full name."""
    reference = place.reference(name)
    layout.tag(reference.familiar(), root(layout, old))
    push(layout, reference, credentials=place.credentials, settings=place.settings)
    return reference.familiar()


def fetched(place: Place, folder: Path, name: str, platform: str | None = None) -> Layout:
    """Return a new store into which an image was pulled."""
    layout = make_store(folder)
    pull(layout, place.reference(name), platform=platform, credentials=place.credentials,
         settings=place.settings)  # fmt: skip
    return layout


def moved(layout: Layout, name: str, folder: Path) -> Layout:
    """Return a new store into which a saved image was loaded."""
    record, other = find(layout, name), make_store(folder)
    assert load(other, save(layout, [(record.image, record.names)]))[0].names == record.names
    assert leftovers(other) == []
    return other


# ---- indexes and platforms ----


def test_an_index_travels_whole_or_as_the_one_image_that_is_here(
    open_registry: Place, source: Layout, tmp_path: Path
) -> None:
    name = give(source, open_registry, "platforms/both:1", "both:1")
    whole = root(source, "both:1")
    here = fetched(open_registry, tmp_path / "here", "platforms/both:1")
    assert (root(here, name), architecture(here, name)) == (whole, OURS)
    assert blobs(here) == 4  # the index, and one image of it
    there = fetched(open_registry, tmp_path / "there", "platforms/both:1", OTHER)
    assert architecture(there, name) == OTHER
    assert root(there, name) == Descriptor(
        MEDIA_TYPE_MANIFEST, source.resolve("both:1", OTHER).digest, root(there, name).size
    )
    for layout, platform in ((here, OURS), (there, OTHER)):
        alone = give(layout, open_registry, "platforms/alone:1", name)
        with open_repository(
            open_registry.reference("platforms/alone:1"), *open_registry[1:]
        ) as found:
            pushed = found.manifest("1").descriptor
        assert pushed.digest == source.resolve("both:1", platform).digest
        layout.untag(alone)


def test_an_index_is_saved_whole_and_an_image_of_another_platform_too(
    open_registry: Place, source: Layout, tmp_path: Path
) -> None:
    both = moved(source, "both:1", tmp_path / "both")
    assert root(both, "both:1") == root(source, "both:1")
    for platform in (OURS, OTHER):
        assert both.resolve("both:1", platform) == source.resolve("both:1", platform)
    name = give(source, open_registry, "platforms/saved:1", "both:1")
    for platform in (OURS, OTHER):
        folder = tmp_path / platform.replace("/", "-")
        layout = fetched(open_registry, folder, "platforms/saved:1", platform)
        other = moved(layout, name, Path(f"{folder}-moved"))
        assert architecture(other, name) == platform
        assert root(other, name).digest == source.resolve("both:1", platform).digest
    half = fetched(open_registry, tmp_path / "half", "platforms/saved:1")
    assert root(half, name).media_type in INDEX_TYPES
    assert root(moved(half, name, tmp_path / "half-moved"), name).media_type == MEDIA_TYPE_MANIFEST


def test_an_index_without_our_platform_is_listed_and_removed(
    source: Layout, tmp_path: Path
) -> None:
    index = source.read_json(root(source, "both:1").digest)
    other = source.name_image("other:1", {**index, "manifests": index["manifests"][:1]})
    source.untag("both:1")
    source.forget([entry["digest"] for entry in source.entries() if not entry_name(entry)])
    assert [row["RepoTags"] for row in list_images(source)] == [["other:1"]]
    assert architecture(source, "other:1") == OTHER
    assert moved(source, "other:1", tmp_path / "moved").has(other.digest)
    assert [next(iter(step)) for step in remove(source, "other:1")] == [
        "Untagged",
        "Deleted",
        "Deleted",
    ]
    assert (source.names(), blobs(source)) == ([], 0)


# ---- annotations, artifacts, referrers ----


def test_an_artifact_is_sent_found_by_its_subject_and_not_taken_for_an_image(
    open_registry: Place, source: Layout, tmp_path: Path
) -> None:
    """docker-registry 2.8 knows no referrers: the list is kept in a tag, as the specification says."""
    subject = root(source, "both:1")
    name = open_registry.reference("platforms/signed:1")
    give(source, open_registry, "platforms/signed:1", "both:1")
    empty = source.put(b"{}", MEDIA_TYPE_EMPTY)
    blob = source.put(b"signed by ada", "text/plain")
    artifact = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "artifactType": "text/signature",
                "config": as_json(empty), "layers": [as_json(blob)], "subject": as_json(subject),
                "annotations": {"org.example": "signature"}}  # fmt: skip
    stored = source.name_image(f"{open_registry.host}/platforms/signed:signature", artifact)
    reference = open_registry.reference("platforms/signed:signature")
    for _ in range(2):  # twice is once
        push(source, reference, settings=open_registry.settings)
    found = referrers(name, *open_registry[1:])
    assert [(one["digest"], one["artifactType"]) for one in found] == [
        (stored.digest, "text/signature")
    ]
    with open_repository(reference, *open_registry[1:]) as repository:
        assert json.loads(repository.manifest("signature").data) == artifact
        assert repository.referrers(subject.digest, "text/other") == []
    store = make_store(tmp_path / "store")
    with pytest.raises(
        BadContent, match="signed:signature: an artifact of type 'text/signature', no"
    ):
        pull(store, reference, settings=open_registry.settings)
    assert (store.names(), blobs(store), leftovers(store)) == ([], 0, [])


# ---- peers ----


@pytest.mark.peers
def test_skopeo_takes_our_index_and_we_take_its(
    open_registry: Place, source: Layout, tmp_path: Path
) -> None:
    if not shutil.which("skopeo"):
        cannot_run_here("skopeo is not installed (remedy: sudo labs/provision.sh --peers)")
    give(source, open_registry, "platforms/peers:1", "both:1")

    def skopeo(*words: str) -> None:
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        done = subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *plain, *words],
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr

    ours, theirs = (
        f"docker://{open_registry.host}/platforms/{one}:1" for one in ("peers", "skopeo")
    )
    skopeo("--all", ours, theirs)
    taken = fetched(open_registry, tmp_path / "taken", "platforms/skopeo:1", OTHER)
    name = open_registry.reference("platforms/skopeo:1").familiar()
    assert root(taken, name).digest == source.resolve("both:1", OTHER).digest
    skopeo("--all", ours, f"oci-archive:{tmp_path}/both.tar:both:1")
    loaded = make_store(tmp_path / "loaded")
    with open(tmp_path / "both.tar", "rb") as file:
        load(loaded, iter(lambda: file.read(1 << 18), b""))
    assert root(loaded, "both:1").digest == root(source, "both:1").digest
    archive = tmp_path / "ours.tar"
    record = find(source, "both:1")
    archive.write_bytes(b"".join(save(source, [(record.image, ("both:1",))])))
    skopeo("--all", f"oci-archive:{archive}:docker.io/library/both:1", f"dir:{tmp_path}/dir")
    manifest = (tmp_path / "dir" / "manifest.json").read_bytes()
    assert manifest == source.open_blob(root(source, "both:1").digest).read()
