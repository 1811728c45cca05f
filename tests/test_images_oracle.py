"""Lists, filters, history, rmi and prune: dockerd and ours give the docker client the same answers."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from pathlib import Path

import pytest

from mini_docker.images.archive import save
from mini_docker.images.catalog import find
from mini_docker.images.layout import (
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Layout,
    as_json,
    this_platform,
)
from tests.daemons import CLIENT, Daemon, Dockerd
from tests.registries import make_layer, make_store
from tests.test_daemon_oracle import play

pytestmark = [pytest.mark.root, pytest.mark.peers]

# an image's names come in any order from dockerd: hence sort
TRANSCRIPT = r"""
images --format '{{.Repository}}:{{.Tag}} {{.ID}}'
images --no-trunc --format '{{.ID}} {{.CreatedAt}}'
images --digests --format '{{.Repository}} {{.Tag}} {{.Digest}}'
images -q
images -a -q
images app --format '{{.Repository}}:{{.Tag}}' | sort
images app:2 --format '{{.Repository}}:{{.Tag}}' | sort
images 'team/*' --format '{{.Repository}}:{{.Tag}}' | sort
images nosuch
images -q -f 'reference=app:*'
images -q -f 'reference=*/*:1'
images -q -f label=kind
images -q -f label=kind=old -f label=b
images -q -f label=kind=new
images -q -f before=app:1
images -q -f since=team/old:1
images -q -f before=nosuch
images -q -f dangling=true
images -q -f dangling=false
images -q -f dangling=maybe
images -q -f color=red
history --no-trunc --format '{{.ID}} {{.CreatedBy}} {{.Comment}}' app:1
history -q team/old:1
image inspect -f '{{.Id}} {{json .RepoTags}} {{json .RepoDigests}} {{.Author}} {{.Created}}' app:1
image inspect -f '{{json .RootFS}}' app:1
image inspect -f '{{json .Config.Labels}} {{json .Config.Cmd}} {{.Architecture}} {{.Os}}' team/old:1
tag app:1 elsewhere/third:x
tag app:1 app:1
tag app:1 UPPER:1
rmi app:2
rmi APP_ID
rmi app
rmi team/old:1 nosuch:1
images --format '{{.Repository}}:{{.Tag}}' | sort
create --name user used:1
rmi used:1
rmi USED_ID
rmi -f used:1
images -f dangling=true --format '{{.Repository}}:{{.Tag}} {{.ID}}'
rm user
image prune -f
images -q
load -qi ARCHIVE
create --name second used:1
commit -m child second child:1
images -a --format '{{.Repository}}:{{.Tag}}' | sort
rm second
rmi -f USED_ID
rmi used:1
images -a --format '{{.Repository}}:{{.Tag}}' | sort
history --format '{{.CreatedBy}}|{{.Comment}}' child:1
image prune -f
rmi child:1
images -a --format '{{.Repository}}:{{.Tag}}' | sort
image prune -af | sort
images -a -q
load -qi ARCHIVE
image prune -f --filter label=kind=old
image prune -af --filter label=kind=old --filter until=24h | sort
images --format '{{.Repository}}:{{.Tag}}' | sort
image prune -af --filter 'label!=kind' | sort
images --format '{{.Repository}}:{{.Tag}}' | sort
image prune -f --filter color=red
image prune -af --filter until=2000-01-01 | sort
rmi -f app:1 app:2 used:1
images -q
"""
NORMAL = (
    (r"Total reclaimed space: .*", "Total reclaimed space"),
    (r"sha256:ID\n", ""),  # of a commit: the time is in it
    (r"Deleted Images:\n", ""),
)


def make(
    layout: Layout, names: list[str], created: str, labels: dict[str, str], text: bytes
) -> None:
    """Store an image and name it."""
    packed, diff_id = make_layer({"etc/text": text})
    layer = layout.put(packed, f"{MEDIA_TYPE_LAYER}+gzip")
    system, architecture = this_platform().split("/")
    config = {"architecture": architecture, "os": system, "created": created, "author": "me",
              "config": {"Cmd": ["sh", "-c", "true"], "Labels": labels},
              "history": [{"created": created, "created_by": "ADD text", "comment": "first"},
                          {"created": created, "created_by": "CMD sh", "empty_layer": True}],
              "rootfs": {"type": "layers", "diff_ids": [diff_id]}}  # fmt: skip
    stored = layout.put(json.dumps(config).encode(), MEDIA_TYPE_CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": as_json(stored),
                "layers": [as_json(layer)]}  # fmt: skip
    for name in names:
        layout.name_image(name, manifest)


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """An archive of images, and what words of the transcript stand for."""
    layout = make_store(tmp_path / "images")
    make(layout, ["app:1", "app:2"], "2024-03-01T00:00:00Z", {"kind": "new"}, b"app")
    make(layout, ["team/old:1"], "2020-01-01T00:00:00Z", {"kind": "old", "b": ""}, b"old")
    make(layout, ["used:1"], "2022-01-01T00:00:00Z", {}, b"used")
    path = tmp_path / "images.tar"
    found = [find(layout, name) for name in ("app:1", "team/old:1", "used:1")]
    path.write_bytes(b"".join(save(layout, [(one.image, one.names) for one in found])))
    ids = {"APP_ID": found[0].image.id[7:19], "USED_ID": found[2].image.id[7:19]}
    return path, {"ARCHIVE": str(path), **ids}


def answers(host: str, words: dict[str, str]) -> list[str]:
    """Return what a daemon says to the transcript."""
    transcript = TRANSCRIPT
    for word, meaning in words.items():
        transcript = transcript.replace(word, meaning)
    text = "\n".join(play(host, transcript)) + "\n"
    for pattern, replacement in NORMAL:
        text = re.sub(pattern, replacement, text)
    return text.splitlines()


def test_both_say_the_same_of_images(
    own_daemon: Daemon, dockerd: Dockerd, archive: tuple[Path, dict[str, str]]
) -> None:
    path, words = archive
    own_daemon.forget()
    said = []
    for daemon in (own_daemon, dockerd):
        host = f"unix://{daemon.path}"
        load = [CLIENT, "-H", host, "load", "-qi", str(path)]
        subprocess.run(load, check=True, capture_output=True)
        said.append(answers(host, words))
    found, wanted = said
    assert found == wanted, "\n".join(difflib.unified_diff(wanted, found, "dockerd", "ours", n=2))
