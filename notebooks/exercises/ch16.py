"""Checks of chapter 16: words of -v, and a directory that somebody changes."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_kind(answer: Callable[[str], str]) -> Verdict:
    """Check the three kinds of -v."""
    cases = {
        "/srv/www:/www": "bind",
        "store:/data": "volume",
        "/data": "anonymous",
        "/srv/www:/www:ro": "bind",
        "store:/data:nocopy": "volume",
    }
    for text, wanted in cases.items():
        if (got := answer(text)) != wanted:
            return failed(f"'{text}' is of the kind {wanted}, not {got!r}")
    for text in ("", "store", "store:data", ":/data", "store:", "a:/b:c:d"):
        try:
            got = answer(text)
        except ValueError:
            continue
        return failed(f"'{text}' mounts nothing, and you return {got!r}")
    return passed("five ways to say it, and six that say nothing")


def _tree(directory: Path) -> None:
    (directory / "host").mkdir()
    for path in ("volume/logs/deep", "volume/host"):
        (directory / path).mkdir(parents=True)
    os.symlink("/logs", directory / "volume" / "absolute")
    os.symlink("../host", directory / "volume" / "climbing")
    os.symlink(directory / "host", directory / "volume" / "swap")


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    finally:
        os.close(fd)


def _swapping(volume: Path, stop: threading.Event) -> None:
    while not stop.is_set():
        for first, second in (
            ("logs", "away"),
            ("swap", "logs"),
            ("logs", "swap"),
            ("away", "logs"),
        ):
            os.rename(volume / first, volume / second)


@check
def check_open_inside(answer: Callable[[int, str], int]) -> Verdict:
    """Check the opening of paths inside a directory, still and moving."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _tree(directory)
        root_fd = os.open(directory / "volume", os.O_PATH)
        try:
            return _check_open(answer, directory, root_fd)
        finally:
            os.close(root_fd)


def _check_open(answer: Callable[[int, str], int], directory: Path, root_fd: int) -> Verdict:
    volume = directory / "volume"
    for path, wanted in (
        ("logs/deep", volume / "logs" / "deep"),
        ("climbing", volume / "host"),
        ("absolute/deep", volume / "logs" / "deep"),
        ("../../logs", volume / "logs"),
    ):
        try:
            fd = answer(root_fd, path)
        except OSError as error:
            return failed(f"'{path}' is a directory in here; you raised {error.strerror}")
        if not isinstance(fd, int) or fd < 0:
            return failed(f"no descriptor came back for '{path}', but {fd!r}")
        if not _same(fd, wanted):
            return failed(
                f"'{path}' does not lead where a container would find it: it left the volume"
            )
    stop = threading.Event()
    partner = threading.Thread(target=_swapping, args=(volume, stop))
    partner.start()
    try:
        for _ in range(10000):
            try:
                fd = answer(root_fd, "logs")
            except OSError:
                continue
            if _same(fd, directory / "host"):
                return failed(
                    "somebody swapped 'logs' for a symlink, and you opened the host's directory"
                )
    finally:
        stop.set()
        partner.join()
    return passed("four paths that stand still, and one that does not")
