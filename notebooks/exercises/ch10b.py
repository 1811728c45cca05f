"""Checks of chapter 10b: real trees, and the numbers of the kernel's own header."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mini_docker.lab import Verdict, check, failed, passed, run_in_child


def _two(root: str) -> tuple[str, str]:
    """Make a tree, and an upper directory that deletes, adds and replaces files and links."""
    upper, tree = f"{root}/upper", f"{root}/tree"
    os.mkdir(upper)
    os.mkdir(tree)
    for name in ("version", "keep", "gone", "same"):
        Path(tree, name).write_text("old")
    Path(root, "outside").write_text("outside")
    os.symlink(f"{root}/outside", f"{tree}/link")
    Path(upper, "version").write_text("new")
    Path(upper, "link").write_text("a file now")
    Path(upper, "log").write_text("added")
    os.symlink("version", f"{upper}/alias")
    os.mknod(f"{upper}/gone", 0o020000, 0)
    os.mknod(f"{upper}/never", 0o020000, 0)
    return upper, tree


def _laid(answer: Callable[[str, str], object], root: str) -> dict[str, str | None]:
    """Let the answer work; return what each name of the tree is, and what the file outside says."""
    upper, tree = _two(root)
    answer(upper, tree)
    found: dict[str, str | None] = {"../outside": Path(root, "outside").read_text()}
    for name in os.listdir(tree):
        path = f"{tree}/{name}"
        if os.path.islink(path):
            found[name] = f"link to {os.path.basename(os.readlink(path))}"
        else:
            found[name] = Path(path).read_text() if os.path.isfile(path) else None
    return found


@check
def check_lay_over(answer: Callable[[str, str], object]) -> Verdict:
    """Check that a tree becomes what the two stacked would look like."""
    with tempfile.TemporaryDirectory() as root:
        outcome = run_in_child(_laid, answer, root)
    found = outcome.value
    if found is None:
        return failed(f"your function raised {outcome.error or outcome.output.strip()}")
    if found["../outside"] != "outside":
        return failed(
            "'link' pointed out of the tree, and your write went through it: what is in the way goes first"
        )
    if found.get("version") == "old":
        return failed("'version' is still the old one: a file of upper replaces the one below")
    if "gone" in found:
        said = "copied" if found["gone"] is None else "ignored"
        return failed(f"'gone' was deleted: its whiteout is to be obeyed, and it was {said}")
    if "never" in found:
        return failed("'never' is a whiteout with nothing below it: nothing is what must be there")
    if found.get("link") != "a file now":
        return failed(f"'link' is a file in upper, and in your tree it is {found.get('link')!r}")
    if found.get("alias") != "link to version":
        return failed("'alias' is a symlink in upper: it must stay one, and not be followed")
    if found.get("log") != "added" or found.get("keep") != "old" or found.get("same") != "old":
        return failed(f"additions are added and the rest stays; your tree has {sorted(found)}")
    return passed("whiteouts obeyed, nothing written through a link, links kept")


# linux/fs.h and linux/btrfs.h: (direction, size, kind, command) -> number
KNOWN = {
    (1, 4096, 0x94, 23): 0x50009417,
    (1, 8, 0x94, 26): 0x4008941A,
    (1, 4, 0x94, 9): 0x40049409,
    (0, 0, 0x94, 8): 0x00009408,
    (3, 4096, 0x94, 18): 0xD0009412,
}


@check
def check_ioctl_number(answer: Callable[[int, int, int, int], int]) -> Verdict:
    """Check the number against the kernel's own."""
    for fields, number in KNOWN.items():
        said = answer(*fields)
        if said == number:
            continue
        if said & 0xFF != number & 0xFF:
            return failed(f"{fields}: the lowest 8 bits are the command; in {said:#x} they are not")
        if said >> 8 & 0xFF != fields[2]:
            return failed(
                f"{fields}: the kind stands above the command; {said:#x} has another there"
            )
        if said >> 16 & 0x3FFF != fields[1]:
            return failed(
                f"{fields}: the size takes 14 bits above the kind; {said:#x} has another size"
            )
        return failed(
            f"{fields}: the direction is the highest two bits; {said:#x} is not {number:#x}"
        )
    return passed("five numbers of linux/fs.h and linux/btrfs.h, field by field")
