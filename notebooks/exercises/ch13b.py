"""Checks of chapter 13b: what is sent first, and uploads that break."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed

NEEDS = {
    "index": ["amd64", "arm64"],
    "amd64": ["config-a", "base", "top-a"],
    "arm64": ["config-b", "base", "top-b"],
}


@check
def check_order(answer: Callable[[str, dict[str, list[str]]], list[str]]) -> Verdict:
    """Check the order of sending."""
    found = answer("index", NEEDS)
    everything = {"index", *NEEDS["index"], *NEEDS["amd64"], *NEEDS["arm64"]}
    if missing := sorted(everything - set(found)):
        return failed(f"{missing[0]} is never sent: what an index leads to leads on")
    if len(found) != len(set(found)):
        return failed("something is sent twice: both images share a layer")
    for name, needed in NEEDS.items():
        for one in needed:
            if found.index(one) > found.index(name):
                return failed(
                    f"{name} is sent before {one}, which it needs: the registry would refuse it"
                )
    if answer("layer", {}) != ["layer"]:
        return failed("what needs nothing is still to be sent itself")
    return passed("nothing before what it needs, and the top last")


class Session:
    """An upload session whose line breaks: at each break it has taken `breaks` bytes of the piece."""

    def __init__(self, breaks: list[int], chunk: int) -> None:
        self.data, self.breaks, self.chunk = b"", breaks, chunk
        self.sent = 0
        self.problem = ""

    def patch(self, start: int, data: bytes) -> None:
        """Take a piece, or a part of it and break."""
        self.sent += len(data)
        if self.sent > 20_000:
            raise RuntimeError("sent twenty times the blob")
        if start != len(self.data):
            self.problem = (
                self.problem
                or f"a piece was sent for {start}, and the registry had {len(self.data)} bytes"
            )
            return
        if len(data) > self.chunk:
            self.problem = self.problem or "a piece is larger than `chunk`"
        if self.breaks:
            self.data += data[: self.breaks.pop(0)]
            raise ConnectionError("broke off")
        self.data += data

    def count(self) -> int:
        """Return how many bytes are there."""
        return len(self.data)


@check
def check_upload(answer: Callable[[Any, bytes, int], None]) -> Verdict:
    """Check an upload over a line that breaks."""
    data = os.urandom(1000)
    for breaks, about in (
        ([], "a good line"),
        ([40], "a break in a piece"),
        ([0, 0], "breaks before a byte"),
        ([100], "a break after the whole piece"),
    ):
        session = Session(list(breaks), 100)
        try:
            answer(session, data, 100)
        except ConnectionError:
            return failed(f"{about}: you gave up, and the session still knows how far it came")
        except RuntimeError:
            return failed(f"{about}: you send and send: `count` says from where to go on")
        if session.problem:
            return failed(f"{about}: {session.problem}")
        if session.data != data:
            return failed(f"{about}: {len(session.data)} of 1000 bytes arrived")
    return passed("each byte arrives once, whatever breaks")
