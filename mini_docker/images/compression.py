# Exported from notebooks/12b_layers_as_tars.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/12b_layers_as_tars.ipynb#compression-module
"""Layers as they travel: plain, gzip, zstd, and what `import` meets; told apart by their first bytes."""

from __future__ import annotations

import bz2
import ctypes
import lzma
import zlib
from itertools import chain

from mini_docker.images.layout import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    class Expander(Protocol):
        """What all of them are: compressed pieces in, plain pieces out, and whether the end was there."""

        done: bool

        def feed(self, data: bytes) -> Iterator[bytes]:
            """Yield what `data` expands to, in pieces of at most PIECE bytes. Raises CompressionError."""


PIECE = 1 << 18
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}


class CompressionError(ImageError):
    """Compressed bytes that are damaged, cut off, or of a kind that nothing here can expand."""


# %% notebooks/12b_layers_as_tars.ipynb#isal
class _IsalState(ctypes.Structure):
    """ISA-L's struct inflate_state. Source: isa-l's igzip_lib.h."""

    _fields_ = [
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_uint32),
        ("next_in", ctypes.c_void_p),
        ("read_in", ctypes.c_uint64),
        ("avail_in", ctypes.c_uint32),
        ("read_in_length", ctypes.c_int32),
        ("codes", ctypes.c_uint8 * (18912 + 2208)),
        ("block_state", ctypes.c_uint32),
        ("dict_length", ctypes.c_uint32),
        ("bfinal", ctypes.c_uint32),
        ("crc_flag", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * (1 << 18)),  # about 90 kB in version 2.30; room for later ones
    ]


class IsalInflate:
    """gzip by libisal: twice as fast as zlib."""

    GZIP, FINISHED = 1, 5

    def __init__(self) -> None:
        """Begin a stream. Raises OSError where the library is not installed."""
        self.library = ctypes.CDLL("libisal.so.2")
        self.state = _IsalState()
        self.piece = ctypes.create_string_buffer(PIECE)
        self.done = True
        self._begin()

    def _begin(self) -> None:
        self.library.isal_inflate_init(ctypes.byref(self.state))
        self.state.crc_flag = self.GZIP

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` expands to; a gzip file may be several members in a row."""
        source = ctypes.c_char_p(data)
        self.state.next_in = ctypes.cast(source, ctypes.c_void_p).value
        self.state.avail_in = len(data)
        full = False
        while self.state.avail_in or full:
            if self.done:
                next_in, avail_in = self.state.next_in, self.state.avail_in
                self._begin()
                self.state.next_in, self.state.avail_in = next_in, avail_in
            self.state.next_out, self.state.avail_out = ctypes.addressof(self.piece), PIECE
            if (failed := self.library.isal_inflate(ctypes.byref(self.state))) != 0:
                raise CompressionError(f"damaged gzip data (isal_inflate says {failed})")
            self.done = self.state.block_state == self.FINISHED
            full = self.state.avail_out == 0 and not self.done
            if length := PIECE - self.state.avail_out:
                yield ctypes.string_at(self.piece, length)


class Decompressor:
    """What the standard library expands: gzip by zlib, bzip2, xz; streams may follow one another."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Begin a stream; `make` makes the library's object."""
        self.make, self.object, self.done = make, make(), True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` expands to."""
        try:
            while data or not self.done:
                if self.object.eof:
                    self.object = self.make()
                piece = self.object.decompress(data, PIECE)
                self.done = self.object.eof
                data = (
                    self.object.unused_data
                    if self.done
                    else getattr(self.object, "unconsumed_tail", b"")
                )
                if piece:
                    yield piece
                elif not self.done and not data:
                    return
        except (zlib.error, OSError, lzma.LZMAError) as error:
            raise CompressionError(f"damaged compressed data: {error}") from error


# %% notebooks/12b_layers_as_tars.ipynb#zstd
class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer: where, how many bytes, how many of them are done."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t)]


class Zstd:
    """zstd by libzstd, which dpkg itself needs: it is on every Debian and Ubuntu."""

    def __init__(self) -> None:
        """Begin a stream. Raises OSError where the library is not installed."""
        self.library = ctypes.CDLL("libzstd.so.1")
        for name in ("ZSTD_createDStream", "ZSTD_getErrorName"):
            getattr(self.library, name).restype = ctypes.c_void_p
        self.library.ZSTD_decompressStream.restype = ctypes.c_size_t
        self.stream = ctypes.c_void_p(self.library.ZSTD_createDStream())
        self.piece = ctypes.create_string_buffer(PIECE)
        self.done = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` expands to. libzstd refuses a window of more than 128 MB by itself."""
        source = ctypes.c_char_p(data)
        given = _Buffer(ctypes.cast(source, ctypes.c_void_p).value, len(data), 0)
        full = False
        while given.position < given.size or full:
            taken = _Buffer(ctypes.addressof(self.piece), PIECE, 0)
            left = self.library.ZSTD_decompressStream(
                self.stream, ctypes.byref(taken), ctypes.byref(given)
            )
            if self.library.ZSTD_isError(ctypes.c_size_t(left)):
                raise CompressionError(
                    f"damaged zstd data (ZSTD_decompressStream says {left - (1 << 64)})"
                )
            self.done, full = left == 0, taken.position == PIECE
            if taken.position:
                yield ctypes.string_at(self.piece, taken.position)

    def __del__(self) -> None:
        """Give the stream's memory back."""
        if getattr(self, "stream", None):
            self.library.ZSTD_freeDStream(self.stream)


# %% notebooks/12b_layers_as_tars.ipynb#expand
class Plain:
    """What is not compressed."""

    done = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield `data`."""
        yield data


def compression_of(beginning: bytes) -> str:
    """Return what the first bytes of a file say: "gzip", "zstd", "bzip2", "xz", or "" for plain."""
    return next((name for magic, name in MAGIC.items() if beginning.startswith(magic)), "")


def new_expander(compression: str) -> Expander:
    """Return the fastest that is here for a compression. Raises CompressionError, with the remedy."""
    if compression == "gzip":
        return fast_gzip() or Decompressor(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16))
    if compression == "bzip2":
        return Decompressor(bz2.BZ2Decompressor)
    if compression == "xz":
        return Decompressor(lzma.LZMADecompressor)
    if compression == "zstd":
        try:
            return Zstd()
        except OSError as error:
            raise CompressionError(f"zstd: {error}; remedy: apt-get install libzstd1") from error
    return Plain()


def fast_gzip() -> IsalInflate | None:
    """Return libisal's, if it is here and its structure is the one described above: a test tells."""
    probe = bytes.fromhex("1f8b08000000000002034b040043beb7e801000000")
    try:
        inflate = IsalInflate()
        if b"".join(inflate.feed(probe)) == b"a" and inflate.done:
            return inflate
    except (OSError, AttributeError, CompressionError):
        pass  # zlib does it too, slower
    return None


def expand(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the plain bytes of a stream, compressed or not, in bounded pieces. Raises CompressionError."""
    source = filter(None, pieces)
    beginning = b""
    while len(beginning) < max(map(len, MAGIC)) and (piece := next(source, b"")):
        beginning += piece
    expander = new_expander(compression_of(beginning))
    for piece in chain((beginning,), source):
        yield from expander.feed(piece)
    if not expander.done:
        raise CompressionError("compressed data ends in the middle")


def compress(pieces: Iterable[bytes], compression: str, level: int = 6) -> Iterator[bytes]:
    """Yield the stream compressed: "gzip", whose bytes depend on nothing but the input, or "" for plain."""
    if not compression:
        yield from pieces
        return
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum = length = 0
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, no system
    for piece in pieces:
        checksum, length = zlib.crc32(piece, checksum), length + len(piece)
        if packed := compressor.compress(piece):
            yield packed
    yield compressor.flush()
    yield checksum.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little")
