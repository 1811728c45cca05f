# Exported from notebooks/12b_layers_as_tars.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12b_layers_as_tars.ipynb#tar-module
"""Tar, read and written in a stream: ustar, pax and GNU's own ways, nothing in memory but one header."""

from __future__ import annotations

import os

from mini_docker.images.layout import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 512
LARGEST_HEADER = 1 << 20  # bytes of a pax header, or of a long name
XATTR = b"SCHILY.xattr."
WHITEOUT = (
    ".wh."  # before the name of what a layer hides; OPAQUE: it hides all. Source: OCI layer.md
)
OPAQUE = ".wh..wh..opq"
FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


class LayerError(ImageError):
    """A layer that is refused: what it holds is damaged or tries to leave its tree."""


class Member:
    """An entry of a tar: what a header says, with pax and GNU headers already taken into account.

    `size` is how many bytes follow in the tar. A sparse file has its data's (offset, length) in
    `sparse` and its whole size in `real_size`.
    """

    __slots__ = ("name", "kind", "mode", "uid", "gid", "size", "mtime_ns", "linkname", "device",
                 "xattrs", "sparse", "real_size")  # fmt: skip

    def __init__(self, name: str, kind: bytes, mode: int = 0o644) -> None:
        """Describe an empty file, directory or link of root's, from 1970."""
        self.name, self.kind, self.mode = name, kind, mode
        self.uid = self.gid = self.size = self.mtime_ns = self.real_size = 0
        self.linkname = ""
        self.device = (0, 0)
        self.xattrs: dict[str, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None


# %% notebooks/12b_layers_as_tars.ipynb#tar-source
class Source:
    """Bytes that come in pieces, taken in the portions that a reader wants."""

    def __init__(self, pieces: Iterable[bytes], limit: int) -> None:
        """Take at most `limit` bytes from `pieces`."""
        self.pieces = filter(None, pieces)
        self.most = self.limit = limit
        self.rest = memoryview(b"")

    def take(self, length: int) -> memoryview:
        """Return the next bytes, at most `length`, at least one; none at the end."""
        if not self.rest:
            piece = next(self.pieces, b"")
            self.limit -= len(piece)
            if self.limit < 0:
                raise LayerError(f"layer holds more than {self.most} bytes")
            self.rest = memoryview(piece)
        taken, self.rest = self.rest[:length], self.rest[length:]
        return taken

    def exactly(self, length: int) -> bytes:
        """Return the next `length` bytes. Raises LayerError where the stream ends before."""
        if len(self.rest) >= length:
            taken, self.rest = self.rest[:length], self.rest[length:]
            return bytes(taken)
        parts = []
        for part in self.portions(length):
            parts.append(bytes(part))
        return b"".join(parts)

    def portions(self, length: int) -> Iterator[memoryview]:
        """Yield the next `length` bytes as they come. Raises LayerError where the stream ends before."""
        while length:
            part = self.take(length)
            if not part:
                raise LayerError(
                    "layer is not a tar archive, or a damaged one: it ends in the middle"
                )
            length -= len(part)
            yield part

    def skip(self, length: int) -> None:
        """Leave out the next `length` bytes."""
        for _ in self.portions(length):
            pass

    def drain(self) -> None:
        """Take all the rest: what follows the archive's end belongs to its digest too."""
        while self.take(1 << 30):
            pass


# %% notebooks/12b_layers_as_tars.ipynb#tar-header
def number(field: bytes) -> int:
    """Return a header's number: octal digits, or GNU's base 256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip()
    return int(digits, 8) if digits else 0


def text(field: bytes) -> str:
    """Return a header's name, up to its NUL; bytes that are no UTF-8 survive as surrogates."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def parse_header(header: bytes) -> Member:
    """Return what one block of 512 bytes says. Raises LayerError for one that is no header."""
    try:
        checksum = number(header[148:156])
    except ValueError:
        checksum = -1
    if checksum != sum(header) - sum(header[148:156]) + 8 * 32:
        raise LayerError(
            "layer is not a tar archive, or a damaged one: a header's checksum is wrong"
        )
    member = Member(text(header[:100]), header[156:157])
    member.mode = number(header[100:108])
    member.uid, member.gid = number(header[108:116]), number(header[116:124])
    member.size, member.mtime_ns = number(header[124:136]), number(header[136:148]) * 10**9
    member.linkname = text(header[157:257])
    if header[257:262] == b"ustar":
        member.device = (number(header[329:337]), number(header[337:345]))
        if header[262:263] == b"\0" and header[345]:  # GNU's own tars have other things there
            member.name = f"{text(header[345:500])}/{member.name}"
    # the oldest tars have no other directories
    if member.kind == b"\0" and member.name.endswith("/"):
        member.kind = DIRECTORY
    elif member.kind in (b"\0", b"7"):
        member.kind = FILE
    return member


def parse_pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a pax header's records, each "LENGTH KEY=VALUE\\n". Source: pax(1p). Raises LayerError."""
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = int(data[position:space]) if space > 0 else 0
        record = data[space + 1 : position + length]
        key, equals, value = record.partition(b"=")
        if position + length > len(data) or not equals or not value.endswith(b"\n"):
            raise LayerError("layer is damaged: a pax record has the wrong length")
        yield key, value[:-1]
        position += length


def nanoseconds(decimal: bytes) -> int:
    """Return "SECONDS.FRACTION" in nanoseconds; a float would lose the last digits."""
    whole, _, fraction = decimal.partition(b".")
    value = int(whole) * 10**9
    part = int((fraction + b"000000000")[:9]) if fraction else 0
    return value - part if whole.startswith(b"-") else value + part


# %% notebooks/12b_layers_as_tars.ipynb#tar-members
def read_members(source: Source) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Yield each entry of a tar, and its data in pieces; what is not taken of them is skipped.

    Raises LayerError for what is damaged, naming the entry.
    """
    name = ""
    try:
        while (member := _next_member(source)) is not None:
            name = member.name
            data = source.portions(member.size)
            yield member, data
            for _ in data:
                pass
            source.skip(-member.size % BLOCK)
    except (ValueError, OverflowError, IndexError) as error:
        raise LayerError(
            f"layer entry {name!r}, or the one after it, has an impossible header: {error}"
        ) from error
    source.drain()


def _next_member(source: Source) -> Member | None:
    """Return the next real entry, with what the headers before it said; None at the archive's end."""
    extended: dict[bytes, bytes] = {}
    while True:
        begun = bytes(source.take(BLOCK))
        header = begun + source.exactly(BLOCK - len(begun)) if begun else b""
        if not any(header):
            return None
        member = parse_header(header)
        if member.kind in (b"x", b"X"):
            extended.update(parse_pax(_header_data(source, member)))
        elif member.kind in (b"L", b"K"):
            key = b"path" if member.kind == b"L" else b"linkpath"
            extended[key] = _header_data(source, member).partition(b"\0")[0]
        elif member.kind == b"g":
            _header_data(source, member)  # what it says of all entries, Docker does not heed either
        else:
            return _extend(source, member, header, extended)


def _header_data(source: Source, member: Member) -> bytes:
    if not 0 <= member.size <= LARGEST_HEADER:
        raise LayerError(f"layer has a header of {member.size} bytes")
    data = source.exactly(member.size)
    source.skip(-member.size % BLOCK)
    return data


def _extend(source: Source, member: Member, header: bytes, extended: dict[bytes, bytes]) -> Member:
    """Apply pax records and sparse maps to `member`; check what no file system could mean."""
    for key, value in extended.items():
        if key in (b"path", b"linkpath"):
            setattr(
                member,
                "name" if key == b"path" else "linkname",
                value.decode("utf-8", "surrogateescape"),
            )
        elif key in (b"size", b"uid", b"gid"):
            setattr(member, key.decode(), int(value))
        elif key == b"mtime":
            member.mtime_ns = nanoseconds(value)
        elif key.startswith(XATTR):
            member.xattrs[key[len(XATTR) :].decode("utf-8", "surrogateescape")] = value
    if member.kind in (LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO):
        member.size = 0
    if member.size < 0 or not 0 <= member.uid < 1 << 32 or not 0 <= member.gid < 1 << 32:
        raise ValueError(f"size {member.size}, owner {member.uid}:{member.gid}")
    if "\0" in member.name or "\0" in member.linkname:
        raise ValueError("a NUL in a name")
    if member.kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in extended):
        _read_sparse(source, member, header, extended)
    return member


# %% notebooks/12b_layers_as_tars.ipynb#tar-sparse
def _read_sparse(
    source: Source, member: Member, header: bytes, extended: dict[bytes, bytes]
) -> None:
    """Read a sparse file's map, in any of GNU's formats: old, pax 0.1, pax 1.0. Source: tar's manual."""
    real_size = extended.get(b"GNU.sparse.realsize", extended.get(b"GNU.sparse.size", b""))
    if member.kind == b"S":
        numbers, member.real_size = _old_sparse(source, header)
    elif extended.get(b"GNU.sparse.major") == b"1":
        before = source.limit + len(source.rest)
        numbers = _sparse_lines(source)
        member.size -= before - source.limit - len(source.rest)
    else:
        numbers = [int(part) for part in extended[b"GNU.sparse.map"].split(b",") if part]
    if member.kind != b"S":
        member.real_size = int(real_size)
        if b"GNU.sparse.name" in extended:
            member.name = extended[b"GNU.sparse.name"].decode("utf-8", "surrogateescape")
    member.kind = FILE
    member.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in member.sparse:
        if offset < end or length < 0 or offset + length > member.real_size:
            raise ValueError("a sparse map that overlaps or leaves the file")
        end = offset + length
    if sum(length for _, length in member.sparse) != member.size:
        raise ValueError("a sparse map of another size than the data")


def _old_sparse(source: Source, header: bytes) -> tuple[list[int], int]:
    """Return the numbers and the real size in an old GNU header and the blocks that go on with its map."""
    fields, more = header[386:482], header[482]
    numbers = [number(fields[i : i + 12]) for i in range(0, 96, 12)]
    while more:
        block = source.exactly(BLOCK)
        numbers += [number(block[i : i + 12]) for i in range(0, 504, 12)]
        more = block[504]
        if len(numbers) * 12 > LARGEST_HEADER:
            raise ValueError("a sparse map without end")
    pairs = [p for p in zip(numbers[::2], numbers[1::2], strict=True) if p != (0, 0)]
    return [value for pair in pairs for value in pair], number(header[483:495])


def _sparse_lines(source: Source) -> list[int]:
    """Return the numbers of a map that stands before the data, one a line, in whole blocks."""
    data = source.exactly(BLOCK)
    while True:
        lines = data.split(b"\n")
        if len(lines) > 1 and len(lines) > 2 * int(lines[0]) + 1:
            return [int(line) for line in lines[1 : 2 * int(lines[0]) + 1]]
        if len(data) > LARGEST_HEADER:
            raise ValueError("a sparse map without end")
        data += source.exactly(BLOCK)


# %% notebooks/12b_layers_as_tars.ipynb#tar-write
def header_blocks(member: Member) -> bytes:
    """Return the header of an entry, with a pax header before it where ustar has no room."""
    name, linkname = (os.fsencode(t) for t in (member.name, member.linkname))
    seconds = member.mtime_ns // 10**9
    records: dict[bytes, bytes] = {
        XATTR + os.fsencode(key): value for key, value in sorted(member.xattrs.items())
    }
    for key, value, fits in (
        (b"path", name, len(name) <= 100),
        (b"linkpath", linkname, len(linkname) <= 100),
        (b"size", b"%d" % member.size, member.size < 8**11),
        (b"uid", b"%d" % member.uid, member.uid < 8**7),
        (b"gid", b"%d" % member.gid, member.gid < 8**7),
        (b"mtime", b"%d" % seconds, 0 <= seconds < 8**11),
    ):
        if not fits:
            records[key] = value
    block = _ustar(member, name[:100], linkname[:100], seconds)
    if not records:
        return block
    data = b"".join(pax_record(key, value) for key, value in records.items())
    extra = Member("", b"x")
    extra.size = len(data)
    return _ustar(extra, b"pax/" + name[:96], b"", 0) + data + bytes(-len(data) % BLOCK) + block


def _ustar(member: Member, name: bytes, linkname: bytes, seconds: int) -> bytes:
    """Return one block; numbers that do not fit stand in the pax header before it, and are 0 here."""
    uid, gid = (n if n < 8**7 else 0 for n in (member.uid, member.gid))
    size, seconds = (n if 0 <= n < 8**11 else 0 for n in (member.size, seconds))
    major, minor = member.device
    before = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"), member.mode & 0o7777, uid, gid, size, seconds)  # fmt: skip
    after = b"%s%sustar\x0000%s%07o\0%07o\0" % (
        member.kind, linkname.ljust(100, b"\0"), bytes(64), major, minor)  # fmt: skip
    block = (before + b" " * 8 + after).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return "LENGTH KEY=VALUE\\n", whose length counts its own digits too."""
    body = b" %s=%s\n" % (key, value)
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return b"%d%s" % (length, body)


def end_of_archive() -> bytes:
    """Return the two empty blocks that end a tar."""
    return bytes(2 * BLOCK)
