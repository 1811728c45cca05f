"""Checks of chapter 8d: names that are paths, and masks that are lists."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed


@check
def check_slice_path(answer: Callable[[str], str]) -> Verdict:
    """Check where a slice lies."""
    if answer("system.slice") != "/system.slice":
        return failed(f"system.slice is /system.slice, not {answer('system.slice')!r}")
    found = answer("a-b-c.slice")
    if found == "/a/b/c.slice":
        return failed("each directory is a slice with its full name: /a.slice/a-b.slice/...")
    if found != "/a.slice/a-b.slice/a-b-c.slice":
        return failed(f"a-b-c.slice lies in a-b.slice, which lies in a.slice; yours is {found!r}")
    if answer("-.slice") != "/":
        return failed(f"-.slice is the root, not {answer('-.slice')!r}")
    for name in ("a.scope", "a--b.slice", "-a.slice", "a-.slice", ".slice", "a/../b.slice", ""):
        try:
            answer(name)
        except ValueError:
            continue
        return failed(f"{name!r} is no slice, and was taken")
    return passed("each part under its full name, the root, and no way out")


@check
def check_cpu_list(answer: Callable[[bytes], str]) -> Verdict:
    """Check the list of a mask."""
    if answer(b"\x87\x00") == "0,1,2,7":
        return failed("runs are written with a dash: 0-2,7")
    cases = {
        b"\x87\x00": "0-2,7",
        b"\x01": "0",
        b"\x03": "0-1",
        b"\x00\x01": "8",
        b"\xff\xff\x01": "0-16",
        b"": "",
        b"\x00": "",
        b"\x05\x80": "0,2,15",
    }
    for mask, words in cases.items():
        if answer(mask) != words:
            return failed(
                f"the mask {mask.hex(' ') or 'of no bytes'} is {words!r}, not {answer(mask)!r}"
            )
    return passed("runs, single ones, and masks of any length")
