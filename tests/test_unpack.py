"""Layers: what their entries become, and what those become that attack the directory they go into."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images import unpack
from mini_docker.images.layers import unpack_layer
from mini_docker.images.layout import MEDIA_TYPE_LAYER, Digest, ImageError, Layout
from mini_docker.images.tar import LayerError

pytestmark = pytest.mark.root
DIGEST = "sha256:" + "0" * 64

# an entry: name, type, link target, contents, and what else is set on its header
FILE, DIR, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Entry = tuple[str, bytes, str, bytes, dict[str, Any]]


def entry(name: str, kind: bytes = FILE, to: str = "", data: bytes = b"", **header: Any) -> Entry:
    return name, kind, to, data, header


def tar(*entries: Entry) -> bytes:
    output = io.BytesIO()
    extended = any("pax_headers" in header for *_, header in entries)
    kind_of_tar = tarfile.PAX_FORMAT if extended else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=output, mode="w", format=kind_of_tar) as archive:
        for name, kind, target, data, header in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, len(data)
            info.mode = 0o755 if kind == DIR else 0o644
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


class Case:
    """A layout, an empty directory for layers, and beside it a file of the host to attack."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        self.layout, self.layers = layout, directory / "layers"
        self.layers.mkdir()
        (directory / "host").mkdir()
        self.secret = directory / "host/secret"
        self.secret.write_text("secret")

    def unpack(self, data: bytes, diff_id: str | None = None, **changed: Any) -> Path:
        """Unpack a layer whose blob is `data`; `changed` are wrong fields of its descriptor."""
        layer = self.layout.put(data, MEDIA_TYPE_LAYER)._replace(**changed)
        if "digest" in changed:
            Path(self.layout.blob_path(layer.digest)).write_bytes(data)
        return Path(unpack_layer(self.layout, layer, diff_id or Digest.of(data), str(self.layers)))

    def untouched(self) -> None:
        assert os.listdir(self.secret.parent) == ["secret"]
        assert self.secret.read_text() == "secret"
        assert self.secret.stat().st_nlink == 1


@pytest.fixture
def case(tmp_path: Path) -> Case:
    layout = Layout(str(tmp_path / "images"))
    layout.create()
    return Case(layout, tmp_path)


HOST = "HOST"  # becomes the path of the host's directory


def with_host(case: Case, entries: tuple[Entry, ...]) -> bytes:
    host = str(case.secret.parent)
    return tar(*((n, kind, to.replace(HOST, host), d, h) for n, kind, to, d, h in entries))


REFUSED: dict[str, tuple[Entry, ...]] = {
    "dots first": (entry("../../host/new"),),
    "dots inside": (entry("a/../../../host/new"),),
    "dots alone": (entry("a/.."),),
    "a file below a file": (entry("a"), entry("a/b")),
    "a loop of links": (entry("a", LINK, "b"), entry("b", LINK, "a"), entry("a/new")),
    "50 links in a row": (*(entry(f"{i}", LINK, f"{i + 1}") for i in range(50)), entry("0/new")),
    "a hard link to the host": (entry("x", HARD, "../../host/secret"),),
    "a hard link to the host, absolute": (entry("x", HARD, HOST + "/secret"),),
    "a hard link over a link": (entry("l", LINK, HOST), entry("x", HARD, "l/secret")),
    "a hard link to nothing": (entry("x", HARD, "missing"),),
    "a hard link to a directory": (entry("d", DIR), entry("x", HARD, "d")),
    "a file in place of a directory": (entry("d", DIR), entry("d")),
    "an unknown type": (entry("x", b"Z"),),
    "a whiteout without a name": (entry(".wh."),),
    "a whiteout of the directory above": (entry("d/.wh..."),),
    "a whiteout of the directory itself": (entry("d/.wh.."),),
    "a link to nothing": (entry("x", LINK, ""),),
    "a NUL in a name": (entry("x", pax_headers={"path": "a\0b"}),),
    "a NUL in a link": (entry("x", LINK, "y", pax_headers={"linkpath": "a\0b"}),),
    "a time after the end of time": (entry("x", pax_headers={"mtime": "1e30"}),),
    "a time that is no number": (entry("x", pax_headers={"mtime": "nan"}),),
    "an owner beyond all owners": (entry("x", pax_headers={"uid": "99999999999999999999"}),),
    "a device beyond all devices": (entry("x", tarfile.CHRTYPE, devmajor=1 << 40),),
}  # fmt: skip


@pytest.mark.parametrize("entries", REFUSED.values(), ids=REFUSED)
def test_a_layer_that_attacks_is_refused(case: Case, entries: tuple[Entry, ...]) -> None:
    with pytest.raises(LayerError):
        case.unpack(with_host(case, entries))
    case.untouched()
    assert os.listdir(case.layers) == []


def test_a_path_of_1500_levels_is_unpacked_or_refused(case: Case) -> None:
    try:
        case.unpack(tar(entry("d/" * 1500 + "x")))
    except LayerError:
        assert os.listdir(case.layers) == []
    except Exception as error:
        pytest.fail(f"{type(error).__name__} instead of LayerError", pytrace=False)
    finally:
        subprocess.run(["rm", "-rf", case.layers], check=True)


INSIDE: dict[str, tuple[tuple[Entry, ...], str]] = {
    # entries, and where in the root the new file then is
    "an absolute name": ((entry("/etc/new"),), "etc/new"),
    "an absolute link": ((entry("l", LINK, HOST), entry("l/new")), HOST + "/new"),
    "a relative link": ((entry("l", LINK, "../../host"), entry("l/new")), "host/new"),
    "a dangling link": ((entry("l", LINK, "a/b"), entry("l/c/new")), "a/b/c/new"),
    "links in a row": ((entry("d/a", LINK, "/b"), entry("b", LINK, "../../c"), entry("d/a/new")), "c/new"),
    "a link to the root": ((entry("l", LINK, "/"), entry("l/l/new")), "new"),
    "a directory replaces a link": ((entry("l", LINK, HOST), entry("l", DIR), entry("l/new")), "l/new"),
    "a directory replaces a file": ((entry("d"), entry("d", DIR), entry("d/new")), "d/new"),
    "a file replaces a link": ((entry("new", LINK, HOST + "/secret"), entry("new")), "new"),
    "dots that stay": ((entry("./a/./new"),), "a/new"),
    "a hard link": ((entry("a/x"), entry("new", HARD, "/a/x")), "new"),
    "a hard link to a link": ((entry("x", LINK, HOST), entry("new", HARD, "x")), "new"),
    "a name of dots": ((entry("new"), entry("...")), "..."),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "where"), INSIDE.values(), ids=INSIDE)
def test_an_entry_stays_inside_the_root(case: Case, entries: tuple[Entry, ...], where: str) -> None:
    root = case.unpack(with_host(case, entries))
    assert os.path.lexists(root / where.replace(HOST, str(case.secret.parent).lstrip("/")))
    case.untouched()


def test_the_later_of_two_entries_wins(case: Case) -> None:
    root = case.unpack(tar(entry("a", data=b"one", mode=0o600), entry("a", data=b"two")))
    assert ((root / "a").read_bytes(), (root / "a").stat().st_mode) == (b"two", 0o100644)


def test_modes_owners_times_kinds_and_odd_names_are_kept(case: Case) -> None:
    odd = b"\xff\n".decode(errors="surrogateescape")
    data = tar(
        entry("d", DIR, mode=0o1777, mtime=77),
        entry("d/setuid", data=b"x" * 5000, mode=0o6755, uid=7, gid=8, mtime=1_000_000_000),
        entry("link", LINK, "/nowhere", uid=7),
        entry("pipe", tarfile.FIFOTYPE, mode=0o600),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=1, mode=0o600),
        entry(odd),
    )
    root = case.unpack(gzip.compress(data), Digest.of(data))
    status = os.stat(root / "d/setuid")
    assert (status.st_mode, status.st_uid, status.st_gid) == (0o106755, 7, 8)
    assert (status.st_mtime, status.st_size) == (1_000_000_000, 5000)
    assert (os.lstat(root / "link").st_uid, os.readlink(root / "link")) == (7, "/nowhere")
    assert (os.stat(root / "pipe").st_mode, os.stat(root / "d").st_mode) == (0o010600, 0o041777)
    assert os.stat(root / "d").st_mtime == 77  # though a file came into it later
    assert os.stat(root / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(os.stat(root / "disk").st_mode)
    assert b"\xff\n" in os.listdir(os.fsencode(root))


def test_whiteouts_hide_what_is_below_and_nothing_of_their_own_layer(case: Case) -> None:
    """layer.md: "Files that are present in the same layer as a whiteout file can only be hidden by
    whiteout files in subsequent layers."."""
    root = case.unpack(
        tar(
            entry("gone/.wh.x"),
            entry("opaque/.wh..wh..opq"),
            *(
                entry("a"),
                entry(".wh.a"),
                entry(".wh.b"),
                entry("b"),
                entry(".wh.c"),
                entry(".wh.c"),
            ),
            *(entry("d/x"), entry(".wh.d")),
        )
    )
    status = os.stat(root / "gone/x")
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(root / "opaque", "trusted.overlay.opaque") == b"y"
    assert os.listdir(root / "opaque") == []
    assert [(root / name).is_file() for name in ("a", "b", "d/x")] == [True] * 3
    assert sorted(os.listdir(root)) == ["a", "b", "c", "d", "gone", "opaque"]


def test_the_umask_of_the_caller_does_not_close_the_root(case: Case) -> None:
    before = os.umask(0o077)
    try:
        root = case.unpack(tar(entry("made/on/the/way")))
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(os.stat(path).st_mode) for path in (root, root / "made", root / "made/on")
    ]
    assert modes == [0o755] * 3


def test_an_empty_layer_is_a_layer(case: Case) -> None:
    assert os.listdir(case.unpack(bytes(1024))) == []


DATA = tar(entry("a", data=b"x" * 100_000))
PACKED = gzip.compress(DATA, mtime=0)
WRONG: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no tar": (b"#!/bin/sh\n" * 99, {}, "not a tar archive"),
    "half a tar": (DATA[: len(DATA) // 2], {}, "not a tar archive"),
    "half a gzip": (PACKED[:-20], {"diff_id": Digest.of(DATA)}, ""),
    "a damaged gzip": (PACKED[:40] + bytes(20) + PACKED[60:], {"diff_id": Digest.of(DATA)}, ""),
    "another digest": (DATA, {"digest": DIGEST}, "do not match its digest"),
    "another size": (DATA, {"size": 5}, "do not match its digest"),
    "another diff_id": (DATA, {"diff_id": DIGEST}, f"its image says {DIGEST}"),
    "a diff_id that is a path": (DATA, {"diff_id": "sha256:../host"}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("data", "changed", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_or_damaged_layer_leaves_nothing(
    case: Case, data: bytes, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(ImageError, match=words or "layer"):
        case.unpack(data, **changed)
    assert os.listdir(case.layers) == []


@pytest.mark.parametrize(("limit", "most"), [("MAX_FILES", 2), ("MAX_BYTES", 10240)])
def test_a_layer_that_is_too_big_is_refused(
    case: Case, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(unpack, limit, most)
    with pytest.raises(LayerError, match="holds more than"):
        case.unpack(tar(*(entry(name, data=b"x" * 3000) for name in "abc")))
    case.unpack(tar(entry("a", data=b"xx"), entry("b", data=b"xx")))


def in_fork(function: Callable[[], object]) -> int:
    """Call `function` in a fork of this process; return the fork's pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def test_a_kill_in_the_middle_is_as_if_nothing_had_been(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    data = tar(entry("a"), entry("d", DIR), entry("b"))
    with monkeypatch.context() as patch:
        patch.setattr(unpack, "_make_directory", killed)
        assert os.waitpid(in_fork(lambda: case.unpack(data)), 0)[1] == signal.SIGKILL
    assert not (case.layers / hashlib.sha256(data).hexdigest()).exists()
    assert sorted(os.listdir(case.unpack(data))) == ["a", "b", "d"]
    assert os.listdir(case.layers) == [
        hashlib.sha256(data).hexdigest()
    ]  # nor is anything left over


def test_two_processes_unpack_the_same_layer_at_once(case: Case) -> None:
    data = tar(*(entry(f"d{i % 7}/f{i}", data=b"x") for i in range(300)))
    pids = [in_fork(lambda: case.unpack(data)) for _ in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert os.listdir(case.layers) == [hashlib.sha256(data).hexdigest()]
    assert len(list(case.unpack(data).glob("*/*"))) == 300
