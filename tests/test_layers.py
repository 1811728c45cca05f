"""Layers as tars: every format that tar, bsdtar and Go write is read; what we write is read by them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import socket
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_docker.images import compression
from mini_docker.images.compression import (
    CompressionError,
    Decompressor,
    compress,
    compression_of,
    expand,
    fast_gzip,
)
from mini_docker.images.layers import Ahead, chain_id
from mini_docker.images.layout import Digest
from mini_docker.images.pack import pack
from mini_docker.images.tar import (
    FILE,
    SYMLINK,
    LayerError,
    Member,
    Source,
    end_of_archive,
    header_blocks,
    read_members,
)
from mini_docker.images.unpack import unpack_tar
from mini_docker.storage.overlay import remove_tree
from tests.conftest import cannot_run_here

pytestmark = [pytest.mark.root, pytest.mark.anywhere]


# ---- compression ----

DATA = random.Random(1).randbytes(300_000) + bytes(700_000)


def zstd(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        cannot_run_here("zstd is not installed (remedy: apt-get install zstd)")
    return subprocess.run(["zstd", "-q"], input=data, capture_output=True, check=True).stdout


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd,
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_every_compression_is_recognised_and_expanded(kind: str, size: int) -> None:
    packed = KINDS[kind](DATA if size > 1 else DATA[:5000])
    pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert b"".join(expand(pieces)) == (DATA if size > 1 else DATA[:5000])
    assert compression_of(packed) == kind


@every_kind
def test_streams_in_a_row_are_one(kind: str) -> None:
    packed = KINDS[kind](b"a" * 1000) + KINDS[kind](b"b" * 1000)
    assert b"".join(expand([packed])) == b"a" * 1000 + b"b" * 1000


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage after the beginning"])
def test_damaged_data_is_an_error(kind: str, damage: str) -> None:
    packed = bytearray(KINDS[kind](DATA))
    if damage == "cut":
        del packed[-30:]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed[10:] = os.urandom(1000)
    with pytest.raises(CompressionError):
        b"".join(expand([bytes(packed)]))


def test_zlib_does_what_libisal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(DATA)
    slow = Decompressor(lambda: zlib.decompressobj(31))
    assert b"".join(slow.feed(packed)) == DATA and slow.done
    fast = fast_gzip()
    if fast is None:
        cannot_run_here("libisal is not installed (remedy: apt-get install libisal2)")
    assert b"".join(fast.feed(packed)) == DATA and fast.done
    monkeypatch.setattr(compression, "fast_gzip", lambda: None)
    assert b"".join(expand([packed])) == DATA


def test_a_bomb_expands_in_bounded_pieces() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    assert max(map(len, expand([bomb]))) <= compression.PIECE


def test_gzip_of_ours_is_gzip_and_always_the_same() -> None:
    once = b"".join(compress([DATA[:1000], DATA[1000:]], "gzip"))
    assert gzip.decompress(once) == DATA
    assert once == b"".join(compress([DATA[:1000], DATA[1000:]], "gzip"))
    assert b"".join(compress([b"a", b"b"], "")) == b"ab"


# ---- the tree that goes through everything ----


def make_tree(root: Path) -> None:
    """Make a directory with everything in it that a layer can have."""
    (root / "dir/empty").mkdir(parents=True)
    (root / "dir/file").write_bytes(b"contents" * 1000)
    (root / "dir/exact").write_bytes(b"x" * 512)
    (root / "dir/nothing").touch()
    os.chmod(root / "dir/file", 0o4755)
    os.chown(root / "dir/file", 12, 3_000_000_000)
    os.link(root / "dir/file", root / "second name")
    os.symlink("/dir/file", root / "link")
    os.lchown(root / "link", 5, 6)
    os.mkfifo(root / "pipe")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    long = root / ("long" * 40)
    long.mkdir(0o700)
    (long / ("name" * 60)).write_text("long")
    os.symlink("target/" * 40, long / "link")
    (root / "grüße").write_text("utf-8")
    (root / os.fsdecode(b"\xff\xfe\n")).write_text("no utf-8")
    with open(root / "sparse", "wb") as file:
        for offset in (1 << 20, 3 << 20):
            file.seek(offset)
            file.write(b"data" * 1024)
        file.truncate(5 << 20)
    os.setxattr(
        root / "dir/file", "security.capability", bytes.fromhex("0100000200200000" + "0" * 24)
    )
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(10**18, 10**18 + 5 * 10**9), follow_symlinks=False)


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Return all that counts of a tree, by path; hard links are told by the first of their names."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        kind = stat.S_IFMT(status.st_mode)
        regular, link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
        found[name] = (
            status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), status.st_rdev,
            first.setdefault(status.st_ino, name) if kind != stat.S_IFDIR else "",
            path.read_bytes() if regular else os.readlink(path) if link else b"",
            [] if link else [(k, os.getxattr(path, k)) for k in os.listxattr(path)],
        )  # fmt: skip
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    make_tree(root)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "out"
    root.mkdir()
    yield root
    remove_tree(str(root))


GNU = "tar -C {tree} --sort=name --xattrs --xattrs-include=* -c"
FORMATS = {
    "gnu": f"{GNU} --format=gnu --no-xattrs .",
    "gnu, sparse": f"{GNU} --format=gnu --no-xattrs -S .",
    "pax": f"{GNU} --format=pax .",
    "pax, sparse 0.1": f"{GNU} --format=pax -S --sparse-version=0.1 .",
    "pax, sparse 1.0": f"{GNU} --format=pax -S --sparse-version=1.0 .",
    "ustar": f"{GNU} --format=ustar --exclude=*longlong* --no-xattrs --owner=7 --group=8 .",
}


@pytest.mark.parametrize("command", FORMATS.values(), ids=FORMATS)
def test_what_gnu_tar_writes_becomes_what_gnu_tar_makes_of_it(
    tree: Path, out: Path, tmp_path: Path, command: str
) -> None:
    data = subprocess.run(command.format(tree=tree).split(), capture_output=True).stdout
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    extract = f"tar -C {theirs} --xattrs --xattrs-include=* --numeric-owner -xpf -".split()
    subprocess.run(extract, input=data, check=True)
    unpack_tar(io.BytesIO(data), str(out))
    assert describe(out) == describe(theirs)
    if "sparse" in command or "-S" in command:
        assert (out / "sparse").stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_pythons_tarfile_writes(tree: Path, out: Path, format: int) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as archive:
        archive.add(tree, ".")
    os.removexattr(tree / "dir/file", "security.capability")
    unpack_tar(io.BytesIO(output.getvalue()), str(out))
    assert describe(out) == describe(tree)


def packed(root: Path, **options: int | bool) -> bytes:
    return b"".join(pack(str(root), **options))  # type: ignore[arg-type]


def test_what_we_pack_we_unpack(tree: Path, out: Path) -> None:
    unpack_tar(io.BytesIO(packed(tree)), str(out))
    assert describe(out) == describe(tree)


def test_what_we_pack_gnu_tar_unpacks(tree: Path, out: Path) -> None:
    extract = f"tar -C {out} --xattrs --xattrs-include=* --numeric-owner -xpf -".split()
    done = subprocess.run(extract, input=packed(tree), capture_output=True, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert describe(out) == describe(tree)


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    once = packed(tree)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", tree, copy], check=True)
    assert packed(copy) == once
    os.utime(copy / "dir/file")
    assert packed(copy) != once
    assert packed(copy, time=0) == packed(tree, time=0)


def test_a_socket_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a/socket"))
        assert packed(tmp_path / "a") == end_of_archive()


def test_a_file_that_shrinks_while_it_is_packed_is_filled_up(tmp_path: Path, out: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log").write_bytes(b"x" * 10_000)
    parts = pack(str(tmp_path / "a"))
    data = next(parts)
    os.truncate(tmp_path / "a/log", 100)
    unpack_tar(io.BytesIO(data + b"".join(parts)), str(out))
    assert (out / "log").read_bytes() == b"x" * 100 + bytes(9900)


def test_a_difference_of_an_overlay_goes_through_a_tar(tmp_path: Path, out: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "opaque").mkdir(parents=True)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "opaque/new").touch()
    (upper / "kept").mkdir()
    os.setxattr(upper / "kept", "trusted.overlay.origin", b"whatever")
    os.mknod(upper / "kept/gone", stat.S_IFCHR, 0)
    data = packed(upper, overlay=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [
            "kept", "kept/.wh.gone", "opaque", "opaque/.wh..wh..opq", "opaque/new"]  # fmt: skip
    unpack_tar(io.BytesIO(data), str(out))
    assert os.getxattr(out / "opaque", "trusted.overlay.opaque") == b"y"
    assert (out / "kept/gone").lstat().st_rdev == 0
    assert os.listxattr(out / "kept") == []
    os.setxattr(upper / "kept", "trusted.overlay.redirect", b"/else")
    with pytest.raises(LayerError, match="redirect_dir"):
        packed(upper, overlay=True)


def test_a_chain_id_is_the_layer_and_all_below_it() -> None:
    """The example of image-spec's config.md: the first is its own, then a digest of both."""
    one, two = Digest.of(b"1"), Digest.of(b"2")
    assert chain_id([one]) == one
    assert chain_id([one, two]) == Digest.of(f"{one} {two}".encode())
    assert chain_id([one, two, one]) == Digest.of(f"{chain_id([one, two])} {one}".encode())


# ---- hostile tars that no library writes ----


def one(member: Member, data: bytes = b"") -> bytes:
    member.size = member.size or len(data)
    return header_blocks(member) + data + bytes(-len(data) % 512) + end_of_archive()


def with_pax(*records: bytes, data: bytes = b"", name: str = "x") -> bytes:
    extra = Member("pax", b"x")
    body = b"".join(records)
    extra.size = len(body)
    return header_blocks(extra) + body + bytes(-len(body) % 512) + one(Member(name, FILE), data)


def record(key: str, value: bytes) -> bytes:
    body = f" {key}=".encode() + value + b"\n"
    return next(
        b"%d%s" % (n, body) for n in range(len(body), len(body) + 9) if len(str(n)) + len(body) == n
    )


def sparse(map_: bytes, size: bytes = b"100") -> bytes:
    records = (record("GNU.sparse.map", map_), record("GNU.sparse.size", size))
    return with_pax(*records, data=b"12345678")


def oversized(size: int) -> bytes:
    member = Member("big", FILE)
    member.size = size
    return header_blocks(member)


def huge_header() -> bytes:
    member = Member("pax", b"x")
    member.size = 1 << 30
    return header_blocks(member)


HOSTILE: dict[str, bytes] = {
    "a wrong checksum": b"y" + one(Member("x", FILE))[1:],
    "a pax record of length 0": with_pax(b"0 a=b\n"),
    "a pax record that is longer than the header": with_pax(b"99 a=b\n"),
    "a pax record without =": with_pax(b"5 ab\n"),
    "a pax record without a number": with_pax(b"abc a=b\n"),
    "a negative size": with_pax(record("size", b"-5")),
    "a size of ten thousand digits": with_pax(record("size", b"9" * 10_000)),
    "a negative owner": with_pax(record("uid", b"-1")),
    "a header of a gigabyte": huge_header(),
    "data that ends": oversized(1 << 40),
    "a sparse map that overlaps": sparse(b"10,4,12,4"),
    "a sparse map beyond the end": sparse(b"0,4,98,4"),
    "a sparse map of less than the data": sparse(b"0,4"),
    "a sparse map of odd numbers": sparse(b"0,4,5"),
    "a sparse map of words": sparse(b"a,b"),
    "a sparse file beyond all disks": sparse(b"0,8", b"9" * 18),
    "an attribute that steers the overlay": with_pax(record("SCHILY.xattr.trusted.overlay.redirect", b"/")),
    "an attribute without end": with_pax(record("SCHILY.xattr.user.big", b"x" * 100_000)),
    "a name of a megabyte": with_pax(record("path", b"a" * 900_000)),
    "a link to nothing": one(Member("l", SYMLINK)),
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tar_is_refused_in_words(out: Path, data: bytes) -> None:
    with pytest.raises(LayerError, match="layer"):
        unpack_tar(io.BytesIO(data), str(out))


def test_random_damage_is_refused_or_unpacked_inside(tree: Path, out: Path, tmp_path: Path) -> None:
    data = packed(tree, time=0)
    chance = random.Random(7)
    guard = sorted(os.listdir(tmp_path))
    for _ in range(150):
        damaged = bytearray(data[: 512 * chance.randrange(1, len(data) // 512)])
        for _ in range(chance.randrange(1, 8)):
            block = 512 * chance.randrange(0, min(40, len(damaged) // 512))
            damaged[block + chance.randrange(512)] = chance.randrange(256)
            fixed = (
                bytes(damaged[block : block + 148])
                + b" " * 8
                + bytes(damaged[block + 156 : block + 512])
            )
            damaged[block + 148 : block + 156] = b"%06o\0 " % sum(fixed)
        remove_tree(str(out))
        out.mkdir()
        try:
            unpack_tar(io.BytesIO(damaged), str(out))
        except LayerError:
            pass
    assert sorted(os.listdir(tmp_path)) == guard


def test_devices_are_refused_where_they_are_not_allowed(tree: Path, out: Path) -> None:
    with pytest.raises(LayerError, match="is a device, and none are allowed here"):
        unpack_tar(io.BytesIO(packed(tree)), str(out), devices=False)


def test_a_tar_without_its_end_is_read_to_where_it_stops() -> None:
    data = header_blocks(Member("a", FILE)) + header_blocks(Member("b", FILE))
    names = [member.name for member, _ in read_members(Source([data], 1 << 20))]
    assert names == ["a", "b"]


# ---- the thread that reads ahead ----


def test_an_error_of_the_maker_comes_up_in_the_reader() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise LayerError("half")

    with pytest.raises(LayerError, match="half"):
        list(Ahead(pieces()))


def test_an_empty_piece_is_not_the_end() -> None:
    data = header_blocks(Member("a", FILE)) + header_blocks(Member("b", FILE))
    pieces = [b"", data[:100], b"", b"", data[100:], b""]
    for source in (pieces, expand(pieces), Ahead(iter(pieces))):
        assert [m.name for m, _ in read_members(Source(source, 1 << 20))] == ["a", "b"]


def test_a_reader_that_stops_stops_the_maker() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    ahead = Ahead(endless())
    assert next(iter(ahead)) == b"x" * 1000
    ahead.close()
    assert not ahead.thread.is_alive()


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_long_name_whose_hundredth_letter_is_a_slash(format: int) -> None:
    """What stands in the header itself is cut off there, and looks like a directory's name."""
    name = f"{'d' * 99}/{'f' * 120}"
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as archive:
        info = tarfile.TarInfo(name)
        info.size = 600
        archive.addfile(info, io.BytesIO(b"x" * 600))
        archive.addfile(tarfile.TarInfo("next"))
    members = [(m.name, m.kind, b"".join(map(bytes, data)))
               for m, data in read_members(Source([output.getvalue()], 1 << 20))]  # fmt: skip
    assert members == [(name, FILE, b"x" * 600), ("next", FILE, b"")]
