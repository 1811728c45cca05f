"""Checks of chapters 14, 14b and 14c."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

ONE, TWO, THREE = "3f" + "0" * 62, "3fa" + "1" * 61, "77" + "2" * 62


@check
def check_find(answer: Callable[[str, dict[str, str]], str]) -> Verdict:
    """Check the look-up of a container by name, id, or the start of an id."""
    containers = {THREE: "db", ONE: "web", TWO: "77"}
    if answer("web", containers) != ONE:
        return failed("the name 'web' was not found")
    if answer(TWO, containers) != TWO:
        return failed("a whole id was not found")
    if answer("3fa", containers) != TWO:
        return failed("'3fa' starts one id only, and it was not found")
    if answer("77", containers) != TWO:
        return failed("'77' is somebody's name and the start of another's id: the exact name wins")
    for reference, error in (("3f", ValueError), ("nosuch", LookupError), ("", LookupError)):
        try:
            found = answer(reference, containers)
        except error:
            continue
        return failed(
            f"{reference!r} gave {found!r}: it means {'two' if error is ValueError else 'no'} containers"
        )
    return passed("names, ids, unique starts; and an honest no")


@check
def check_reclaim(answer: Callable[[str, set[str]], list[str]]) -> Verdict:
    """Check the removal of names that mean nobody."""
    with tempfile.TemporaryDirectory() as directory:
        for name, target in (("web", ONE), ("old", TWO), ("ancient", THREE)):
            os.symlink(target, f"{directory}/{name}")
        with open(f"{directory}/README", "w") as file:
            file.write("not ours")
        removed = answer(directory, {ONE})
        left = sorted(os.listdir(directory))
    if "web" not in left:
        return failed("'web' is gone, and its container exists")
    if "README" not in left:
        return failed("README was no symlink, so no name of ours, and is gone")
    if left != ["README", "web"]:
        return failed(f"left in the directory: {left}; two of the names mean nobody")
    if removed != ["ancient", "old"]:
        return failed(f"the names were removed, but you return {removed}")
    return passed("what means nobody is gone, and nothing else")


@check
def check_split(answer: Callable[[bytes], tuple[list[bytes], bytes]]) -> Verdict:
    """Check the cutting of a stream into lines (chapter 14c)."""
    if answer(b"one\ntwo\nthr") != ([b"one\n", b"two\n"], b"thr"):
        return failed(
            "two whole lines and the start of a third: lines keep their end, the start is returned apart"
        )
    if answer(b"") != ([], b""):
        return failed("nothing came, so there are no lines and there is no rest")
    if answer(b"\n") != ([b"\n"], b""):
        return failed("an empty line is a line")
    if answer(b"\xff\xfe\n\x00") != ([b"\xff\xfe\n"], b"\x00"):
        return failed("a container writes bytes: nothing may be decoded, and nothing lost")
    return passed("whole lines now, the rest later")


@check
def check_bind(answer: Callable[[str], tuple[str, str, bool]]) -> Verdict:
    """Check the reading of -v (chapter 14b)."""
    if answer("/data:/srv") != ("/data", "/srv", False):
        return failed("'/data:/srv' is read as " + repr(answer("/data:/srv")))
    if answer("/data:/srv:ro") != ("/data", "/srv", True):
        return failed("'ro' makes it read-only")
    if answer("/data:/srv:rw") != ("/data", "/srv", False):
        return failed("'rw' is the default, spelled out")
    for bad, why in (
        ("/data", "one path is an anonymous volume, which we do not have"),
        ("/data:srv", "a relative path in the container"),
        ("/data:/", "the root cannot be a volume"),
        ("/data:/../..", "that is the root, in other words"),
        ("/data:/srv:fast", "there is no such mode"),
        (":/srv", "an empty source"),
    ):
        try:
            answer(bad)
        except ValueError:
            continue
        return failed(f"'{bad}' is let through: {why}")
    return passed("source, destination, read-only, and six refusals")
