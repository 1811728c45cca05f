"""Checks of chapter 10: real upper directories and a real overlay decide."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mini_docker.lab import Verdict, check, failed, passed, run_in_child
from mini_docker.linux.mount import mount


def _layers(root: str) -> tuple[str, list[str]]:
    """Make two lower layers and an upper one with an addition, two changes and a whiteout."""
    for name in ("one", "two", "upper"):
        os.mkdir(f"{root}/{name}")
    for name in (
        "one/keep",
        "one/version",
        "two/config",
        "one/same",
        "upper/version",
        "upper/config",
        "upper/log",
    ):
        Path(root, name).write_text(name)
    os.mknod(f"{root}/upper/keep", 0o020000, os.makedev(0, 0))
    os.mknod(f"{root}/upper/null", 0o020666, os.makedev(1, 3))
    return f"{root}/upper", [f"{root}/one", f"{root}/two"]


@check
def check_diff(answer: Callable[[str, list[str]], list[str]]) -> Verdict:
    """Check a `docker diff` of the top level."""
    with tempfile.TemporaryDirectory() as root:
        upper, lower = _layers(root)
        lines = answer(upper, lower)
    if not lines:
        return failed("the container changed five names and your list is empty")
    kinds = dict(reversed(line.split(" ", 1)) for line in lines)
    if kinds.get("keep") != "D":
        return failed(
            "'keep' was deleted: its entry in upper is a character device 0,0, and you do not say D"
        )
    if kinds.get("null") != "A":
        return failed(
            "'null' is a device too, but not 0,0: the container made it, nobody deleted anything"
        )
    if kinds.get("config") != "C":
        return failed("'config' lies in the second lower layer: it was changed, not added")
    if "same" in kinds:
        return failed("'same' is in a lower layer only: the container never touched it")
    wanted = ["A log", "A null", "C config", "C version", "D keep"]
    if lines != wanted:
        return failed(
            f"the lines are {lines}; sorted they would be five, one for each entry of upper"
        )
    return passed("additions, changes and whiteouts told apart")


def _top_layer(option: str, root: str) -> str:
    os.chdir(root)
    os.makedirs("merged", exist_ok=True)
    mount("overlay", "merged", "overlay", 0, f"lowerdir={option}")
    return Path("merged/which").read_text()


@check
def check_lower_option(answer: Callable[[list[str]], str]) -> Verdict:
    """Check the text of lowerdir by mounting it."""
    with tempfile.TemporaryDirectory() as root:
        layers = [f"{root}/bottom", f"{root}/mid:dle", f"{root}/top"]
        for layer in layers:
            os.mkdir(layer)
            Path(layer, "which").write_text(layer.rpartition("/")[2])
        plain = answer([layers[0], layers[2]])
        if not plain:
            return failed("the option is empty")
        outcome = run_in_child(_top_layer, plain, root)
        if outcome.value == "bottom":
            return failed(
                "the lowest layer hides the others: in lowerdir the first name is the top"
            )
        if outcome.value != "top":
            return failed(
                f"the kernel refuses '{plain.replace(root, 'DIR')}': {outcome.output.strip()}"
            )
        outcome = run_in_child(_top_layer, answer(layers), root)
        if outcome.value != "top":
            return failed("a layer whose name contains ':' was taken for two layers")
    return passed("the last layer of the image is on top, and a colon stays in its name")
