"""How fast a layer becomes a directory, stage by stage, beside GNU tar, umoci and the machine's own limits.

    /usr/bin/python3 tests/bench/layers.py [--rounds 3] [--source /usr/lib]

The layer is a tar of `source`, cut at about 250 MB. All numbers are MB of that tar in a second, the best
of the rounds; nothing is asserted. Every program writes to the same disk, in turns.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mini_docker.images.compression import Decompressor, Zstd, expand, fast_gzip  # noqa: E402
from mini_docker.images.layers import unpack_layer  # noqa: E402
from mini_docker.images.layout import (  # noqa: E402
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    Layout,
    as_json,
)
from mini_docker.images.tar import Source, read_members  # noqa: E402
from mini_docker.images.unpack import unpack_pieces  # noqa: E402
from mini_docker.storage.overlay import remove_tree  # noqa: E402

if TYPE_CHECKING:
    from mini_docker.images.compression import Expander

PIECE = 1 << 18
MOST = 250_000_000


def pieces(path: pathlib.Path) -> Iterator[bytes]:
    """Yield a file's bytes."""
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def make_tar(source: str, path: pathlib.Path) -> int:
    """Write a tar of the files below `source`, up to MOST bytes; return its size."""
    size = 0
    listing = subprocess.run(
        ["find", source, "-type", "f", "-readable"], capture_output=True, text=True
    )
    chosen = []
    for name in listing.stdout.splitlines():
        if size < MOST and (length := os.stat(name).st_size) < 20_000_000:
            chosen.append(name)
            size += length + 1024
    command = ["tar", "-cf", str(path), "-P", "--transform", "s,^/,,", "-T", "-"]
    subprocess.run(command, input="\n".join(chosen), text=True, check=True)
    return path.stat().st_size


def drain(stream: Iterator[bytes]) -> None:
    """Take all of a stream."""
    for _ in stream:
        pass


def feed(expander: Expander, path: pathlib.Path) -> None:
    """Expand a file."""
    for piece in pieces(path):
        drain(expander.feed(piece))


class Bench:
    """The layer in its forms, and the table."""

    def __init__(self, scratch: pathlib.Path, source: str, rounds: int) -> None:
        """Make the layer."""
        self.scratch, self.rounds = scratch, rounds
        self.tar, self.gz, self.zst = (scratch / f"layer.tar{end}" for end in ("", ".gz", ".zst"))
        self.size = make_tar(source, self.tar)
        with open(self.tar, "rb") as plain, gzip.open(self.gz, "wb", 6) as packed:
            shutil.copyfileobj(plain, packed, PIECE)
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-q", str(self.tar), "-o", str(self.zst)], check=True)
        self.out = scratch / "out"

    def row(self, label: str, work: Callable[[], object]) -> None:
        """Print the best rate of `work`, or why it cannot run."""
        best = 0.0
        for _ in range(self.rounds):
            remove_tree(str(self.out))
            self.out.mkdir()
            os.sync()
            began = time.perf_counter()
            try:
                work()
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"  {label:<44} cannot run here, because {error}")
                return
            best = max(best, self.size / 1e6 / (time.perf_counter() - began))
        print(f"  {label:<44} {best:7.0f}", flush=True)

    def limits(self) -> None:
        """Each stage alone, in memory."""
        print("\nthe machine's limits, one stage alone, one processor")
        whole = list(pieces(self.tar))
        self.row("SHA-256", lambda: [hashlib.sha256(piece).digest() for piece in whole])
        inflate = fast_gzip()
        if inflate is not None:
            self.row("gzip, ISA-L", lambda: feed(inflate, self.gz))
        slow = Decompressor(lambda: zlib.decompressobj(31))
        self.row("gzip, zlib", lambda: feed(slow, self.gz))
        if self.zst.exists():
            zstd = Zstd()
            self.row("zstd, libzstd", lambda: feed(zstd, self.zst))
        self.row("headers of the tar, data skipped", lambda: self._scan(whole))
        self.row(
            "one big file to the disk", lambda: (self.out / "big").write_bytes(b"".join(whole))
        )

    @staticmethod
    def _scan(whole: list[bytes]) -> None:
        for _ in read_members(Source(iter(whole), 1 << 40)):
            pass

    def unpacking(self) -> None:
        """Whole unpackings, ours with all checks."""
        print("\nunpacked to the disk")
        out = str(self.out)
        self.row("plain, ours, no hash", lambda: unpack_pieces(pieces(self.tar), out))
        self.row(
            "plain, GNU tar",
            lambda: subprocess.run(["tar", "-C", out, "-xf", self.tar], check=True),
        )
        for label, path, kind in (("gzip", self.gz, "+gzip"), ("zstd", self.zst, "+zstd")):
            if not path.exists():
                continue
            self.row(f"{label}, ours, both digests checked", self._ours(path, kind))
            self.row(f"{label}, GNU tar, nothing checked",
                     lambda path=path: subprocess.run(["tar", "-C", out, "-xf", path], check=True))  # type: ignore[misc]  # fmt: skip
        self.row("gzip, umoci", self._umoci())

    def _layout(self, path: pathlib.Path, kind: str) -> tuple[Layout, Descriptor, str]:
        layout = Layout(str(self.scratch / f"layout{kind}"))
        layout.create()
        digest, diff_id = (_sha256(file) for file in (path, self.tar))
        described = Descriptor(MEDIA_TYPE_LAYER + kind, digest, path.stat().st_size)
        with layout.ingest(described) as ingest:
            for piece in pieces(path) if not ingest.offset else ():
                ingest.write(piece)
            ingest.commit()
        return layout, described, diff_id

    def _ours(self, path: pathlib.Path, kind: str) -> Callable[[], object]:
        layout, described, diff_id = self._layout(path, kind)
        return lambda: unpack_layer(layout, described, diff_id, str(self.out))

    def _umoci(self) -> Callable[[], object]:
        layout, described, diff_id = self._layout(self.gz, "+gzip")
        config = {"os": "linux", "architecture": "amd64", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [diff_id]}}  # fmt: skip
        stored = layout.put(json.dumps(config).encode(), MEDIA_TYPE_CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": as_json(stored),
                    "layers": [as_json(described)]}  # fmt: skip
        layout.name_image("bench", manifest)
        image = f"{layout.directory}:bench:latest"
        return lambda: subprocess.run(
            ["umoci", "unpack", "--image", image, f"{self.out}/bundle"], check=True
        )


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    for piece in pieces(path):
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", default="/usr/lib")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(pathlib.Path(scratch), given.source, given.rounds)
        count = sum(1 for _ in read_members(Source(pieces(bench.tar), 1 << 40)))
        packed = bench.gz.stat().st_size / 1e6
        print(f"{count} files, {bench.size / 1e6:.0f} MB, {packed:.0f} MB as gzip")
        print(f"MB/s of the tar, best of {given.rounds}; {os.cpu_count()} processors")
        drain(expand(pieces(bench.gz)))
        bench.unpacking()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\nmost memory of our process until here: {peak:.0f} MB")
        bench.limits()
        remove_tree(str(bench.out))


if __name__ == "__main__":
    main()
