"""Archives that cp and build send: like tarfile's own, and never a whole file in memory."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from mini_docker.cli.build import context_pieces
from mini_docker.cli.errors import CommandError
from mini_docker.cli.pack import PIECE, packed


def read(pieces: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(pieces))


def test_what_is_packed_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 700)
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "to").symlink_to("one")
    (tmp_path / "empty").touch()
    long = "n" * 150
    (tmp_path / long).write_text("long")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        names = sorted(os.listdir(tmp_path))
        files = [(str(tmp_path / name), f"top/{name}") for name in names]
        seen: list[int] = []
        archive = read(b"".join(packed(files, lambda info: seen.append(info.size))))
    found = {member.name: member for member in archive}
    assert sorted(found) == sorted(f"top/{name}" for name in names if name != "socket")
    assert archive.extractfile("top/one").read() == b"x" * 700  # type: ignore[union-attr]
    assert archive.extractfile(f"top/{long}").read() == b"long"  # type: ignore[union-attr]
    assert (found["top/two"].islnk(), found["top/two"].linkname) == (True, "top/one")
    assert (found["top/to"].issym(), found["top/to"].linkname) == (True, "one")
    assert {(member.uname, member.gname) for member in archive} == {("", "")}
    assert sum(seen) == 704


def test_a_large_file_passes_by_in_pieces(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(40 * PIECE + 1)
    sizes = [len(p) for p in packed([(str(tmp_path / "large"), "large")], lambda info: None)]
    assert max(sizes) < 2 * PIECE
    assert sum(sizes) > 40 * PIECE


def test_small_files_travel_together(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").write_text("small")
    files = [(str(tmp_path / f"{number}"), f"{number}") for number in range(20)]
    assert len(list(packed(files, lambda info: None))) == 1


def test_a_file_that_shrinks_meanwhile_is_said(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100)
    with pytest.raises(CommandError, match="log became shorter while it was read"):
        list(packed([(str(path), "log")], lambda info: os.truncate(path, 10)))


def test_a_context_is_root_s_and_keeps_what_it_needs(tmp_path: Path) -> None:
    for name in ("Dockerfile", ".dockerignore", "kept", "left.pyc"):
        (tmp_path / name).write_text(name)
    os.chown(tmp_path / "kept", 12, 34) if os.geteuid() == 0 else None
    rules = [(False, r"[^/]*\.pyc(?:/.*)?"), (False, "Dockerfile")]
    archive = read(b"".join(context_pieces(str(tmp_path), rules, "Dockerfile")))
    assert archive.getnames() == [".dockerignore", "Dockerfile", "kept"]
    assert {(member.uid, member.gid) for member in archive} == {(0, 0)}
